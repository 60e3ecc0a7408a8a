"""Everything this project says no with, and what to do about it: the one catalogue.

Our own reasons, Meta's codes, and the faults that end a task. A code is stable: it stands
in the ledger, in logs and on the page, and it is the anchor of its entry. Codes never
hold a value from a row. `docs/reasons.md` is generated from here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from meta_capi.catalogue import faults, graph, ours
from meta_capi.catalogue.entry import EFFECTS, Effect, Reason, entries, section_title
from meta_capi.catalogue.graph import meta_code

__all__ = [
    "CATALOGUE", "EFFECTS", "PAGE", "REASONS", "Effect", "Reason", "anchor", "meta_code",
    "reason", "section_title",
]  # fmt: skip

REASONS: Final[dict[str, Reason]] = entries(ours.TEXTS)
"""Why a conversion is where it is, by our own rules."""
CATALOGUE: Final[dict[str, Reason]] = {
    **REASONS, **entries(graph.TEXTS), **entries(faults.TEXTS),
}  # fmt: skip
PAGE: Final = "docs/reasons.md"


def anchor(code: str) -> str:
    """Return the entry that speaks of a code; it has one, whatever the code.

    >>> anchor("window.over"), anchor("meta.100.1")
    ('window.over', 'meta.100')
    """
    return code if code in CATALOGUE else graph.entry_of(code)


def reason(code: str) -> Reason:
    """Return the entry of a code, under the code's own name.

    >>> reason("meta.100.2804009").meaning
    'A Purchase without value.'
    >>> reason("consent.not_given").effect.value
    'withheld'
    """
    return replace(CATALOGUE[anchor(code)], code=code)
