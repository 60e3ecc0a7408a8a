"""A CRM's stages, guessed from the values of one column: their names and their order.

A stage's name is configuration, not a row's own: it stands in many rows, and there are
few. What is not like that might be somebody's, and is told to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from meta_capi.column_names import folded, likeness
from meta_capi.picking import TEXTS, Funnel, Picks, is_usable
from meta_capi.places import place

__all__ = ["MOST_STAGES", "judge", "stage_column", "with_stages"]

MOST_STAGES: Final = 15
# What stands in one row alone may be that row's own.
_LEAST_ROWS: Final = 2
_LEAST_KNOWN: Final = 2
_STAGE: Final = re.compile(r"(?:\d{1,2}[ .)_-]*)?[^\W\d_](?:[\w .()/&+-]{0,38}[\w)])?")
_NUMBER: Final = re.compile(r"\d{3}")
_WORD: Final = re.compile(r"[^\W\d_]+")
_EVENTS: Final = {
    "Initial Lead": "new open initial incoming created raw neu offen nuevo nouveau nuovo"
    " nieuw novo",
    "Contacted": "contacted contact attempted reached working kontaktiert contactado"
    " contacte contattato gecontacteerd contatado",
    "Qualified": "qualified mql sql qualifiziert cualificado calificado qualifie"
    " qualificato gekwalificeerd qualificado",
    "Opportunity": "opportunity proposal negotiation offer quote quoted demo angebot"
    " verhandlung oferta offre offerta offerte proposta propuesta",
    "Converted": "converted customer won sold kunde gewonnen verkauft cliente client"
    " klant ganado gagne vinto gewonnen ganho",
}
_LOST: Final = """lost spam junk unqualified disqualified rejected duplicate invalid dead not
    nicht verloren abgelehnt dublette perdido perdu perso afgewezen rechazado"""
_LOST_WORDS: Final = frozenset(map(folded, _LOST.split()))
_RANKS: Final = {
    folded(word): (rank, event)
    for rank, (event, words) in enumerate(_EVENTS.items())
    for word in words.split()
}


def stage_column(picks: Picks) -> str | None:
    """Return the column that may name a CRM's stage."""
    if place(picks)[0] != "system_generated":
        return None
    alike = [
        (likeness(column, "stage"), number, column)
        for number, (column, kind) in enumerate(picks.table.kinds.items())
        if kind in TEXTS and is_usable(column) and likeness(column, "stage")
    ]
    return min(alike)[2] if alike else None


def judge(column: str, values: Sequence[tuple[object, int]]) -> Funnel:
    """Return the funnel that values make, each with the number of its rows."""
    if len(values) > MOST_STAGES:
        return Funnel(column, why_not=f"it has more than {MOST_STAGES} values")
    names = [str(value) for value, rows in values if rows >= _LEAST_ROWS]
    if not all(map(_is_plain, (str(value) for value, _ in values))):
        return Funnel(column, why_not="some values are not like the names of stages")
    ignore = tuple(name for name in names if _is_lost(name))
    ranked = [(name, _rank(name)) for name in names if name not in ignore]
    known = [(found, name) for name, found in ranked if found]
    if not known or len(known) + len(ignore) < _LEAST_KNOWN:
        return Funnel(column, why_not="its values are no stages that we know")
    known.sort(key=lambda each: each[0][0])
    return Funnel(
        column,
        map=tuple((name, event) for (_, event), name in known),
        ignore=ignore,
        unknown=tuple(name for name, found in ranked if not found),
        untold=len(values) - len(names),
    )


def with_stages(picks: Picks, funnel: Funnel) -> Picks:
    """Return the picks with a row for each stage that a lead reached."""
    if "created" not in picks.roles and not funnel.why_not:
        why = "no column says when the lead was made"
        funnel = Funnel(funnel.column, why_not=why)
    if funnel.why_not:
        return replace(picks, funnel=funnel)
    key, key_why = picks.key, picks.key_why
    if key and funnel.column not in key and len(key) < 4:
        key = (*key, funnel.column)
        key_why = "with the stage, for a lead has a row, or an event, for each"
    roles = {**picks.roles, "stage": funnel.column}
    return replace(picks, key=key, key_why=key_why, roles=roles, funnel=funnel)


def _is_plain(name: str) -> bool:
    return bool(_STAGE.fullmatch(name)) and not _NUMBER.search(name)


def _words(name: str) -> Iterator[str]:
    yield folded(name)
    yield from map(folded, _WORD.findall(name.replace("_", " ")))


def _is_lost(name: str) -> bool:
    return not _LOST_WORDS.isdisjoint(_words(name))


def _rank(name: str) -> tuple[int, str] | None:
    """Return the furthest place in the funnel that the name's words speak of."""
    return max((_RANKS[word] for word in _words(name) if word in _RANKS), default=None)
