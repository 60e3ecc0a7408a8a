"""Meta's own scores: what its Dataset Quality API answers, as numbers.

Meta's sentences are left out: they come in the language of the token's owner, and what
stands in them nobody can promise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from meta_capi import match_keys
from meta_capi.verdict import Answer, Refused, Stopped, Throttled, read

__all__ = [
    "FIELDS", "PATH", "TROUBLE", "EventScore", "KeyScore", "ScoresError", "Surface",
    "our_key", "parse",
]  # fmt: skip

PATH: Final = "dataset_quality"
TROUBLE: Final = "warning.scores"
"""The catalogue's entry for all that goes wrong with them."""


class Surface(StrEnum):
    """Which events are scored: those of the web, or those of shops (Meta's beta)."""

    WEB = "web"
    OFFLINE = "offline"


# "Dataset Quality API": one surface a request. What is not asked for is not sent.
FIELDS: Final = {
    Surface.WEB: "web{event_name,event_match_quality{composite_score,match_key_feedback"
    "{identifier,coverage{percentage},potential_aly_acr_increase{percentage}}},"
    "event_coverage{percentage,goal_percentage},acr{percentage},"
    "data_freshness{upload_frequency}}",
    Surface.OFFLINE: "offline{event_name,composite,match_key,frequency,freshness}",
}
_MOST_SCORE: Final = 10
_WHOLE: Final = 100
# ACR: what an event adds to what Meta could report; it may be more than all there was.
_MOST_GAIN: Final = 100_000
_MOST_EVENTS: Final = 1_000
_MOST_KEYS: Final = 100
_NAME_LENGTH: Final = 100
_NUMBER: Final = re.compile(r"\d{1,9}(\.\d{1,20})?")
# The API names keys in words; those that its pages do not show are guesses [choice], and
# one that is not here stands without our own share beside it.
_KEYS: Final = {
    "email": "em", "phone": "ph", "ip_address": "client_ip_address",
    "user_agent": "client_user_agent", "first_name": "fn", "last_name": "ln",
    "city": "ct", "state": "st", "zip": "zp", "zip_code": "zp", "gender": "ge",
    "date_of_birth": "db", "click_id": "fbc", "browser_id": "fbp",
}  # fmt: skip


class ScoresError(Exception):
    """Meta's scores could not be read: no fault that ends anything, nothing sent needs them.

    Args:
        message: why, in our own words.
        code: the catalogue's entry.
        for_now: it may pass by itself.
    """

    def __init__(
        self, message: str, *, code: str = TROUBLE, for_now: bool = False
    ) -> None:
        super().__init__(message)
        self.code, self.for_now = code, for_now


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyScore:
    """What Meta says of a match key of an event."""

    match_key: str
    """In Meta's words; `our_key` has ours."""
    coverage: float | None = None
    """Of the events, the percentage that had it."""
    gain: float | None = None
    """By how many percent more conversions Meta could report if all had it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventScore:
    """What Meta says of the events of one name. It may leave out anything but the name."""

    event_name: str
    score: float | None = None
    """0 to 10: event match quality on the web, the composite score of offline events."""
    match_key_score: float | None = None
    frequency_score: float | None = None
    freshness_score: float | None = None
    upload_frequency: str | None = None
    """How soon events come, in a word of Meta's: real_time, hourly, ..."""
    event_coverage: float | None = None
    """Of the Pixel's events, the percentage that came from servers, too."""
    coverage_goal: float | None = None
    acr: float | None = None
    """By how many percent more conversions Meta reported because of these events."""
    keys: Sequence[KeyScore] = ()


def our_key(word: str) -> str | None:
    """Return our name of a match key; None where we know none.

    >>> our_key("email"), our_key("external_id"), our_key("shoe_size")
    ('em', 'external_id', None)
    """
    name = _KEYS.get(word, word)
    return name if name in match_keys.KEYS else None


def parse(answer: Answer, surface: Surface) -> list[EventScore]:
    """Read an answer: a score for each event, by name.

    What is missing is None, what is unknown is not looked at.

    Raises:
        ScoresError: Meta said no, or said nonsense; quotes nothing of it.
    """
    _refuse(answer)
    try:
        whole = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise _nonsense("is no JSON") from None
    if "error" in _object(whole):
        raise _nonsense("is an error without a code")
    items = _list(_object(whole).get(surface.value), _MOST_EVENTS)
    make = _web if surface is Surface.WEB else _offline
    found = [make(item) for item in map(_object, items) if item.get("event_name")]
    if len({each.event_name for each in found}) < len(found):
        raise _nonsense("names an event twice")
    return found


def _refuse(answer: Answer) -> None:
    """Raise what stands in the way of reading an answer."""
    verdict = read(answer, events=0)
    match verdict:
        case Stopped(sentence=sentence, reason=reason):
            raise ScoresError(f"{sentence[0].upper()}{sentence[1:]}.", code=reason)
        case Refused(reason=reason):
            raise ScoresError("Meta refuses the request.", code=reason)
        case Throttled():
            raise ScoresError("Meta asks to wait.", for_now=True)
        case _ if answer.status != 200 or verdict.receipt.code is not None:
            raise ScoresError("Meta does not answer properly just now.", for_now=True)


def _web(item: Mapping[str, Any]) -> EventScore:
    quality = _object(item.get("event_match_quality"))
    covered = _object(item.get("event_coverage"))
    keys = _list(quality.get("match_key_feedback"), _MOST_KEYS)
    return EventScore(
        event_name=_text(item["event_name"]),
        score=_number(quality.get("composite_score"), _MOST_SCORE),
        upload_frequency=_word(_object(item.get("data_freshness"))),
        event_coverage=_percentage(covered, _MOST_GAIN),
        coverage_goal=_number(covered.get("goal_percentage"), _WHOLE),
        acr=_percentage(item.get("acr"), _MOST_GAIN),
        keys=_once(
            KeyScore(
                match_key=_text(key["identifier"]).lower(),
                coverage=_percentage(key.get("coverage"), _WHOLE),
                gain=_percentage(key.get("potential_aly_acr_increase"), _MOST_GAIN),
            )
            for key in map(_object, keys)
            if key.get("identifier")
        ),
    )


def _offline(item: Mapping[str, Any]) -> EventScore:
    key = _object(item.get("match_key"))
    return EventScore(
        event_name=_text(item["event_name"]),
        score=_score(item.get("composite")),
        match_key_score=_score(key),
        frequency_score=_score(item.get("frequency")),
        freshness_score=_score(item.get("freshness")),
        keys=_once(
            KeyScore(match_key=_text(word).lower(), coverage=_number(share, _WHOLE))
            for word, share in _object(key.get("coverage")).items()
        ),
    )


def _once(keys: Iterable[KeyScore]) -> tuple[KeyScore, ...]:
    found = tuple(keys)
    if len({key.match_key for key in found}) < len(found):
        raise _nonsense("names a key twice")
    return found


def _score(part: object) -> float | None:
    return _number(_object(part).get("score"), _MOST_SCORE)


def _percentage(part: object, most: int) -> float | None:
    return _number(_object(part).get("percentage"), most)


def _number(value: object, most: int) -> float | None:
    """Take a number, or its digits: the Graph API writes some numbers as texts."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _nonsense("has something else where a number belongs")
    if not 0 <= value <= most:  # NaN is not, either
        raise _nonsense(f"has a number that is not between 0 and {most}")
    return float(value)


def _word(part: Mapping[str, Any]) -> str | None:
    value = part.get("upload_frequency")
    return None if value is None else _text(value)


def _text(value: object) -> str:
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _NAME_LENGTH
        or not value.isprintable()
    ):
        raise _nonsense("has a name that is none")
    return value


def _object(value: object) -> Mapping[str, Any]:
    """Take an object; nothing is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _nonsense("is not made as its pages say")
    return value


def _list(value: object, most: int) -> Sequence[object]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _nonsense("is not made as its pages say")
    if len(value) > most:
        raise _nonsense(f"has more than {most} entries")
    return value


def _nonsense(what: str) -> ScoresError:
    return ScoresError(f"Meta's answer {what}; nothing of it was kept.")
