"""Where someone lives: city, state, postcode, country."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from meta_capi.data import PROVINCES, STATES, records
from meta_capi.normalise.flaw import Flaw, Normalised
from meta_capi.normalise.text import has_letter, in_a_place, kept, prepared

__all__ = ["city", "country", "postcode", "state"]


def city(text: str) -> Normalised | Flaw | None:
    """Lower-case, letters only, no spaces.

    [choice] Letters of every script stay (`zürich`); digits and signs go.

    >>> city("St. Louis")
    'stlouis'
    >>> city("123")
    <Flaw.CT_NOTHING_LEFT: 'ct.nothing_left'>
    """
    text = prepared(text)
    if not text:
        return None
    left = kept(text, in_a_place)
    return Normalised(left) if has_letter(left) else Flaw.CT_NOTHING_LEFT


def state(text: str, country: str | None) -> Normalised | Flaw | None:
    """Return the two-letter code in the United States and Canada, else the letters.

    [choice] Names become codes where the country is one of the two or unknown. Nothing
    is cut to two letters: `New South Wales` is not Nebraska.

    >>> state("California", "us")
    'ca'
    >>> state("New South Wales", "au")
    'newsouthwales'
    >>> state("75", "fr")
    <Flaw.ST_NOTHING_LEFT: 'st.nothing_left'>
    """
    text = prepared(text)
    if not text:
        return None
    left = kept(text, in_a_place)
    if not has_letter(left):
        return Flaw.ST_NOTHING_LEFT
    where = country.lower() if country else None
    if where in (None, "us"):
        left = STATES.get(left, left)
    if where in (None, "ca"):
        left = PROVINCES.get(left, left)
    return Normalised(left)


_DASH: Final = re.compile(r"[-\u2010-\u2015\u2212\uff0d]")


def postcode(text: str, country: str | None) -> Normalised | Flaw | None:
    """Lower-case, without spaces; five digits in the United States.

    [choice] Elsewhere cut at the first dash, as all libraries of Meta's do. A `.0` left
    by a float column goes.

    >>> postcode("M1 1AE", "gb")
    'm11ae'
    >>> postcode("2134", "us")
    <Flaw.ZP_TOO_SHORT: 'zp.too_short'>
    """
    text = prepared(text)
    if not text:
        return None
    if text.removesuffix(".0").isdecimal():
        text = text.removesuffix(".0")
    left = kept(_DASH.split(text, maxsplit=1)[0], str.isalnum)
    if country and country.lower() == "us":
        left = left[:5]
        if not (len(left) == 5 and left.isascii() and left.isdecimal()):
            return Flaw.ZP_TOO_SHORT
    return Normalised(left) if len(left) >= 2 else Flaw.ZP_TOO_SHORT


def _country_letters(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.replace("&", " and ").casefold())
    return "".join(filter(str.isalpha, plain))


def _countries() -> dict[str, str]:
    known = {"uk": "gb"}  # [choice] not an ISO code, but what British rows hold
    for row in records("countries"):
        code = row["alpha2"].lower()
        for spelling in (code, row["alpha3"], *row["names"].split("|")):
            known[_country_letters(spelling)] = code
    return known


_COUNTRIES: Final = _countries()


def country(text: str) -> Normalised | Flaw | None:
    """Return the ISO 3166-1 alpha-2 code in lower case.

    [choice] Alpha-3 codes and English names are known as well.

    >>> country("United States")
    'us'
    >>> country("Narnia")
    <Flaw.COUNTRY_UNKNOWN: 'country.unknown'>
    """
    text = prepared(text)
    if not text:
        return None
    known = _COUNTRIES.get(_country_letters(text))
    return Normalised(known) if known else Flaw.COUNTRY_UNKNOWN
