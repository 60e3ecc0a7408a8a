"""A telephone number as Meta wants it: the digits, country calling code first.

The library `phonenumbers` decides. Most numbers are read by the digits alone, after the
library's own numbering plans, which is ten times faster and gives the same (a property
test compares the two). A country is never guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Final

import phonenumbers
from phonenumbers import (
    PhoneMetadata,
    PhoneNumber,
    PhoneNumberDesc,
    PhoneNumberFormat,
    ValidationResult,
)

__all__ = [
    "REGIONS", "by_library", "by_plan", "compacted", "international", "lacks_country",
]  # fmt: skip

REGIONS: Final = frozenset(phonenumbers.SUPPORTED_REGIONS)
"""The countries whose numbers the library can read without their calling code."""

# E.164 allows 15 digits; dialling out of a country takes a few more (00, 0011). Under 7
# there is no full number.
_FEWEST: Final = 7
_MOST: Final = 15
_MOST_DIALLED: Final = 20
# [choice] Digits without + and without a country are read as international only from
# this length on, and only if valid: ten digits are as often a national number.
_FEWEST_BARE: Final = 11

# What a spreadsheet or a float column makes of a number.
_FLOAT: Final = re.compile(r"\s*(\+?[0-9]{7,17})\.0\s*")
# Only after a digit, so that the x of "fax" is none.
_EXTENSION: Final = re.compile(r"(?<=[0-9])[\s.,;:(/-]*(?:ext|x|#|доб)", re.IGNORECASE)
# +44 (0)20 ...: the zero is for callers inside the country.
_TRUNK_ZERO: Final = re.compile(r"\(\s*0\s*\)")
_NOT_DIGITS: Final = re.compile(r"[^0-9]+")


def international(text: str, region: str | None) -> str | None:
    """Return the digits of a number, calling code first, or None if it is not one.

    `region` is an alpha-2 code in capitals: the country of numbers without a code.

    >>> international("+1 (650) 555-1212", None)
    '16505551212'
    >>> international("079 123 45 67", "CH")
    '41791234567'
    >>> international("079 123 45 67", None)
    """
    clear = _clear(text)
    if not _TRUNK_ZERO.search(clear):
        dialled, digits = _digits(clear)
        number = by_plan(f"+{digits}" if dialled else digits, region)
        if number:
            return number
    return by_library(text, region)


def lacks_country(text: str, region: str | None) -> bool:
    """Tell whether only the country is missing to read the number."""
    dialled, digits = _digits(_clear(text))
    return not dialled and _FEWEST <= len(digits) <= _MOST and region not in REGIONS


@lru_cache(maxsize=16_384)
def by_library(text: str, region: str | None) -> str | None:
    """Read a number with `phonenumbers` alone: the truth behind `international`.

    Among several readings a valid one goes before one of merely possible length.
    """
    text = _clear(text)
    if len(_digits(text)[1]) > _MOST_DIALLED:
        return None
    readings = list(_readings(text, region))
    possible: str | None = None
    for number, reading_region, certain in readings:
        parsed = _parse(number, reading_region)
        if parsed is None:
            continue
        e164 = phonenumbers.format_number(parsed, PhoneNumberFormat.E164)[1:]
        if not _FEWEST <= len(e164) <= _MOST:
            continue
        if certain and possible is None and _is_possible(parsed, e164):
            possible = e164
            if len(readings) == 1:
                break
        if phonenumbers.is_valid_number(parsed):
            return e164
    return possible


def _readings(text: str, region: str | None) -> Iterator[tuple[str, str | None, bool]]:
    """Yield number, its region, and whether the text itself says so."""
    for spelling in dict.fromkeys((_TRUNK_ZERO.sub("", text), text)):
        dialled, digits = _digits(spelling)
        if dialled:
            yield f"+{digits}", None, True
            continue
        if region in REGIONS:
            yield digits, region, True
        if len(digits) >= _FEWEST_BARE and not digits.startswith("0"):
            yield f"+{digits}", None, False


def _parse(number: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None


def _is_possible(number: PhoneNumber, e164: str) -> bool:
    """Tell whether the length is right and no further prefix would be stripped."""
    reason = phonenumbers.is_possible_number_with_reason(number)
    return reason == ValidationResult.IS_POSSIBLE and _parse(f"+{e164}", None) == number


def _clear(text: str) -> str:
    """Fold other scripts' digits, mend a float, cut the extension."""
    if not text.isascii():
        text = "".join(map(_ascii, text))
    if damaged := _FLOAT.fullmatch(text):
        return damaged[1]
    if extension := _EXTENSION.search(text):
        return text[: extension.start()]
    return text


def _ascii(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return "+" if character == "\N{FULLWIDTH PLUS SIGN}" else character


def _digits(text: str) -> tuple[bool, str]:
    """Return whether the number is dialled with + or 00, and its digits after that."""
    before, *_ = re.split("[0-9]", text, maxsplit=1)
    digits = _NOT_DIGITS.sub("", text)
    if "+" in before or digits.startswith("00"):
        return True, digits.lstrip("0")
    return False, digits


# --- the quick way --------------------------------------------------------------------

_SPACING: Final = str.maketrans({"_": "?", " ": None, "-": None, "/": None})
_BRACKETS: Final = str.maketrans("", "", "()")
_GROUP: Final = re.compile(r"\((?!\?)")
_DIALLED: Final = re.compile(r"(?:\+|00)([1-9][0-9]{0,2})")


def compacted(text: str) -> str:
    """Return a text, or many, without the signs that people put between digits.

    The zero of `+44 (0)20` is marked `_0`.
    """
    return text.translate(_SPACING).replace("(0)", "_0").translate(_BRACKETS)


def by_plan(compact: str, region: str | None) -> str:
    """Return the number where its digits decide; an empty text leaves it to the library.

    >>> by_plan(compacted("+44 (0)20 7946 0958"), None), by_plan("0791234567", "CH")
    ('442079460958', '41791234567')
    """
    plan = _plan(region)
    if plan and (number := plan.read(compact)):
        return number
    if dialled := _DIALLED.match(compact):
        plan = _plan_of_code(dialled[1])
        return plan.read(compact) if plan else ""
    return ""


class _Plan:
    """A region's numbering plan, as far as digits alone decide."""

    def __init__(self, data: PhoneMetadata) -> None:
        general, prefix = _general(data), data.national_prefix_for_parsing
        code = self._code = str(data.country_code)
        self._lengths = frozenset(
            length
            for length in general.possible_length
            if _FEWEST <= len(code) + length <= _MOST
        )
        self._prefix = re.compile(prefix or "")
        self._full = re.compile(general.national_number_pattern or "")
        has_zero = bool(prefix and self._prefix.match("0"))
        zero, mark = ("(0)?", "_?") if has_zero else ("()", "")
        # At home: nothing that dials out, and nothing that may hold its calling code.
        home = (
            rf"(?!00|{data.international_prefix}|{code})"
            rf"(?:(?=0)|(?=[0-9]{{1,{_FEWEST_BARE - 1}}}\Z))"
        )
        # Nothing that the library might take off the front of a number.
        guard = f"(?!0|{_GROUP.sub('(?:', prefix)})" if prefix else ""
        self._match = re.compile(
            rf"(?:(?:\+|00){code}{mark}|{home}){zero}({guard}[0-9]+)"
        ).fullmatch

    def read(self, compact: str) -> str:
        """Return the number, calling code first; or an empty text, as `by_plan` does."""
        if (match := self._match(compact)) is None:
            return ""
        zero, national = match.groups()
        if len(national) not in self._lengths:
            return ""
        if zero and not self._loses_zero(zero + national):
            return ""
        return self._code + national

    def _loses_zero(self, number: str) -> bool:
        """Tell whether the library takes the zero off the front, and nothing more."""
        taken = self._prefix.match(number)
        return bool(taken and taken.end() == 1 and not self._full.fullmatch(number))


@cache
def _plan(region: str | None) -> _Plan | None:
    """Return the region's plan, or None where only the library can read it."""
    data = PhoneMetadata.metadata_for_region(region) if region else None
    if data is None:
        return None
    first = phonenumbers.region_code_for_country_code(data.country_code or 0)
    # Canada has the plan of the United States.
    return _Plan(data) if first == region else _plan_shared(data, first)


def _plan_shared(data: PhoneMetadata, first: str) -> _Plan | None:
    other = PhoneMetadata.metadata_for_region(first)
    if other is None or _rules(data) != _rules(other):
        return None
    return _plan(first)


def _rules(data: PhoneMetadata) -> tuple[str | None, ...]:
    return (
        data.national_prefix_for_parsing,
        data.national_prefix_transform_rule,
        data.international_prefix,
        _general(data).national_number_pattern,
    )


def _general(data: PhoneMetadata) -> PhoneNumberDesc:
    return data.general_desc or PhoneNumberDesc()


@cache
def _plan_of_code(digits: str) -> _Plan | None:
    """Return the plan of the calling code that digits begin with."""
    for length in (1, 2, 3):
        regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(digits[:length]))
        if regions:
            return _plan(regions[0])
    return None
