"""What a customer allowed: consent, attribution only, limited data use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from meta_capi import spec
from meta_capi.built import Built, Columns
from meta_capi.feed import Feed
from meta_capi.names import clean_text
from meta_capi.normalise import state, text_of

__all__ = ["matches", "privacy"]

_YES: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_NO: Final = frozenset({"false", "f", "no", "n", "off", "0"})


def matches(values: Sequence[object]) -> Callable[[object], bool]:
    """Return a test for *is one of these*, blind to case.

    YAML reads yes, on and true as one value, so that value stands for all such words.
    """
    accepted: set[str] = set()
    for value in values:
        if isinstance(value, bool):
            accepted |= _YES if value else _NO
        else:
            accepted.add(str(value).strip().lower())

    def match(value: object) -> bool:
        # Texts as they are: `none` can be somebody's answer.
        text = value if isinstance(value, str) else text_of(value)
        return isinstance(text, str) and text.strip().lower() in accepted

    return match


def privacy(feed: Feed, columns: Columns, built: Built, alive: list[int]) -> list[str]:
    """Return the members for opt_out and limited data use, with a leading comma."""
    ldu, opt_out = feed.limited_data_use, feed.opt_out
    out = [""] * len(alive)
    if ldu:
        flagged = matches(ldu.values)
        for place, row in enumerate(alive):
            if flagged(columns[ldu.column][row]):
                number = _ldu_state(columns[ldu.state][row]) if ldu.state else None
                if number is None:
                    built.flaws["ldu.state_unknown"] += 1
                out[place] = _ldu(number)
    if opt_out:
        flagged = matches(opt_out.values)
        for place, row in enumerate(alive):
            if flagged(columns[opt_out.column][row]):
                out[place] += ',"opt_out":true'
    return out


def _ldu_state(raw: object) -> int | None:
    text = clean_text(raw)
    code = state(text, "us") if text else None
    return spec.LDU_STATES.get(code.upper()) if isinstance(code, str) else None


def _ldu(number: int | None) -> str:
    place = spec.LDU_GEOLOCATE if number is None else spec.LDU_COUNTRY_USA
    return (
        ',"data_processing_options":["LDU"]'
        f',"data_processing_options_country":{place}'
        f',"data_processing_options_state":{number or 0}'
    )
