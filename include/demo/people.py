"""Customers who do not exist: names in their own scripts, numbers that ring nowhere.

A customer is a function of its number, so a million of them need no memory.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

import yaml

__all__ = ["COUNTRIES", "Country", "Person", "person"]


class Person(NamedTuple):
    """A customer, as a shop's warehouse holds one. Everything is text."""

    email: str
    phone: str
    national_phone: str
    first_name: str
    last_name: str
    birthday: str
    """As 1983-12-24."""
    gender: str
    city: str
    state: str
    postcode: str
    country: str
    customer_id: str
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Country:
    """A country: its money, its people's names, and its fictional telephone numbers."""

    code: str
    currency: str
    phones: tuple[tuple[str, str, int], ...]
    """Patterns with the country code and without, and how many numbers they make."""
    places: tuple[tuple[str, str, str], ...]
    """City, state or province, postcode."""
    first_names: tuple[tuple[str, str], ...]
    """Name and gender."""
    last_names: tuple[str, ...]


def _read() -> list[Country]:
    """Read the countries, each as often as it weighs."""
    text = (Path(__file__).parent / "countries.yaml").read_text(encoding="utf-8")
    drawn = []
    for entry in yaml.safe_load(text):
        women, men = entry["women"], entry["men"]
        country = Country(
            code=entry["code"],
            currency=entry["currency"],
            phones=tuple((*pair, _lines(pair[0])) for pair in entry["phones"]),
            places=tuple(tuple(place) for place in entry["places"]),
            first_names=(*((n, "F") for n in women), *((n, "M") for n in men)),
            last_names=tuple(entry["last_names"]),
        )
        drawn += [country] * entry["weight"]
    return drawn


def _lines(pattern: str) -> int:
    digits = int(pattern[pattern.index("%0") + 2])
    return int(10**digits)


_DRAW: Final = _read()
COUNTRIES: Final = tuple(dict.fromkeys(_DRAW))
_DOMAINS: Final = (
    "example.com", "example.org", "example.net", "mail.example", "post.example",
    "Example.COM", "inbox.example",
)  # fmt: skip
_FIRST_BIRTHDAY: Final = date(1941, 1, 1).toordinal()
_BIRTHDAYS: Final = date(2008, 1, 1).toordinal() - _FIRST_BIRTHDAY
_MASK: Final = (1 << 64) - 1


def person(number: int, seed: int) -> Person:
    """Return the customer of a number; another seed has other customers.

    >>> person(1, 7) == person(1, 7)
    True
    >>> person(1, 7) == person(1, 8)
    False
    """
    # The last steps of splitmix64: neighbours in number have nothing in common.
    draw = (number * 0x9E3779B97F4A7C15 + seed * 0xD1342543DE82EF95) & _MASK
    draw = ((draw ^ (draw >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    draw = ((draw ^ (draw >> 27)) * 0x94D049BB133111EB) & _MASK
    draw ^= draw >> 31
    draw, pick = divmod(draw, len(_DRAW))
    country = _DRAW[pick]
    draw, pick = divmod(draw, len(country.first_names))
    first, gender = country.first_names[pick]
    draw, pick = divmod(draw, len(country.last_names))
    last = country.last_names[pick]
    draw, pick = divmod(draw, len(country.places))
    city, state, postcode = country.places[pick]
    draw, pick = divmod(draw, len(country.phones))
    abroad, at_home, lines = country.phones[pick]
    draw, pick = divmod(draw, len(_DOMAINS))
    domain = _DOMAINS[pick]
    draw, day = divmod(draw, _BIRTHDAYS)
    line = draw % lines
    return Person(
        f"{_HANDLES[first]}.{_HANDLES[last]}{number}@{domain}",
        abroad % line,
        at_home % line,
        first,
        last,
        date.fromordinal(_FIRST_BIRTHDAY + day).isoformat(),
        gender,
        city,
        state,
        postcode,
        country.code,
        f"C{number:08d}",
        country.currency,
    )


def _handle(name: str) -> str:
    """Return what of a name goes into an e-mail address; `k` if nothing does."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "".join(filter(str.isalnum, plain)).lower() or "k"


_HANDLES: Final = {
    name: _handle(name)
    for country in COUNTRIES
    for name in (*(first for first, _ in country.first_names), *country.last_names)
}
