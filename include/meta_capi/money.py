"""Amounts of money: exact in, exact out; currencies by ISO 4217.

No amount is computed as a float, and none is guessed: text that could mean two amounts
is a flaw, and so is text with a currency sign, which could belie the currency column.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final, Literal

from meta_capi.data import records
from meta_capi.normalise import Flaw, text_of

__all__ = ["WITH_CENTS", "amount", "currency", "wire"]

DecimalMark = Literal[".", ","]

# [choice] No conversion is worth a quadrillion, and 15 digits stay exact for a reader
# that keeps JSON numbers as floats.
_MOST_DIGITS: Final = 15
_TOO_LARGE: Final = 10**_MOST_DIGITS
_LONGEST_TEXT: Final = 64
# Our own context: the caller's may round to six digits.
_EXACT: Final = Context(prec=64, rounding=ROUND_HALF_EVEN)

_NOT_FINITE: Final = re.compile(r"[+-]?(?:s?nan|inf|infinity)", re.IGNORECASE)
_DIGITS: Final = re.compile(r"[0-9]*")
# 1.234.567, 1'234, 1 234: threes behind one and the same sign (the spaces are plain,
# no-break, thin, and narrow no-break).
_GROUPED: Final = re.compile(
    r"[0-9]{1,3}(?:([.,'’ \u00a0\u2009\u202f])[0-9]{3})(?:\1[0-9]{3})*"
)

_DECIMALS: Final = {row["code"]: int(row["decimals"]) for row in records("currencies")}
WITH_CENTS: Final = frozenset(code for code, number in _DECIMALS.items() if number >= 2)
"""The currencies of two decimals or more."""


def amount(value: object, decimal_mark: DecimalMark = ".") -> Decimal | Flaw | None:
    """Return the exact amount that a database gave, or None for nothing.

    `decimal_mark` is how text writes decimals. The other mark may group thousands where
    it cannot be meant as a decimal mark: beside the declared one, or more than once.
    `1,234` with the mark `.` is a flaw, as is `12,50`.

    >>> amount("1.234,56", ",")
    Decimal('1234.56')
    >>> amount("12,50", ".")
    <Flaw.VALUE_UNREADABLE: 'value.unreadable'>
    """
    match value:
        case bool():
            return Flaw.VALUE_UNREADABLE
        case int():
            # Compared before it is converted: 10^1,000,000 takes seconds to write.
            if abs(value) >= _TOO_LARGE:
                return Flaw.VALUE_NEGATIVE if value < 0 else Flaw.VALUE_TOO_LARGE
            return _judged(Decimal(value))
        case float():
            # The shortest text that means this float: 0.1 is a tenth.
            finite = math.isfinite(value)
            return (
                _judged(Decimal(float.__repr__(value)))
                if finite
                else Flaw.VALUE_NOT_FINITE
            )
        case Decimal():
            return _judged(value) if value.is_finite() else Flaw.VALUE_NOT_FINITE
        case str() | bytes():
            return _from_text(value, decimal_mark)
        case None:
            return None
    return Flaw.VALUE_UNREADABLE


def _from_text(value: str | bytes, mark: DecimalMark) -> Decimal | Flaw | None:
    if isinstance(value, str) and _NOT_FINITE.fullmatch(value.strip()):
        return Flaw.VALUE_NOT_FINITE
    text = text_of(value)
    if text is None:
        return None
    if isinstance(text, Flaw) or len(text) > _LONGEST_TEXT:
        return Flaw.VALUE_UNREADABLE
    number = _read(text.strip(), mark)
    return Flaw.VALUE_UNREADABLE if number is None else _judged(number)


def _read(text: str, mark: DecimalMark) -> Decimal | None:
    sign = text[:1] if text[:1] in ("+", "-") else ""
    whole, point, fraction = text.removeprefix(sign).partition(mark)
    if grouped := _GROUPED.fullmatch(whole):
        separator = grouped[1]
        if separator in ".," and not point and whole.count(separator) == 1:
            return None  # 1,234 may be a thousand or about one
        whole = whole.replace(separator, "")
    if not (_DIGITS.fullmatch(whole) and _DIGITS.fullmatch(fraction)):
        return None
    if not fraction and (point or not whole):
        return None
    return Decimal(f"{sign}{whole or 0}.{fraction or 0}")


def _judged(number: Decimal) -> Decimal | Flaw:
    if not number:
        return Decimal(0)  # -0 and 0E+1000000 as well
    if number.is_signed():
        return Flaw.VALUE_NEGATIVE
    # adjusted() is the power of ten of the first digit.
    return Flaw.VALUE_TOO_LARGE if number.adjusted() >= _MOST_DIGITS else number


def currency(value: object) -> str | Flaw | None:
    """Return the ISO 4217 code in capitals, or None for nothing.

    >>> currency("usd")
    'USD'
    >>> currency("$")
    <Flaw.CURRENCY_UNKNOWN: 'currency.unknown'>
    """
    text = text_of(value)
    if text is None:
        return None
    code = text.strip().upper() if isinstance(text, str) else ""
    return code if code in _DECIMALS else Flaw.CURRENCY_UNKNOWN


def wire(amount: Decimal, currency: str) -> str:
    """Return an amount as a JSON number, rounded half-even to the currency's decimals.

    Takes what `amount` and `currency` gave.

    >>> wire(Decimal("142.520"), "USD"), wire(Decimal("1E+1"), "USD")
    ('142.52', '10')
    >>> wire(Decimal("10.5"), "JPY")
    '10'
    """
    step = Decimal(1).scaleb(-_DECIMALS[currency])
    text = f"{amount.quantize(step, context=_EXACT):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
