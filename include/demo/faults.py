"""Every way in which rows are dirty, as people report them; each can be looked up.

A fault changes the cells of one row. `reason` is the code of the catalogue that the
row, or one of its match keys, ends with; None where the event goes out complete all the
same.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

__all__ = ["DUPLICATE", "FAULTS", "Cells", "Fault"]

Cells = dict[str, str | None]
"""A row: column to text, the way `copy` takes it."""

DUPLICATE: Final = "duplicate_key"
# Meta's parameter builder appends its version and language, as 8 base64url characters.
_APPENDIX: Final = ".AQYCAQIA"
_PERSONAL: Final = (
    "email", "phone", "first_name", "last_name", "birthday", "gender", "city", "state",
    "postcode", "country", "customer_id", "lead_id",
)  # fmt: skip
_BROAD: Final = ("city", "state", "postcode", "country", "gender")
_LOCAL: Final = "%d.%m.%Y %H:%M"


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to spoil a row."""

    name: str
    change: Callable[[Cells], Cells]
    """Returns the cells that differ."""
    reason: str | None = None
    applies: Callable[[Cells], bool] = lambda cells: True


def _set(**cells: str | None) -> Callable[[Cells], Cells]:
    return lambda _: cells


def _edit(column: str, edit: Callable[[str], str]) -> Callable[[Cells], Cells]:
    return lambda cells: {column: edit(cells[column] or "")}


def _shifted(column: str, days: int) -> Callable[[Cells], Cells]:
    """Move a moment; days are counted from when the row was loaded."""

    def shift(cells: Cells) -> Cells:
        loaded = datetime.fromisoformat(cells[_CURSOR[column]] or "")
        moment = loaded + timedelta(days=days)
        if column == "stage_at":
            return {column: str(int(moment.timestamp()))}
        if column == "called_at":
            return {column: moment.strftime(_LOCAL)}
        return {column: moment.isoformat()}

    return shift


_CURSOR: Final = {
    "purchased_at": "loaded_at",
    "called_at": "loaded_at",
    "stage_at": "updated_at",
}


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().lower().encode()).hexdigest()


def _emptied(*kept: str) -> Callable[[Cells], Cells]:
    return lambda cells: {
        name: None for name in _PERSONAL if name in cells and name not in kept
    }


def _second_address(cells: Cells) -> Cells:
    return {"email": f"{cells['email']};{cells['email']}".replace("@", "2@", 1)}


def _decomposed(cells: Cells) -> Cells:
    return {"last_name": unicodedata.normalize("NFD", "Müller-Lüdenscheidt")}


def _out_of_order(cells: Cells) -> Cells:
    created = datetime.fromisoformat(cells["lead_created_at"] or "")
    return {"stage_at": str(int(created.timestamp()) + 1)}


def _before_lead(cells: Cells) -> Cells:
    created = datetime.fromisoformat(cells["lead_created_at"] or "")
    return {"stage_at": str(int(created.timestamp()) - 3_600)}


def _late_lead(cells: Cells) -> Cells:
    """Let the CRM say three days later that a lead came in."""
    known = datetime.fromisoformat(cells["updated_at"] or "") - timedelta(days=3)
    return {
        "stage_at": str(int(known.timestamp())),
        "lead_created_at": (known - timedelta(minutes=5)).isoformat(),
    }


def _line(cells: Cells) -> str:
    """Return two digits for a fictional number, always the same for the same row."""
    return f"{len(cells['email'] or '') * 7 % 100:02d}"


_ANYONE: Final = (
    Fault("phone_float", lambda cells: {"phone": f"120655501{_line(cells)}.0"}),
    Fault("phone_extension", _edit("phone", "{} ext. 9".format)),
    Fault("phone_words", _set(phone="ask at the desk"), "ph.not_a_number"),
    Fault("email_spaces", _edit("email", "my {}".format), "em.not_an_address"),
    Fault("email_no_domain", _set(email="jane@localhost"), "em.not_an_address"),
    Fault("several_emails", _second_address),
    Fault("name_blank", _set(first_name=" \u00a0\u2003 ")),
    Fault("umlaut_composed", _set(last_name="Müller-Lüdenscheidt")),
    Fault("umlaut_decomposed", _decomposed),
    Fault("name_emoji", _set(first_name="Zoë 🦊🏳️‍🌈")),
    Fault("name_right_to_left", _set(first_name="\u202bمحمد\u202c \u200fעברית")),
    Fault("name_endless", _set(last_name="a" * 5_000), "value.text_unreadable"),
    Fault("hashed", _edit("email", _digest)),
    Fault("hashed_upper_case", _edit("email", lambda text: _digest(text).upper())),
    Fault("hashed_appendix", _edit("email", lambda text: _digest(text) + _APPENDIX)),
    Fault("hashed_md5", _set(email="9e107d9d372bb6826bd81d3542a419d6"), "hash.md5"),
    Fault("hashed_nothing", _set(email=_digest("")), "hash.of_nothing"),
    Fault(DUPLICATE, _set(), "key.duplicate"),
)  # fmt: skip
_ABROAD: Final = (
    Fault(
        "no_country_code",
        lambda cells: {"phone": f"(206) 555-01{_line(cells)}", "country": None},
        "ph.no_country_code",
    ),
)
_CUSTOMERS: Final = (
    Fault("no_consent", _set(marketing_consent="no"), "consent.not_given"),
    Fault("consent_unknown", _set(marketing_consent=None), "consent.not_given"),
    Fault("value_missing", _set(amount=None), "value.missing"),
    Fault("value_negative", _edit("amount", "-{}".format), "value.negative"),
    Fault("value_nan", _set(amount="NaN"), "value.not_finite"),
    Fault("currency_unknown", _set(currency="BTC"), "currency.unknown"),
    Fault("currency_sign", _set(currency="US$"), "currency.unknown"),
)

FAULTS: Final[dict[str, tuple[Fault, ...]]] = {
    "offline_purchases": (
        *_ANYONE,
        *_ABROAD,
        Fault("no_match_key", _emptied(), "match_keys.none"),
        *_CUSTOMERS,
        Fault("only_broad_keys", _emptied(*_BROAD), "match_keys.too_broad"),
        Fault("currency_missing", _set(currency=None), "currency.missing"),
        Fault("time_missing", _set(purchased_at=None), "time.missing"),
        Fault("time_in_future", _shifted("purchased_at", 100), "time.in_future"),
        Fault("time_too_old", _shifted("purchased_at", -100), "window.over"),
        Fault("late", _shifted("purchased_at", -3)),
        Fault("contents_no_list", _set(items='{"sku": 1}'), "contents.unreadable"),
        Fault("contents_no_id", _set(items='[{"quantity": 1}]'), "contents.incomplete"),
    ),
    "phone_orders": (
        *_ANYONE,
        *_CUSTOMERS,
        # The feed's default country is left.
        Fault("no_match_key", _emptied(), "match_keys.too_broad"),
        Fault("only_broad_keys", _emptied(*_BROAD), "match_keys.too_broad"),
        Fault("decimal_comma", _set(amount="1.234,50")),
        Fault("decimal_point", _set(amount="1234.50"), "value.unreadable"),
        Fault("value_words", _set(amount="on request"), "value.unreadable"),
        Fault("time_missing", _set(called_at=None), "time.missing"),
        Fault("naive_time", _set()),
        Fault("time_other_format", _set(called_at="2026-07-01"), "time.unreadable"),
        Fault("milliseconds", _set(called_at="1782900000000"), "time.unreadable"),
        Fault("time_in_future", _shifted("called_at", 100), "time.in_future"),
        Fault("time_too_old", _shifted("called_at", -100), "window.over"),
        Fault("late", _shifted("called_at", -3)),
        Fault("contents_broken", _set(items='[{"id": "SKU'), "contents.unreadable"),
        Fault("birthday_impossible", _set(birthday="31.02.1990"), "db.unreadable"),
    ),
    "lead_stages": (
        *_ANYONE,
        *_ABROAD,
        Fault("no_match_key", _emptied(), "match_keys.none"),
        Fault("only_broad_keys", _emptied("country"), "match_keys.too_broad"),
        Fault("lead_id_exponent", _set(lead_id="1.23457E+15"), "value.damaged"),
        Fault("lead_id_float", _edit("lead_id", "{}.0".format), "lead_id.damaged"),
        Fault("lead_id_short", _edit("lead_id", "{:.9}".format), "lead_id.damaged"),
        Fault("stage_unknown", _set(stage="nurturing"), "stage.unknown"),
        Fault("stage_ignored", _set(stage="spam"), "stage.ignored"),
        Fault("stage_before_lead", _before_lead, "stage.before_lead"),
        Fault(
            "stages_out_of_order",
            _out_of_order,
            "stage.out_of_order",
            lambda cells: cells["stage"] in ("contacted", "qualified", "opportunity"),
        ),
        Fault("time_missing", _set(stage_at=None), "time.missing"),
        Fault("milliseconds", _edit("stage_at", "{}000".format), "time.not_seconds"),
        Fault("time_in_future", _shifted("stage_at", 100), "time.in_future"),
        Fault("time_too_old", _shifted("stage_at", -100), "window.over"),
        Fault("late", _late_lead, applies=lambda cells: cells["stage"] == "new"),
    ),
}  # fmt: skip
