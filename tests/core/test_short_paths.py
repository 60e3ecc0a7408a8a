"""A short path says what its rule says, or nothing.

The values lie on both sides of each path's border: most differ from a plain value by a
sign or two.
"""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests import strategies
from tests.oracle import NAMESPACE
from tests.strategies import SETTINGS
from tests.vectors import TODAY

from meta_capi import match_keys, moments, money, names, plain
from meta_capi.contents import read_contents
from meta_capi.match_keys import Context, digested, fragment
from meta_capi.normalise import phones
from meta_capi.rows import Memory


class Text(str):
    """A text of a driver's own kind."""


# Line ends that only some readers know, white space, what looks like ASCII and is not,
# letters whose lower case depends on the next one or is ASCII or two characters, and
# what no JSON or UTF-8 has.
_SIGNS = [
    "\n", "\r\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\0", " ", "\t", "\u00a0", "\u200b",
    "\ufeff", "\ud800", "０", "５", "٣", "²", "Σ", "ς", "İ", "\u212a", "ß", "é", "e\u0301",
    "+", "-", "--", "_", "(", ")", "(0)", "( 0 )", "/", ".", ",", ";", "|", "@", '"', "\\",
    "0", "00", "a", "e+15", ".0", "NULL", "nan",
]  # fmt: skip
_WORDS = [
    "", "NaN", "null", "None", "ab" * 16, "ab" * 32, "AB" * 32 + ".AQ", "1" * 32, "1" * 64,
    "9" * 2_001, " " * 2_000 + "1", "1e5", "-0", "1.2e+15",
]  # fmt: skip
_NO_TEXTS: list[Any] = [
    None, 0, 1, True, False, 1.0, -0.0, 0.0, float("nan"), float("inf"), 1e16, 1e-5,
    Decimal("NaN"), Decimal("-0"), Decimal("0E-7"), Decimal("1E+2"), Decimal("1E+9999"),
    Decimal("1.10"), 10**400, b"7", b"jane@shop.example", object(), date(1899, 12, 31),
    date(1900, 1, 1), TODAY, TODAY + timedelta(days=1), date.max,
    datetime(1990, 1, 1), datetime(1990, 1, 1, tzinfo=UTC), [], {},  # noqa: DTZ001
]  # fmt: skip


@st.composite
def bordering(draw: st.DrawFn, plain_texts: st.SearchStrategy[str]) -> Any:
    """A plain text, one with a sign too many, or something else altogether."""
    text = draw(plain_texts)
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.sampled_from([*_NO_TEXTS, *_WORDS]))
    if kind == 1:
        return Text(text)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        place = draw(st.integers(0, len(text)))
        end = draw(st.sampled_from([place, place, place + 1]))
        text = text[:place] + draw(st.sampled_from(_SIGNS)) + text[end:]
    return text


def columns(plain_texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[Any]]:
    return st.lists(bordering(plain_texts), max_size=6)


_ADDRESSES = st.from_regex(
    r"[A-Za-z0-9._%+-]{1,9}@([A-Za-z0-9-]{1,9}\.){1,2}[a-zA-Z]{1,5}", fullmatch=True
)
_IDS = st.from_regex(r"[A-Za-z_.:|%#-]{0,5}[0-9A-Za-z_.:-]{1,60}", fullmatch=True)
_AMOUNTS = st.from_regex(r"-?[0-9]{1,16}(\.[0-9]{0,4})?", fullmatch=True)
_ITEM = st.from_regex(
    r'\{"id": ?"[A-Za-z0-9_./ -]{1,4}", ?"quantity": ?[0-9]{1,2}'
    r'(, ?"item_price": ?[0-9]{1,11}(\.[0-9]{0,5})?)?\}',
    fullmatch=True,
)
_ITEMS = st.lists(_ITEM, max_size=3).map(lambda items: f"[{', '.join(items)}]")


def wire(key: str, value: object, country: str | None = None) -> str | None:
    """What the rule sends for one value, without a feed's default."""
    values = match_keys.read(key, value, Context(today=TODAY, country=country))
    return f",{fragment(key, values)}" if isinstance(values, tuple) else None


def same(
    key: str, column: list[Any], forms: list[str], country: str | None = None
) -> None:
    assert len(forms) == len(column)
    for value, member in zip(column, digested(key, forms), strict=True):
        assert member in ("", wire(key, value, country))


class TestAShortPathSaysWhatItsRuleSaysOrNothing:
    @SETTINGS
    @given(column=columns(_ADDRESSES))
    @example(column=["jane@shop.example\n", "Jane@Shop.Example", "\u212a@shop.example"])
    def test_of_addresses(self, column: list[Any]) -> None:
        same("em", column, plain.addresses(column))

    @SETTINGS
    @given(column=columns(_IDS))
    def test_of_external_ids(self, column: list[Any]) -> None:
        same("external_id", column, [form.lower() for form in plain.ids(column)])

    @SETTINGS
    @given(column=columns(_IDS))
    def test_of_source_keys(self, column: list[Any]) -> None:
        assert names.keys_of([column]) == [names.key_of([value]) for value in column]

    @SETTINGS
    @given(numbers=st.lists(strategies.phone_numbers(), min_size=1), data=st.data())
    @example(
        numbers=[("+44 (0)20 7946 0958", None), ("0151 23456789", "DE")], data=None
    )
    def test_of_telephone_numbers(
        self, numbers: list[tuple[str, str | None]], data: st.DataObject | None
    ) -> None:
        regions = [region for _, region in numbers]
        column = [
            data.draw(bordering(st.just(text))) if data else text for text, _ in numbers
        ]
        forms = plain.phone_numbers(column, regions)
        for value, region, form in zip(column, regions, forms, strict=True):
            same("ph", [value], [form], region and region.lower())
            assert form in ("", type(value) is str and phones.by_library(value, region))

    @SETTINGS
    @given(value=st.one_of(st.dates(), st.sampled_from(_NO_TEXTS)))
    def test_of_birthdays(self, value: object) -> None:
        same("db", [value], [plain.birthday(value, TODAY)])

    @SETTINGS
    @given(
        column=st.lists(
            st.one_of(
                _AMOUNTS.map(Decimal), _AMOUNTS.map(float), st.decimals(), st.floats(),
                st.sampled_from(_NO_TEXTS),
            ),
            max_size=6,
        ),
        code=st.sampled_from(sorted(money.WITH_CENTS)),
    )  # fmt: skip
    def test_of_amounts(self, column: list[Any], code: str) -> None:
        texts = plain.amounts(column)
        assert len(texts) == len(column)
        for value, text in zip(column, texts, strict=True):
            amount = money.amount(value)
            exact = isinstance(amount, Decimal) and money.wire(amount, code)
            assert text in ("", exact)

    @SETTINGS
    @given(column=columns(_ITEMS))
    def test_of_contents(self, column: list[Any]) -> None:
        texts = plain.contents(column)
        assert len(texts) == len(column)
        for value, text in zip(column, texts, strict=True):
            assert not text or (text, None) == read_contents(value)

    @SETTINGS
    @given(
        column=st.lists(
            st.one_of(
                st.datetimes(), st.dates(), st.sampled_from(_NO_TEXTS),
                st.datetimes(
                    timezones=st.one_of(
                        st.just(UTC), st.timezones(),
                        st.integers(-1439, 1439).map(
                            lambda minutes: timezone(timedelta(minutes=minutes))
                        ),
                    )
                ),
            )
        )
    )  # fmt: skip
    def test_of_moments(self, column: list[Any]) -> None:
        rule: dict[str, Any] = {
            "format": "timestamp",
            "zone": ZoneInfo("Europe/Zurich"),
        }
        assert moments.each_epoch_seconds(column, **rule) == [
            moments.epoch_seconds(value, **rule) for value in column
        ]

    @SETTINGS
    @given(column=st.lists(st.sampled_from([*_NO_TEXTS, *_WORDS, Text("1"), "1"])))
    def test_of_what_is_remembered(self, column: list[Any]) -> None:
        memory = Memory(repr)
        for _ in range(2):
            assert memory.of(column) == list(map(repr, column))


@pytest.mark.parametrize(
    ("form", "plain_value"),
    [
        (plain.addresses, "Jane.Doe+x@shop.example.co.uk"), (plain.ids, "S-000001"),
        (plain.amounts, Decimal("227.360")), (plain.amounts, 12.5),
        (plain.contents, '[{"id": "SKU-1", "quantity": 2, "item_price": 10.00}]'),
        (lambda column: plain.phone_numbers(column, ["GB"]), "07700 900233"),
        (lambda column: plain.phone_numbers(column, ["FR"]), "+33 (0)1 99 00 7214"),
        (lambda column: plain.phone_numbers(column, ["CA"]), "(604) 555-0105"),
    ],
)  # fmt: skip
def test_ordinary_values_take_the_short_path(form: Any, plain_value: Any) -> None:
    assert form([plain_value]) != [""]


@SETTINGS
@given(keys=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=5))
def test_ids_made_together_are_the_uuids_of_their_names(keys: list[str]) -> None:
    kinds = (["Purchase", "Größe"] * 5)[: len(keys)]
    assert names.event_ids("1", kinds, keys) == [
        str(uuid.uuid5(NAMESPACE, f"1\n{kind}\n{key}"))
        for kind, key in zip(kinds, keys, strict=True)
    ]


def test_a_memory_stays_small_and_keeps_no_long_text() -> None:
    memory = Memory(len)
    assert memory.of(["x" * 65]) == [65]
    assert not memory
    texts = list(map(str, range(60_000)))
    assert memory.of(texts) == list(map(len, texts))
    assert len(memory) <= 50_000
    assert memory.of(texts) == list(map(len, texts))
