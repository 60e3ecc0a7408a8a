"""What a customer allowed: consent, attribution only, limited data use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from meta_capi import spec
from meta_capi.feed import Feed
from meta_capi.lifecycle import State
from meta_capi.names import clean_text
from meta_capi.normalise import state, text_of
from meta_capi.rows import Memory, Rows, Verdict

__all__ = ["Privacy", "matches", "words_of"]

_NO_CONSENT: Final[Verdict] = (State.WITHHELD, "consent.not_given")

_YES: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_NO: Final = frozenset({"false", "f", "no", "n", "off", "0"})


def words_of(values: Sequence[object]) -> set[str]:
    """Return the words, in lower case, that a feed's values stand for.

    YAML reads yes, on and true as one value, so that value stands for all such words.
    """
    words: set[str] = set()
    for value in values:
        if isinstance(value, bool):
            words |= _YES if value else _NO
        else:
            words.add(str(value).strip().lower())
    return words


def matches(values: Sequence[object]) -> Callable[[object], bool]:
    """Return a test for *is one of these*, blind to case, by `words_of` them."""
    accepted = words_of(values)

    def match(value: object) -> bool:
        # Texts as they are: `none` can be somebody's answer.
        text = value if isinstance(value, str) else text_of(value)
        return isinstance(text, str) and text.strip().lower() in accepted

    return match


class Privacy:
    """What customers allowed, for one feed. Keeps what it learnt of repeated values."""

    def __init__(self, feed: Feed) -> None:
        ldu, opt_out = feed.limited_data_use, feed.opt_out
        self._feed = feed
        self._consents = Memory(matches(feed.consent.granted))
        self._limits = Memory(matches(ldu.values if ldu else ()))
        self._states = Memory(_ldu_state)
        self._opt_outs = Memory(matches(opt_out.values if opt_out else ()))

    def keep_consented(self, rows: Rows) -> None:
        """Hold the rows without consent."""
        name = self._feed.consent.column
        if name is not None:
            given = self._consents.of(rows.column(name))
            rows.hold([None if yes else _NO_CONSENT for yes in given])

    def members(self, rows: Rows) -> Sequence[str]:
        """Return the members for opt_out and limited data use, with a leading comma."""
        ldu, opt_out = self._feed.limited_data_use, self._feed.opt_out
        members = [""] * len(rows)
        if ldu:
            flags = self._limits.of(rows.column(ldu.column))
            if any(flags):
                states = rows.column(ldu.state) if ldu.state else [None] * len(rows)
                numbers = self._states.of(states)
                members = [
                    _ldu(number) if flag else ""
                    for flag, number in zip(flags, numbers, strict=True)
                ]
                unknown = sum(
                    flag and number is None
                    for flag, number in zip(flags, numbers, strict=True)
                )
                rows.built.flaws.update(
                    {"ldu.state_unknown": unknown} if unknown else {}
                )
        if opt_out:
            flags = self._opt_outs.of(rows.column(opt_out.column))
            members = [
                member + ',"opt_out":true' if flag else member
                for member, flag in zip(members, flags, strict=True)
            ]
        return members


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
