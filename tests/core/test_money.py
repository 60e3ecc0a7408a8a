"""Amounts are exact and never guessed; currencies are ISO 4217."""

from __future__ import annotations

import decimal
import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import strategies
from tests.strategies import SETTINGS

from meta_capi.data import records
from meta_capi.money import amount, currency, wire
from meta_capi.normalise import Flaw

CODES = [row["code"] for row in records("currencies")]


class TestAmount:
    """A finite number from 0 on, below a quadrillion, in the feed's notation."""

    @pytest.mark.parametrize(
        ("value", "exact"),
        [
            (Decimal("142.52"), "142.52"), (142, "142"), (0, "0"), (0.1, "0.1"),
            (142.52, "142.52"), (-0.0, "0"), (Decimal("-0"), "0"),
            (Decimal("0E+9999"), "0"),
            (Decimal("1E-9"), "1E-9"), (999_999_999_999_999, "999999999999999"),
            (1e14, "100000000000000"),
        ],
    )  # fmt: skip
    def test_numbers_are_taken_exactly(self, value: object, exact: str) -> None:
        assert amount(value) == Decimal(exact)

    @pytest.mark.parametrize(
        ("text", "mark", "exact"),
        [
            ("12.50", ".", "12.50"), (" 12 ", ".", "12"), ("+12.5", ".", "12.5"),
            (".5", ".", "0.5"), ("-0", ".", "0"), ("0012.50", ".", "12.50"),
            ("1,234.56", ".", "1234.56"), ("1,234,567", ".", "1234567"),
            ("1 234.56", ".", "1234.56"), ("1'234.56", ".", "1234.56"),
            ("12,50", ",", "12.50"), ("1.234,56", ",", "1234.56"), (",5", ",", "0.5"),
            ("1.234.567", ",", "1234567"), ("1\u202f234,56", ",", "1234.56"),
            ("1\u00a0234\u00a0567", ",", "1234567"), ("12’345", ",", "12345"),
        ],
    )  # fmt: skip
    def test_text_is_read_in_the_declared_notation(
        self, text: str, mark: str, exact: str
    ) -> None:
        assert amount(text, mark) == Decimal(exact)  # type: ignore[arg-type]
        assert amount(text.encode(), mark) == Decimal(exact)  # type: ignore[arg-type]

    @pytest.mark.matrix("S4")
    @pytest.mark.parametrize(
        ("text", "mark"),
        [
            # Never 1250, never 1.234 for a thousand.
            ("12,50", "."), ("12.50", ","), ("1,234", "."), ("1.234", ","),
            ("1,23,456.00", "."), ("1234,567.00", "."), ("1,234 567.00", "."),
            ("1.234.56", ","), ("1,234.56", ","), ("1.2.3", "."), ("12.", "."),
            (".", "."),
            ("+", "."), ("--5", "."), ("1e3", "."), ("1E+03", "."), ("€12.50", "."),
            ("12.50 EUR", "."), ("$1,234.56", "."), ("(12.50)", "."),
            ("\u221212.50", "."),
            ("١٢", "."), ("0x10", "."), ("1_000", "."), ("a\x00", "."), ("\ud800", "."),
            ("9" * 65, "."), ("=1+1", "."), ("{{ 7*7 }}", "."),
        ],
    )  # fmt: skip
    def test_what_could_be_another_amount_is_a_flaw(self, text: str, mark: str) -> None:
        assert amount(text, mark) is Flaw.VALUE_UNREADABLE  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [True, False, [1], object(), b"\xff"])
    def test_what_is_no_number_is_a_flaw(self, value: object) -> None:
        assert amount(value) is Flaw.VALUE_UNREADABLE

    @pytest.mark.parametrize(
        "value",
        [math.nan, math.inf, -math.inf, Decimal("NaN"), Decimal("sNaN"),
         Decimal("-Infinity"),
         "NaN", "nan", "inf", "-Infinity"],
    )  # fmt: skip
    def test_no_number_and_infinity_are_not_finite(self, value: object) -> None:
        assert amount(value) is Flaw.VALUE_NOT_FINITE

    @pytest.mark.parametrize(
        "value", [-1, -0.01, Decimal("-1E-9"), "-5", "-1,234.56", -(10**40)]
    )
    def test_below_zero_is_negative(self, value: object) -> None:
        assert amount(value) is Flaw.VALUE_NEGATIVE

    @pytest.mark.parametrize(
        "value",
        [10**15, 1e308, 10**40, 10**100_000, Decimal("1E+1000000"), "1000000000000000",
         "1,000,000,000,000,000.00"],
        ids=range(7),
    )  # fmt: skip
    def test_sixteen_digits_before_the_mark_are_too_large(self, value: object) -> None:
        assert amount(value) is Flaw.VALUE_TOO_LARGE

    @pytest.mark.parametrize("nothing", [None, "", "  ", "NULL", "n/a", b""])
    def test_nothing_is_nothing(self, nothing: object) -> None:
        assert amount(nothing) is None

    @pytest.mark.matrix("S4")
    @SETTINGS
    @given(value=strategies.database_values, mark=st.sampled_from([".", ","]))
    def test_any_value_gives_a_usable_amount_a_flaw_or_nothing(
        self, value: object, mark: str
    ) -> None:
        found = amount(value, mark)  # type: ignore[arg-type]
        if isinstance(found, Decimal):
            assert found.is_finite()
            assert not found.is_signed()
            assert found < 10**15
        else:
            assert found is None or isinstance(found, Flaw)

    @SETTINGS
    @given(cents=st.integers(min_value=0, max_value=10**16))
    def test_every_notation_of_an_amount_gives_the_same_amount(
        self, cents: int
    ) -> None:
        whole, rest = divmod(cents, 100)
        exact = Decimal(cents).scaleb(-2)
        english = f"{whole:,}.{rest:02}"
        german = english.translate(str.maketrans(",.", ".,"))
        assert amount(english, ".") == amount(german, ",") == amount(exact) == exact


class TestCurrency:
    """ISO 4217, list one, in capitals."""

    @pytest.mark.parametrize("code", ["EUR", "eur", " Usd ", b"CHF"])
    def test_a_code_in_any_case_is_known(self, code: object) -> None:
        assert currency(code) in ("EUR", "USD", "CHF")

    @pytest.mark.parametrize(
        "value", ["€", "Euro", "EURO", "XXX", "XAU", "DEM", "HRK", "BTC", 978, True,
        "\ud800", "eur;usd"]
    )  # fmt: skip
    def test_what_is_no_currency_in_use_is_a_flaw(self, value: object) -> None:
        assert currency(value) is Flaw.CURRENCY_UNKNOWN

    @pytest.mark.parametrize("nothing", [None, " ", "null"])
    def test_nothing_is_nothing(self, nothing: object) -> None:
        assert currency(nothing) is None

    def test_the_table_has_each_code_once_with_0_2_or_3_decimals(self) -> None:
        rows = records("currencies")
        assert len(CODES) == len(set(CODES)) == 155
        assert all(len(code) == 3 and code.isupper() for code in CODES)
        assert {row["decimals"] for row in rows} == {"0", "2", "3"}

    @SETTINGS
    @given(value=strategies.database_values)
    def test_any_value_gives_a_known_code_a_flaw_or_nothing(
        self, value: object
    ) -> None:
        assert currency(value) in (None, Flaw.CURRENCY_UNKNOWN, *CODES)


class TestWire:
    """A JSON number with the currency's decimals at most, rounded half-even."""

    @pytest.mark.parametrize(
        ("exact", "code", "text"),
        [
            ("142.52", "USD", "142.52"), ("10.00", "USD", "10"), ("0.50", "EUR", "0.5"),
            ("0", "EUR", "0"), ("0E-9", "EUR", "0"), ("1E+3", "EUR", "1000"),
            ("100", "JPY", "100"), ("1250.5", "JPY", "1250"), ("1251.5", "JPY", "1252"),
            ("0.125", "USD", "0.12"), ("0.135", "USD", "0.14"),
            ("0.1255", "BHD", "0.126"),
            ("0.1235", "KWD", "0.124"), ("1E-30", "USD", "0"),
            ("999999999999999.999", "USD", "1000000000000000"),
        ],
    )  # fmt: skip
    def test_the_number_has_no_exponent_and_no_idle_zero(
        self, exact: str, code: str, text: str
    ) -> None:
        assert wire(Decimal(exact), code) == text

    @SETTINGS
    @given(value=strategies.amounts, code=st.sampled_from(CODES))
    def test_every_amount_becomes_a_json_number_within_half_a_unit(
        self, value: float | Decimal, code: str
    ) -> None:
        exact = amount(value)
        assert isinstance(exact, Decimal)
        text = wire(exact, code)
        sent = json.loads(text, parse_int=Decimal, parse_float=Decimal)
        assert "e" not in text.lower()
        assert not text.startswith("-")
        assert abs(sent - exact) <= Decimal("0.5")
        assert wire(sent, code) == text

    def test_the_callers_decimal_context_changes_nothing(self) -> None:
        with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_UP)):
            assert wire(Decimal("123456.785"), "USD") == "123456.78"
            assert amount("123456.785") == Decimal("123456.785")
