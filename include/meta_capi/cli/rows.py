"""What the terminal shows of a row of the source: its match keys, and why some are left out."""

from __future__ import annotations

from meta_capi.catalogue import reason
from meta_capi.cli.page import Page
from meta_capi.judged import Row, sent_words

__all__ = ["tell_match_keys", "tell_reason"]


def tell_match_keys(page: Page, row: Row, *, exact: bool = False) -> None:
    """Write a table of the row's match keys, and why some are left out."""
    page.table(
        ["key", "column", "in the row", "normalised", "sent"],
        [
            (
                each.key,
                each.column,
                each.raw,
                each.normalised,
                sent_words(each, exact=exact),
            )
            for each in row.keys
        ],
        indent=2,
    )
    for each in row.keys:
        if each.flaw:
            tell_reason(page, each.flaw, f"{each.key} is left out", 2)
    told = {each.flaw for each in row.keys}
    for code in row.flaws:
        if code not in told:
            tell_reason(page, code, "left out", 2)


def tell_reason(page: Page, code: str, before: str, indent: int = 0) -> None:
    """Write a reason with the catalogue's words."""
    entry = reason(code)
    page.say(f"{before}: {code}. {entry.meaning} {entry.action}", indent)
