"""What a database gives, as text without loss; and what all normalisers do first."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Final
from uuid import UUID

from meta_capi.normalise.flaw import Flaw

__all__ = ["has_letter", "in_a_name", "in_a_place", "kept", "prepared", "text_of"]

# [choice] No e-mail address, name or id is longer; an export gone wrong is.
_LONGEST_TEXT: Final = 2_000
# Above this a float no longer holds every whole number.
_EXACT_FLOAT: Final = 2**53
# Exact spellings, because people are called Null and Nan; a database writes these.
_EMPTY_WORDS: Final = frozenset({
    "null", "NULL", "(null)", "<null>", "\\N", "None", "none", "NONE", "nan", "NaN",
    "NAN", "NaT", "<NA>", "n/a", "N/A", "#N/A", "undefined",
})  # fmt: skip
# 1.23457E+15, as spreadsheets and floats write it. An id such as 1e5 has no plus sign.
_EXPONENT: Final = re.compile(r"\s*-?[0-9](?:[.,][0-9]+)?[eE]\+[0-9]{2,3}\s*")


def text_of(value: object) -> str | Flaw | None:
    """Return what a database gave as text, without loss, or None for nothing.

    Nothing is: None, NaN, white space, and the texts null NULL (null) <null> \\N None
    none NONE nan NaN NAN NaT <NA> n/a N/A #N/A undefined, in these spellings only.
    Whole floats and decimals lose their `.0`; a number that has lost digits is a flaw.

    >>> text_of(16505551212.0)
    '16505551212'
    >>> text_of(1.2345678901234567e16)
    <Flaw.VALUE_DAMAGED: 'value.damaged'>
    """
    match value:
        case None:
            return None
        case str():
            # Of a text of a driver's own kind, the text; its str() may say otherwise.
            return _readable(value if type(value) is str else str.__str__(value))
        case bool():
            return "true" if value else "false"
        case int():
            # A number of more than 2,000 digits; str() itself refuses 4,300.
            if value.bit_length() > 3 * _LONGEST_TEXT:
                return Flaw.VALUE_TEXT_UNREADABLE
            return int.__repr__(value)
        case float():
            return _whole_or_exact(value)
        case Decimal():
            return _plain_decimal(value)
        case bytes() | bytearray() | memoryview():
            try:
                return _readable(bytes(value).decode())
            except UnicodeDecodeError:
                return Flaw.VALUE_TEXT_UNREADABLE
        case datetime() if value.tzinfo is not None:
            return _in_utc(value)
        case date():  # a datetime without a zone is one, too
            return _readable(value.isoformat())  # of pandas, "NaT"
        case UUID() | IPv4Address() | IPv6Address() | IPv4Interface() | IPv6Interface():
            return str(value)
    return Flaw.VALUE_TEXT_UNREADABLE


def _in_utc(value: datetime) -> str:
    """Write a moment as one text, whatever the zone of the session that read it."""
    try:
        return value.astimezone(UTC).isoformat()
    except OverflowError:  # a day from the year 1 or 9999
        return value.isoformat()


def _readable(text: str) -> str | Flaw | None:
    if len(text) > _LONGEST_TEXT:
        return Flaw.VALUE_TEXT_UNREADABLE
    trimmed = text.strip()
    if not trimmed or trimmed in _EMPTY_WORDS:
        return None
    if "\0" in text or not (text.isascii() or _is_sendable(text)):
        return Flaw.VALUE_TEXT_UNREADABLE
    if "+" in text and _EXPONENT.fullmatch(text):
        return Flaw.VALUE_DAMAGED
    return text


def _is_sendable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def _whole_or_exact(value: float) -> str | Flaw | None:
    if math.isnan(value):
        return None
    if abs(value) >= _EXACT_FLOAT:  # infinity, too
        return Flaw.VALUE_DAMAGED
    # NumPy's floats are floats, and write themselves np.float64(0.5).
    text = str(int(value)) if value.is_integer() else float.__repr__(value)
    return Flaw.VALUE_DAMAGED if "e" in text else text


def _plain_decimal(value: Decimal) -> str | Flaw | None:
    if value.is_nan():
        return None
    # adjusted() is the power of ten of the first digit: 10^2000 is not written out.
    if value.is_infinite() or abs(value.adjusted()) > _LONGEST_TEXT:
        return Flaw.VALUE_TEXT_UNREADABLE
    text = f"{value:f}"
    return _readable(text.rstrip("0").removesuffix(".") if "." in text else text)


def prepared(text: str) -> str:
    """Trim; compose to NFC; leave out what cannot be seen.

    [choice] NFC, because `é` has two spellings with two digests; no library of Meta's
    does it. Invisible: byte order marks, zero-width and direction marks (Cf).
    """
    if not text.isascii():
        seen = (c for c in text if unicodedata.category(c) not in ("Cf", "Cs"))
        text = unicodedata.normalize("NFC", "".join(seen))
    return text.strip()


def kept(text: str, keeps: Callable[[str], bool]) -> str:
    """Return the lower-case text without the characters that a rule drops."""
    if text.isascii() and text.isalpha():
        return text.lower()  # no rule drops these
    kept = "".join(filter(keeps, text.lower()))
    return unicodedata.normalize("NFC", kept) if not kept.isascii() else kept


# Apostrophes that Unicode counts among the letters: Hawaiian and Ukrainian names are
# typed with them, with ' or with nothing.
_LETTER_APOSTROPHES: Final = "\u02bb\u02bc"


@lru_cache(maxsize=8_192)
def in_a_name(character: str) -> bool:
    category = unicodedata.category(character)
    return not (
        category[0] in "PZ"
        or category in ("Cc", "Sk")
        or character in string.punctuation
        or character in _LETTER_APOSTROPHES
    )


@lru_cache(maxsize=8_192)
def in_a_place(character: str) -> bool:
    # Marks belong to the letters: Indic and Thai scripts write vowels with them.
    letter = unicodedata.category(character)[0] in "LM"
    return letter and character not in _LETTER_APOSTROPHES


def has_letter(text: str) -> bool:
    return any(map(str.isalnum, text))
