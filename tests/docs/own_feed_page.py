"""The blocks of docs/your-own-feed.md, for the tests that do what it says."""

from __future__ import annotations

import re
from typing import Final

from tests.house_rules import ROOT

__all__ = ["BLOCKS", "TEXT", "block"]

TEXT: Final = (ROOT / "docs" / "your-own-feed.md").read_text(encoding="utf-8")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS: Final[list[tuple[str, str]]] = _FENCE.findall(TEXT)
"""Language and text of each, in the page's order."""


def block(beginning: str) -> str:
    """Return the one block that begins so."""
    (found,) = (text for _, text in BLOCKS if text.startswith(beginning))
    return found
