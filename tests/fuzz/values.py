"""Values for every kind of column: sound ones, hostile ones, ones that can be traced.

A sound match key is dressed up from its normal form, so that its digest is known before
the builder sees it. A traced value carries a token that must be found nowhere.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from random import Random
from typing import Any, Final
from zoneinfo import ZoneInfo

NOW: Final = 1_795_200_000  # 2026-11-20 18:40 UTC
TODAY: Final = date(2026, 11, 20)
TOKEN_LETTERS: Final = "qxzj"  # of which no word here is made
DAY: Final = 86_400


class _Loud:
    """An object that fails whoever looks at it."""

    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")


class _LoudInt(int):
    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__


class _LoudFloat(float):
    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__


class _LoudText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__


class _Word(StrEnum):
    YES = "yes"


class _Number(IntEnum):
    SEVEN = 7


class _Plain(Enum):
    ONE = 1


INJECTIONS: Final = (
    "'); drop table shop.sales; --", '" or ""="', "1; select pg_sleep(9)", "{{ 7*7 }}",
    "{% for x in range(9**9) %}", "${jndi:ldap://127.0.0.1/a}", "%s %n %(x)s", "%",
    "=cmd()|' /C calc'!A0", "+1+1", "@SUM(1)", "<script>alert(1)</script>",
    "\x1b[2J\x1b[31mred", "fine\n2026-11-20 ERROR forged", "a\r\nb", "\\u0000", "\\N",
    "$(touch x)", "`id`", "../../etc/passwd", "file:///etc/passwd", "\x85\u2028\u2029",
)  # fmt: skip
SCRIPTS: Final = (
    "محمد", "דוד", "สมชาย", "王小明", "山田", "김철수", "Дмитрий", "Ελένη", "अमित", "தமிழ்",
    "İstanbul", "ırmak", "Straße", "STRAẞE", "ﬁﬂ", "Zoë", "Åse", "ǅ", "🧑‍🚀🇨🇭", "𝔘𝔫𝔦",
    "e\u0301\u0301", "a" + "\u0301" * 300, "\u202eevil\u202c", "\u2066x\u2069", "\ufeffbom",
    "z\u200bw\u200dj", "\u00adsoft", "각", "각", "ŉ", "ΣΊΣΥΦΟΣ", "\ue000", "\U0010ffff",
    "\u2126", "K", "ﷺ", "१२३", "\x00", "a\0b", "\ud800", "a\udfffb", "\x7f", "\x85",
)  # fmt: skip
_NOTHING: Final = hashlib.sha256(b"").hexdigest()
HASHES: Final = (
    _NOTHING, _NOTHING.upper(), f" {_NOTHING}\n", f"{_NOTHING}.AQ",
    hashlib.md5(b"a@b.example").hexdigest(),
    hashlib.sha1(b"a@b.example").hexdigest(),
    hashlib.sha256(hashlib.sha256(b"a").hexdigest().encode()).hexdigest(),
    "ab" * 32 + ".Ag", "AB" * 32, "ab" * 32 + ".12345678", "ab" * 31, "ag" * 32, "ab" * 64,
)  # fmt: skip
NUMBERS: Final = (
    0, -1, 1, 7, -0.0, 0.1, 1e-9, 1e308, -1e308, float("nan"), float("inf"), float("-inf"),
    2**53, 2**53 + 1, 2**63, 2**64, -(2**63), 10**15, 10**15 - 1, 10**40, 10**400, 10**5_000,
    1e15, 1e17, 0.30000000000000004, 5e-324, True, False, Decimal("NaN"), Decimal("sNaN"),
    Decimal("-0"), Decimal("Infinity"), Decimal("1E+40"), Decimal("1E-400"), Decimal("0E+9"),
    Decimal("1E+999999"), Decimal("12.345"), Decimal("999999999999999.999"),
    "12,50", "1.234,56", "1,234.56", "1'234.50", "1 234,5", "1,234", "12.", ".5", "--1",
    "1e5", "1E+15", "0007", "٣٤", "１２", "$5", "5 €", "NaN", "-Infinity", "0x1f", "1_000",
)  # fmt: skip
_UNZONED: Final = timezone(timedelta(hours=23, minutes=59))
TIMES: Final[tuple[object, ...]] = (
    datetime.min, datetime.max,  # noqa: DTZ901  # without a zone, on purpose
    datetime.min.replace(tzinfo=UTC), date.min, date.max,
    datetime.max.replace(tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime(2026, 10, 25, 2, 30, fold=1), datetime(2026, 3, 29, 2, 30),  # noqa: DTZ001
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Zurich")),
    datetime(1883, 11, 18, 12, tzinfo=ZoneInfo("America/New_York")), date(2024, 2, 29),
    datetime(2026, 11, 20, 12, tzinfo=_UNZONED), time(12), time(0, tzinfo=UTC),
    timedelta(days=1), timedelta.max, timedelta.min, "2026-02-29", "0000-00-00",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-20T24:00:00Z",
    "2026-11-20T12:00:00+99:99", "20.11.2026 12:00", "31.02.2026 12:00", "infinity",
    "-infinity", "now", "2026-W47-5", "1712103021230", "2026-11-20 12:00:00.123456789",
    NOW + 59, NOW + 61, NOW * 1_000, NOW * 1_000_000, -1, 10**11, 10**11 + 1, 10**14,
    str(NOW), f"{NOW}.999", Decimal(NOW), float(NOW), "20261120",
)  # fmt: skip
BYTES: Final[tuple[object, ...]] = (
    b"", b"\xff\xfe", b"\xc3\x28", b"\x00", b"plain", b"\xef\xbb\xbfbom", bytearray(b"x"),
    memoryview(b"seen"), memoryview(bytes(16)).cast("H"), b'[{"id":1,"quantity":1}]',
    "caf\xe9".encode("latin-1"), "[]".encode("utf-16"),
)  # fmt: skip
OBJECTS: Final[tuple[object, ...]] = (
    None, [], {}, [None], {"a": {"b": [1]}}, (), {1}, frozenset(), range(3), object, ...,
    _Loud(), _LoudInt(5), _LoudFloat(5.5), _LoudText("loud"), _Word.YES, _Number.SEVEN,
    _Plain.ONE, uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), 1j, NotImplemented,
    lambda: None, iter(()), Exception("row"), [[[[]]]], {"\ud800": "\0"},
)  # fmt: skip
EMPTY: Final = (
    None, "", " ", "\t\n", "\u3000", "NULL", "null", "N/A", "#N/A", "NaT", "None", "\\N", "-",
    "\u200b", "''", "undefined",
)  # fmt: skip
ITEMS: Final[tuple[object, ...]] = (
    "[]", "null", "", None, "x", "{}", "[1]", "[[]]", '"text"', "[" * 50_000, "{" * 9,
    '[{"id":""}]', '[{"id":"a"}]', '[{"id":1.5,"quantity":1}]', '[{"id":"a","quantity":0}]',
    '[{"id":"a","quantity":-1}]', '[{"id":"a","quantity":NaN}]', "[NaN]", "[1e999]",
    '[{"id":"a","quantity":1e999}]', '[{"id":"a","quantity":1,"item_price":"12,50"}]',
    '[{"id":"a","quantity":1,"item_price":-5}]', '[{"id":"a","quantity":1,"item_price":[]}]',
    '[{"id":"a","quantity":1,"item_price":true}]', '[{"id":"a","quantity":1,"title":{"x":1}}]',
    '[{"id":"a","quantity":1,"delivery_category":"drone"}]', '[{"id":" ","quantity":1}]',
    '[{"id":"a","quantity":1,"title":"\\ud800"}]', '[{"id":"a","quantity":1,"title":"\\u0000"}]',
    '[{"id":"a","id":"b","quantity":1}]', '[{"id":"a","quantity":1}]\0', "\ufeff[]",
    '[{"id":"a","quantity":1' + "0" * 400 + "}]", '[{"id":"a","quantity":1' + "0" * 5_000 + "}]",
    '[{"id":1' + "0" * 200 + ',"quantity":1}]', '[{"id":"a","quantity":1,"category":["b"]}]',
    [{"id": "a", "quantity": Decimal("sNaN")}], [{"id": _Loud(), "quantity": 1}],
    [{"id": "a", "quantity": 1, "brand": _Loud()}], [{"id": "a", "quantity": _LoudInt(1)}],
    [{"id": "a", "quantity": 1, "item_price": Decimal("1E+500")}], [{1: 2}],
    [{"id": "a", "quantity": Decimal("Infinity")}], [{"id": "\ud800", "quantity": 1}],
    [{"id": "a", "quantity": 1, "title": "\0"}], [{"id": "a", "quantity": 1, "title": b"x"}],
    [{"id": "a", "quantity": 1, "title": "x" * 70_000}], [{"id": 10**127, "quantity": 1}],
    [{"id": "a", "quantity": 1, "item_price": float("nan")}], [{"id": True, "quantity": 1}],
)  # fmt: skip
PHONES: Final = (
    "+1 (650) 555-1212", "(650)555-1212", "001 650 555 1212", "+41 79 123 45 67",
    "079 123 45 67", "+44 (0)20 7946 0958", "٠٧٩١٢٣٤٥٦٧", "＋４１７９１２３４５６７",
    "+41791234567 ext. 12", "+41 79 123 45 67 x9", "1-800-FLOWERS", "16505551212.0",
    "1.6505551212E+10", "+" * 40, "0" * 40, "9" * 21, "911", "+999 1234567", "tel:+1650",
    "+1 650 555 1212; +41 79 123 45 67", "(((((((", "+0", "00", "١", "12345678901234567890",
)  # fmt: skip
ADDRESSES: Final = (
    "Jane.Doe@Shop.Example", " jane@shop.example ", "a@b.example|c", "jane@shop.example;x@y.z",
    "not an address@", "@", "a@b", "a@@b.example", "jane@shop..example", "müller@größe.example",
    "<jane@shop.example>", "​jane@shop.example", "jane%40shop.example", "ord-1@2",
)  # fmt: skip
_POOLS: Final = (
    INJECTIONS, SCRIPTS, HASHES, NUMBERS, TIMES, BYTES, OBJECTS, EMPTY, ITEMS, PHONES,
    ADDRESSES,
)  # fmt: skip
_AIMED: Final[Mapping[str, tuple[tuple[object, ...], ...]]] = {
    "key": (ADDRESSES, INJECTIONS, SCRIPTS), "ident": (ADDRESSES, INJECTIONS, SCRIPTS),
    "time": (TIMES,), "created": (TIMES,), "amount": (NUMBERS,), "contents": (ITEMS,),
    "user:em": (ADDRESSES, HASHES), "user:ph": (PHONES,), "user:db": (TIMES,),
    "user:fn": (SCRIPTS, HASHES), "user:external_id": (HASHES, NUMBERS),
    "user:lead_id": (NUMBERS,), "user:country": (SCRIPTS, EMPTY),
}  # fmt: skip

_NAMES: Final = (
    "mary", "obrien", "valéry", "jürg", "정", "дмитрий", "王小明", "ελένη", "zoë", "müller",
    "अमित", "สมชาย", "davis", "şahin", "nguyễn",
)  # fmt: skip
_DIALLED: Final = (
    "16505551212",
    "41791234567",
    "442079460958",
    "4930901820",
    "81312345678",
)
_GENDERS: Final = (
    ("f", "f"),
    ("Female", "f"),
    (" M ", "m"),
    ("male", "m"),
    ("FEMALE", "f"),
)
_COUNTRIES: Final = (
    ("CH", "ch"), ("switzerland", "ch"), ("CHE", "ch"), ("us", "us"), ("DEU", "de"),
    ("Germany", "de"), (" gb ", "gb"),
)  # fmt: skip
_STATES: Final = (
    ("Bavaria", "bavaria"),
    ("Île-de-France", "îledefrance"),
    ("ZÜRICH", "zürich"),
)
_CITIES: Final = (
    ("St. Gallen", "stgallen"),
    ("Genève", "genève"),
    (" NEW york", "newyork"),
)


def digest(text: str) -> str:
    """Return the SHA-256 digest, by the standard library alone."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Cell:
    """A value for a column."""

    value: Any
    wire: str | None = None
    """What must go out for it as a match key, if that is known beforehand."""
    token: str | None = None
    """A trace in it that must be found nowhere."""


class Values:
    """Draws values; the same source of chance draws the same."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self._keys = 0
        self._person: dict[str, Callable[[str | None], Cell]] = {
            "em": self._email, "ph": self._phone, "fn": self._name, "ln": self._name,
            "db": self._birthday, "ge": lambda _: self._known(_GENDERS),
            "ct": lambda _: self._known(_CITIES), "st": lambda _: self._known(_STATES),
            "zp": self._postcode, "country": lambda _: self._known(_COUNTRIES),
            "external_id": self._external_id,
        }  # fmt: skip

    def hostile(self, role: str) -> Any:
        """Return a hostile value: any, or as often one that aims at the column's role."""
        aimed = _AIMED.get(role, _POOLS) if self.chance.random() < 0.5 else _POOLS
        return self.chance.choice(self.chance.choice(aimed))

    def huge(self) -> Any:
        """Return a value of a million to ten million characters."""
        size = self.chance.choice((10**6, 10**7))
        make: Callable[[int], Any] = self.chance.choice((
            lambda n: "x" * n, lambda n: "é" * n, lambda n: "9" * n, lambda n: b"\xff" * n,
            lambda n: "a@" * (n // 2), lambda n: " " * n, lambda n: "\u0301" * n,
            lambda n: json.dumps([{"id": "a", "quantity": 1, "title": "x" * n}]),
            lambda n: "[" * n, lambda n: "+1" * (n // 2), lambda n: ";" * n,
        ))  # fmt: skip
        return make(size)

    def token(self) -> str:
        """Return letters that stand nowhere else."""
        return "".join(self.chance.choices(TOKEN_LETTERS, k=14))

    def traced(self) -> Cell:
        """Return a value of a person with a token in it."""
        token = self.token()
        shape = self.chance.choice((
            "{}", "{}@pii.example", "+4179{}", " {}\0", "{}\ud800", "{},{}", "Dr. {}",
            "{{{{ {} }}}}", "<b>{}</b>", "\u202e{}", "{}\x1b[0m", "=cmd|{}", "{}\n{}",
        ))  # fmt: skip
        text = shape.format(token, token)
        wrap = self.chance.random()
        if wrap < 0.05:
            return Cell([text], token=token)
        if wrap < 0.1:
            return Cell({text: text}, token=token)
        if wrap < 0.15:
            return Cell(text.encode("utf-8", "surrogatepass"), token=token)
        return Cell(text.upper() if wrap < 0.3 else text, token=token)

    # --- sound values -----------------------------------------------------------------

    def key(self) -> Any:
        """Return a key that no other row of the slice has."""
        self._keys += 1
        number = self._keys * 1_000 + self.chance.randrange(1_000)
        return self.chance.choice(
            (
                f"o-{number}",
                number,
                Decimal(number),
                uuid.UUID(int=number),
                f" k{number} ",
            )
        )

    def cursor(self) -> Any:
        """Return when a row became known."""
        at = datetime.fromtimestamp(NOW - self.chance.randrange(2 * DAY), UTC)
        return self.chance.choice((at, at.replace(tzinfo=None), at.date()))

    def moment(self, format_: str, zone: str | None, oldest: int) -> Any:
        """Return a moment of the window in the feed's format."""
        at = NOW - self.chance.randrange(60, oldest)
        if format_ == "epoch_seconds":
            return self.chance.choice((at, str(at), Decimal(at), at + 0.25))
        if format_ == "epoch_milliseconds":
            return self.chance.choice((at * 1_000, f"{at}999"))
        aware = datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(zone or "UTC"))
        if format_ != "timestamp":
            return aware.strftime(format_)
        naive = aware.replace(tzinfo=None)
        choices: list[Any] = [aware, aware.isoformat()]
        if zone:
            choices += [naive, naive.isoformat(" ")]
        return self.chance.choice(choices)

    def amount(self, mark: str) -> Any:
        """Return an amount of money in the feed's notation."""
        cents = self.chance.randrange(1, 10**7)
        text = f"{cents // 100}{mark}{cents % 100:02}"
        return self.chance.choice(
            (text, Decimal(cents) / 100, cents // 100, cents / 100)
        )

    def currency(self) -> str:
        """Return a currency's code."""
        return self.chance.choice(("USD", "eur", " CHF ", "JPY", "KWD"))

    def text(self) -> Any:
        """Return an ordinary text or number."""
        number = self.chance.randrange(10**6)
        return self.chance.choice(
            (f"text {number}", number, f' "{number}" é\n', f"{number:09}")
        )

    def contents(self) -> Any:
        """Return line items."""
        items = [
            {"id": f"sku-{n}", "quantity": n + 1, "item_price": 9.5, "colour": "red"}
            for n in range(self.chance.randrange(1, 4))
        ]
        return self.chance.choice(
            (items, json.dumps(items), json.dumps(items).encode())
        )

    def person(self, key: str, detail: str | None) -> Cell:
        """Return a value for a match key, and what must go out for it."""
        if key in self._person:
            if key != "external_id" and self.chance.random() < 0.06:
                ready = digest(self.token())
                return Cell(
                    self.chance.choice((ready, ready.upper(), f" {ready} ")), ready
                )
            return self._person[key](detail)
        number = self.chance.randrange(10**12, 10**13)
        return Cell({
            "client_ip_address": "168.212.226.204", "client_user_agent": "Mozilla/5.0 (X11)",
            "fbc": f"fb.1.{number}.AbCd", "fbp": f"fb.1.{number}.1116446470",
            "subscription_id": f"sub_{number}", "fb_login_id": number, "lead_id": number * 1_000,
            "madid": str(uuid.UUID(int=number)),
        }[key])  # fmt: skip

    def _known(self, pairs: tuple[tuple[str, str], ...]) -> Cell:
        value, normal = self.chance.choice(pairs)
        return Cell(value, digest(normal))

    def _email(self, _: str | None) -> Cell:
        normal = f"buyer{self.chance.randrange(10**5)}.x+tag@shop.example"
        dress: Callable[[str], str] = self.chance.choice((
            str, str.upper, str.title, lambda text: f" {text}\t", lambda text: f"\ufeff{text}",
            lambda text: f"{text};", lambda text: text.replace("@", "\u200b@"),
        ))  # fmt: skip
        return Cell(dress(normal), digest(normal))

    def _phone(self, _: str | None) -> Cell:
        normal = self.chance.choice(_DIALLED)
        eastern = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
        wide = str.maketrans("+0123456789", "＋０１２３４５６７８９")
        dress: Callable[[str], str] = self.chance.choice((
            lambda n: f"+{n}", lambda n: f"00{n}", lambda n: f"+{n[:3]} {n[3:6]}-{n[6:]}",
            lambda n: f" +{n} ", lambda n: f"+{n} ext. 12", lambda n: f"+{n}".translate(wide),
            lambda n: f"+{n.translate(eastern)}", lambda n: f"+{n} x9",
        ))  # fmt: skip
        return Cell(dress(normal), digest(normal))

    def _name(self, _: str | None) -> Cell:
        normal = self.chance.choice(_NAMES)
        loud = normal.title()
        shapes = [
            normal,
            f" {normal} ",
            f"{normal[:1]}-{normal[1:]}",
            f"\u202b{normal}",
        ]
        if loud.lower() == normal:
            shapes += [loud, f"{loud}."]
        return Cell(self.chance.choice(shapes), digest(normal))

    def _birthday(self, format_: str | None) -> Cell:
        day = date(1930, 1, 1) + timedelta(days=self.chance.randrange(30_000))
        shapes: list[Any] = [day, day.strftime(format_ or "%Y-%m-%d")]
        if format_ is None:
            shapes += [day.strftime("%Y%m%d"), datetime(day.year, day.month, day.day)]  # noqa: DTZ001
        return Cell(self.chance.choice(shapes), digest(day.strftime("%Y%m%d")))

    def _postcode(self, _: str | None) -> Cell:
        normal = f"{self.chance.randrange(10_000, 99_999)}"
        shapes: tuple[Any, ...] = (normal, int(normal), f"{normal} ", f"{normal}-1234")
        return Cell(self.chance.choice(shapes), digest(normal))

    def _external_id(self, mode: str | None) -> Cell:
        normal = f"user{self.chance.randrange(10**6)}"
        return Cell(normal, normal if mode == "raw" else digest(normal))
