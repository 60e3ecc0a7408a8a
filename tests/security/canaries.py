"""Canaries: values that exist nowhere else, and every shape in which one could get out.

A sink is a byte string. `Aviary.found_in` names what it holds, by canary and by shape,
and never quotes it: its answer may stand in a test's report.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Self
from urllib.parse import quote
from uuid import uuid4

__all__ = ["TRANSFORMS", "Aviary", "Canary"]

_MOST_PACKED: Final = 50_000_000
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
# What stands between the digits of a phone number that somebody has laid out anew.
_BETWEEN_DIGITS: Final = re.compile(rb"(?<=\d)[ ()./+|-]{1,3}(?=\d)")


def _packed(text: str, shift: int) -> bytes:
    """Return the part of the text's base64 that does not depend on its neighbours."""
    packed = base64.b64encode(b"x" * shift + text.encode()).decode()
    return packed[4 if shift else 0 : -4].encode()


def _halves(text: str) -> str:
    middle = len(text) // 2
    return text[middle:] + text[:middle]


# In each of them a value of at least twelve characters is still the value.
TRANSFORMS: Final[Mapping[str, Callable[[str], bytes]]] = {
    "itself": lambda text: text.encode(),
    "upper case": lambda text: text.upper().encode(),
    "lower case": lambda text: text.lower().encode(),
    "first twelve": lambda text: text[:12].encode(),
    "last twelve": lambda text: text[-12:].encode(),
    "reversed": lambda text: text[::-1].encode(),
    "halves changed": lambda text: _halves(text).encode(),
    "percent-encoded": lambda text: quote(text, safe="").encode(),
    "percent-encoded twice": lambda text: quote(quote(text, safe=""), safe="").encode(),
    "JSON": lambda text: json.dumps(text)[1:-1].encode(),
    "HTML": lambda text: html.escape(text).encode(),
    "repr of bytes": lambda text: repr(text.encode())[2:-1].encode(),
    "base64": lambda text: _packed(text, 0),
    "base64, one later": lambda text: _packed(text, 1),
    "base64, two later": lambda text: _packed(text, 2),
    "hex": lambda text: text.encode().hex().encode(),
    "UTF-16": lambda text: text.encode("utf-16-le"),
    "UTF-16, big end": lambda text: text.encode("utf-16-be"),
    "SHA-256": lambda text: hashlib.sha256(text.encode()).hexdigest().encode(),
    "SHA-256 in capitals": lambda text: (
        hashlib.sha256(text.encode()).hexdigest().upper().encode()
    ),
    "SHA-256 in base64": lambda text: base64.b64encode(
        hashlib.sha256(text.encode()).digest()
    ),
    "MD5": lambda text: hashlib.md5(text.encode()).hexdigest().encode(),
    "gzip": lambda text: gzip.compress(f"before {text} after".encode()),
    "zlib": lambda text: zlib.compress(f"before {text} after".encode()),
}
_UNPACKED: Final = ("gzip", "zlib")


@dataclass(frozen=True, slots=True)
class Canary:
    """One value that must not get out, with the forms that our own code gives it."""

    name: str
    spellings: tuple[str, ...] = field(repr=False)

    def shapes(self) -> Iterator[tuple[str, bytes]]:
        """Yield every shape of it, by name."""
        for spelling in self.spellings:
            for name, transform in TRANSFORMS.items():
                if name not in _UNPACKED:
                    yield name, transform(spelling)


@dataclass(frozen=True)
class Aviary:
    """All canaries of a run."""

    canaries: tuple[Canary, ...]

    @classmethod
    def hatched(cls, **secrets: str) -> Self:
        """Return canaries that no other run has; `secrets` adds some that are given."""
        mark = uuid4().hex[:10]
        email, name = f"canary.{mark}@nest.example", f"Zwitschi{mark}"
        number = 10_000_000 + int(mark[:6], 16) % 89_999_999
        phone = f"650555{number % 10_000:04}"
        made = {
            "email": (email.title(), email),
            "phone": (f"+1 ({phone[:3]}) {phone[3:6]}-{phone[6:]}", f"1{phone}"),
            "first name": (name, name.lower()),
            "last name": (f"Gelbfeder{mark}", f"gelbfeder{mark}"),
            "address": (f"Vogelsangweg {mark}", f"vogelsangweg{mark}"),
            "city": (f"Vogelheim{mark}", f"vogelheim{mark}"),
            "IP address": (f"203.0.113.{100 + number % 150}",),
            "user agent": (f"Nestscape/4.0 ({mark})",),
            "note": (f"Zaunkönig-{mark}",),
            **{name.replace("_", " "): (value,) for name, value in secrets.items()},
        }
        return cls(tuple(Canary(name, forms) for name, forms in made.items()))

    def __getitem__(self, name: str) -> str:
        """Return a canary as a row has it."""
        return next(each for each in self.canaries if each.name == name).spellings[0]

    @cached_property
    def _shapes(self) -> list[tuple[str, bytes]]:
        return [
            (f"{canary.name} ({shape})", needle)
            for canary in self.canaries
            for shape, needle in canary.shapes()
        ]

    @cached_property
    def _digits(self) -> list[tuple[str, bytes]]:
        return [
            (f"{canary.name} (digits)", digits)
            for canary in self.canaries
            for form in canary.spellings
            if len(digits := re.sub(r"\D", "", form).encode()) >= 10
            and not re.search("[A-Za-z]", form)
        ]

    def found_in(self, *sinks: bytes | str) -> set[str]:
        """Return which canaries stand there and in which shape."""
        found: set[str] = set()
        for sink in sinks:
            data = (
                sink.encode("utf-8", "surrogatepass") if isinstance(sink, str) else sink
            )
            for layer in (data, *_unpacked(data)):
                bare = _BETWEEN_DIGITS.sub(b"", layer)
                found |= {name for name, shape in self._shapes if shape in layer}
                found |= {name for name, digits in self._digits if digits in bare}
        return found

    def names(self) -> Iterable[str]:
        """Return what the canaries are called."""
        return [canary.name for canary in self.canaries]


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Yield what is packed in there, wherever it begins."""
    for magic, window in ((_GZIP_MAGIC, 31), (b"\x78\x9c", 15), (b"\x78\x01", 15)):
        at = data.find(magic)
        while at >= 0:
            with suppress(zlib.error):  # it only looked like one
                yield zlib.decompressobj(window).decompress(data[at:], _MOST_PACKED)
            at = data.find(magic, at + 1)
