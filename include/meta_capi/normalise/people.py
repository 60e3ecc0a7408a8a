"""Who someone is: address, number, name, birthday, gender."""

from __future__ import annotations

import re
import unicodedata
from datetime import date, datetime
from typing import Final

from meta_capi.data import GENDERS
from meta_capi.normalise import phones
from meta_capi.normalise.flaw import Flaw, Normalised
from meta_capi.normalise.text import has_letter, in_a_name, kept, prepared

__all__ = ["birthday", "email", "gender", "name", "phone"]

_ADDRESS: Final = re.compile(
    r"[^\s@\x00-\x1f]+@[^\s@.\x00-\x1f]+(?:\.[^\s@.\x00-\x1f]+)+"
)


def email(text: str) -> Normalised | Flaw | None:
    """Trim and lower-case. Dots and plus-tags stay.

    [choice] What has not exactly one @, a dot in the domain and no space is no address.

    >>> email(" John_Smith@gmail.com")
    'john_smith@gmail.com'
    >>> email("jane@localhost")
    <Flaw.EM_NOT_AN_ADDRESS: 'em.not_an_address'>
    """
    text = prepared(text)
    if not text:
        return None
    address = text.lower()
    if not address.isascii():
        address = unicodedata.normalize("NFC", address)
    if _ADDRESS.fullmatch(address):
        return Normalised(address)
    return Flaw.EM_NOT_AN_ADDRESS


def phone(text: str, country: str | None) -> Normalised | Flaw | None:
    """Return digits only, country calling code first, no leading zeros.

    `country` (alpha-2) is where numbers without a calling code are from. Extensions and
    the `(0)` of `+44 (0)20` go; `16505551212.0` is mended.

    >>> phone("(650)555-1212", "us")
    '16505551212'
    >>> phone("(650)555-1212", None)
    <Flaw.PH_NO_COUNTRY_CODE: 'ph.no_country_code'>
    """
    if not text or text.isspace():
        return None
    region = country.upper() if country else None
    digits = phones.international(text, region)
    if digits is not None:
        return Normalised(digits)
    if phones.lacks_country(text, region):
        return Flaw.PH_NO_COUNTRY_CODE
    return Flaw.PH_NOT_A_NUMBER


def name(text: str) -> Normalised | Flaw | None:
    """Lower-case, without punctuation. Every script stays as it is.

    [choice] White space goes too, and every punctuation mark of Unicode: `O’Brien` and
    `O'Brien` are one name.

    >>> name("O’Brien")
    'obrien'
    >>> name("--")
    <Flaw.NAME_NOTHING_LEFT: 'name.nothing_left'>
    """
    text = prepared(text)
    if not text:
        return None
    left = kept(text, in_a_name)
    return Normalised(left) if has_letter(left) else Flaw.NAME_NOTHING_LEFT


_ISO_DATE: Final = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})(?:[T ].*)?")
_OLDEST_YEAR: Final = 1900


def birthday(
    text: str,
    format: str | None,  # noqa: A002 - the feed's own word
    today: date,
) -> Normalised | Flaw | None:
    """Return YYYYMMDD of a real day from 1900 to today.

    `format` is a `strptime` pattern. Without one the text is YYYYMMDD or ISO 8601; the
    order of day and month is never guessed.

    >>> birthday("2/16/1997", "%m/%d/%Y", date(2026, 11, 20))
    '19970216'
    >>> birthday("1997-02-31", None, date(2026, 11, 20))
    <Flaw.DB_UNREADABLE: 'db.unreadable'>
    """
    text = prepared(text)
    if not text:
        return None
    try:
        if format is not None:
            day = datetime.strptime(text, format).date()  # noqa: DTZ007 - a day has no zone
        elif parts := _ISO_DATE.fullmatch(text):
            day = date(*map(int, parts.groups()))
        else:
            return Flaw.DB_UNREADABLE
    except ValueError:
        return Flaw.DB_UNREADABLE
    if day.year < _OLDEST_YEAR or day > today:
        return Flaw.DB_OUT_OF_RANGE
    return Normalised(f"{day:%Y%m%d}")


def gender(text: str) -> Normalised | Flaw | None:
    """Return f or m; Meta takes no other.

    >>> gender("Female")
    'f'
    >>> gender("x")
    <Flaw.GE_UNKNOWN: 'ge.unknown'>
    """
    text = prepared(text)
    if not text:
        return None
    known = GENDERS.get(kept(text, in_a_name))
    return Normalised(known) if known else Flaw.GE_UNKNOWN
