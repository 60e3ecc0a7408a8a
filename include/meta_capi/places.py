"""Where conversions happened, guessed from what a table and its columns are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from meta_capi.column_names import folded
from meta_capi.picking import Picks

__all__ = ["place", "words"]

_WORD: Final = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+")
_PLACES: Final[Mapping[str, str]] = {
    "physical_store": "store shop pos filial kasse kassa kassen bon bons beleg receipt"
    " branch laden tienda magasin boutique winkel negozio loja caisse caja",
    "phone_call": "call phone anruf telefon hotline llamada appel chiamata",
    "system_generated": "lead crm deal opportunity subscription",
    "chat": "chat",
}


def place(picks: Picks) -> tuple[str, str]:
    """Return where it happened, and why that is thought."""
    if "lead_id" in picks.roles:
        return "system_generated", "as all events of a CRM"
    # A schema is often called shop, whatever is in it.
    own = words(picks.table.name.rpartition(".")[2])
    places = [place for place, hints in _PLACES.items() if _speaks_of(hints, own)]
    # A column tells as much of stores alone: many a table has a caller or a status.
    stores = _PLACES["physical_store"]
    if not places and any(
        _speaks_of(stores, words(each)) for each in picks.table.kinds
    ):
        places = ["physical_store"]
    if not places:
        return (
            "other",
            "nothing says where; physical_store, phone_call, email, chat, …?",
        )
    more = "; Meta takes it for 62 days, all else for 7"
    return places[0], "by a name" + more * (places[0] == "physical_store")


def words(name: str) -> list[str]:
    """Return the words of a name, as of store_sales and storeSales.

    >>> words("pos.storeSales_DE")
    ['pos', 'store', 'sales', 'de']
    """
    return [folded(each) for each in _WORD.findall(name)]


def _speaks_of(hints: str, words: Iterable[str]) -> bool:
    """Tell whether one of the words is a hint, or a compound of a long one."""
    return any(
        word.startswith(hint) if len(hint) > 3 else word == hint
        for word in words
        for hint in hints.split()
    )
