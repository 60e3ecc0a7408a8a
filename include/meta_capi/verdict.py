"""What Meta's answer means: bytes in, a verdict out, never an exception.

Only numbers are read: code and subcode, never a sentence, which Meta localises to the
token's owner. The HTTP status is a hint at most: throttles were seen with 400, 403 and
500, token errors with 500.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

from meta_capi import spec
from meta_capi.catalogue import meta_code

__all__ = [
    "Accepted", "Answer", "NotSent", "Receipt", "Refused", "Stopped", "Throttled",
    "Unknown", "Verdict", "read",
]  # fmt: skip

_TRACE: Final = re.compile(r"[A-Za-z0-9_+/=.-]{1,64}")
_BLAME: Final = re.compile(r"data\W{1,6}\[?\W{0,3}(\d{1,4})(?!\d)")
_USAGE_HEADERS: Final = (
    "x-app-usage",
    "x-business-use-case-usage",
    "x-ad-account-usage",
)
_LONGEST_WAIT: Final = 24 * 3_600
_HUGE: Final = 2**31 - 1
# HTTP's "content too large", which no Graph code is: it stands in for one.
_TOO_LARGE: Final = 413


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back over the line. Its text may repeat what was sent."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    body_left: bool = True
    """False: it came before the request's last byte had left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The numbers of one answer, as the ledger keeps them."""

    http_status: int | None = None
    code: int | None = None
    subcode: int | None = None
    fbtrace_id: str | None = None
    events_received: int | None = None
    messages: int | None = None
    usage_percent: int | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Meta counted exactly the events that were sent."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Refused:
    """A definite no to the data. Nothing of the batch was processed."""

    receipt: Receipt
    blamed: int | None = None
    """The position in `data` that Meta's answer points at, if it does."""

    @property
    def reason(self) -> str:
        """The catalogue's code."""
        return meta_code(self.receipt.code, self.receipt.subcode)

    @property
    def too_large(self) -> bool:
        """Whether it is the size that is refused, and no event."""
        return self.receipt.code == _TOO_LARGE


@dataclass(frozen=True, slots=True)
class Throttled:
    """A definite *later*. Nothing was processed."""

    receipt: Receipt
    wait_seconds: float | None = None
    """What Meta names, if it does."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A definite no to the token, the permission, the dataset or the request's form."""

    receipt: Receipt
    sentence: str
    reason: str
    """The catalogue's code."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """The body provably did not arrive."""

    receipt: Receipt = field(default_factory=Receipt)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can say whether the events were processed."""

    receipt: Receipt
    reason: str


Verdict = Accepted | Refused | Throttled | Stopped | NotSent | Unknown


def read(given: Answer, *, events: int) -> Verdict:
    """Judge one answer to a request with this many events.

    >>> read(Answer(200, {}, b'{"events_received":2}'), events=2).receipt.http_status
    200
    >>> refusal = b'{"error":{"code":100,"error_subcode":2804003}}'
    >>> read(Answer(400, {}, refusal), events=2).reason
    'meta.100.2804003'
    >>> read(Answer(200, {}, b"<html>sign in</html>"), events=2).reason
    'answer.unclear'
    """
    verdict = _judge(given, events)
    if not given.body_left and isinstance(verdict, Accepted | Unknown):
        # An answer to half a request. What Meta did not get it did not process.
        return NotSent(verdict.receipt)
    return verdict


def _judge(given: Answer, events: int) -> Verdict:
    status = given.status
    lower = {name.lower(): value for name, value in given.headers.items()}
    usage, regain = _usage(lower)
    answer = _json(given.body)
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        return _error(status, lower, error, usage, regain)
    if 300 <= status < 400:
        receipt = Receipt(http_status=status, usage_percent=usage)
        return Stopped(
            receipt,
            "the address answers with a redirect, which is never followed",
            "answer.redirect",
        )
    if status == 429:
        return Throttled(
            Receipt(http_status=status, usage_percent=usage), _wait(lower, regain)
        )
    if status in (401, 403, 404, 405) and not isinstance(answer, dict):
        # No Graph error in it, so no Graph API behind it: a proxy or a wrong address.
        receipt = Receipt(http_status=status, usage_percent=usage)
        return Stopped(
            receipt,
            "the address does not answer as the Graph API does",
            "answer.stranger",
        )
    if status == _TOO_LARGE:
        receipt = Receipt(http_status=status, code=status, usage_percent=usage)
        return Refused(receipt)
    return _success(status, answer, usage, events)


def _success(status: int, answer: Any, usage: int | None, events: int) -> Verdict:
    if not isinstance(answer, dict):
        return Unknown(
            Receipt(http_status=status, usage_percent=usage), "answer.unclear"
        )
    messages = answer.get("messages")
    received = answer.get("events_received")
    counted = isinstance(received, int) and not isinstance(received, bool)
    receipt = Receipt(
        http_status=status,
        fbtrace_id=_trace(answer.get("fbtrace_id")),
        events_received=_number(received),
        messages=len(messages) if isinstance(messages, list) else None,
        usage_percent=usage,
    )
    if status != 200:
        return Unknown(receipt, "answer.unclear")
    if counted and received == events:
        return Accepted(receipt)
    return Unknown(receipt, "answer.count" if counted else "answer.unclear")


def _error(
    status: int,
    headers: Mapping[str, str],
    error: Mapping[str, Any],
    usage: int | None,
    regain: float | None,
) -> Verdict:
    code, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
    receipt = Receipt(
        http_status=status,
        code=code,
        subcode=subcode,
        fbtrace_id=_trace(error.get("fbtrace_id")),
        usage_percent=usage,
    )
    if code in spec.THROTTLE_CODES or status == 429:
        return Throttled(receipt, _wait(headers, regain))
    if sentence := _stop_sentence(code, subcode):
        return Stopped(receipt, sentence, meta_code(code, subcode))
    transient = error.get("is_transient") is True
    if (
        code is None
        or code < 0
        or code in spec.TRANSIENT_CODES
        or transient
        or status >= 500
    ):
        return Unknown(receipt, "answer.unclear")
    return Refused(receipt, _blamed(error))


def _stop_sentence(code: int | None, subcode: int | None) -> str | None:
    if code in spec.TOKEN_CODES:
        return "the access token is missing, invalid, expired or revoked"
    if code in spec.PERMISSION_CODES:
        return "the access token lacks a permission for this dataset"
    if code == spec.BLOCKED_CODE:
        return "Meta has blocked this token for a while"
    if code in spec.REQUEST_PATH_CODES:
        return "the Graph version or the path is not known to Meta"
    if code == spec.INVALID_PARAMETER_CODE and subcode in spec.DATASET_SUBCODES:
        return "the dataset does not exist, or the token may not see it"
    return None


def _json(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _number(value: object) -> int | None:
    """Return an integer that a column can hold, from a number or its digits."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _HUGE:
        return None
    return value


def _trace(value: object) -> str | None:
    return value if isinstance(value, str) and _TRACE.fullmatch(value) else None


def _blamed(error: Mapping[str, Any]) -> int | None:
    """Find `data[n]` in the answer: the path of 2804019, or blame_field_specs."""
    try:
        data = json.dumps(error.get("error_data"))
    except RecursionError:
        data = ""
    for place in (error.get("message"), data):
        if isinstance(place, str) and (match := _BLAME.search(place)):
            return int(match[1])
    return None


def _wait(headers: Mapping[str, str], regain: float | None) -> float | None:
    """Return Meta's own wait in seconds, bounded; None where it names none."""
    after = headers.get("retry-after", "").strip()
    waits = [regain] if regain else []
    if re.fullmatch(r"\d{1,9}", after):
        waits.append(float(after))
    elif seconds := _seconds_until(after, headers.get("date", "")):
        waits.append(seconds)
    return min(max(waits), _LONGEST_WAIT) if waits else None


def _seconds_until(moment: str, sent: str) -> float | None:
    """Return how far a header's date lies ahead, by the clock that sent the answer."""
    try:
        ahead = parsedate_to_datetime(moment) - parsedate_to_datetime(sent)
    except (ValueError, TypeError, OverflowError):
        return None
    seconds = ahead.total_seconds()
    return seconds if seconds > 0 else None


def _usage(headers: Mapping[str, str]) -> tuple[int | None, float | None]:
    """Return the highest usage in percent and the wait in seconds the headers name."""
    percents: list[float] = []
    minutes: list[float] = []
    for name in _USAGE_HEADERS:
        for part in _objects(_json(headers.get(name, "")[:20_000])):
            for key, value in part.items():
                if isinstance(value, bool) or not isinstance(value, int | float):
                    continue
                # A NaN is not above zero; an endless number is as long as the longest.
                if not value >= 0:
                    continue
                if key == "estimated_time_to_regain_access":
                    minutes.append(min(value, _LONGEST_WAIT / 60))
                elif key in (
                    "call_count",
                    "total_cputime",
                    "total_time",
                    "acc_id_util_pct",
                ):
                    percents.append(min(value, 1_000))
    wait = max(minutes) * 60 if minutes and max(minutes) > 0 else None
    return (int(max(percents)) if percents else None), wait


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object inside parsed JSON, at any of the depths the headers use."""
    left = [value]
    while left:
        match left.pop():
            case dict() as found:
                yield found
                left += found.values()
            case list() as found:
                left += found
