"""The columns of match keys become `user_data`, each repeated value read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import partial
from itertools import compress
from operator import not_
from typing import Any, Final

from meta_capi import match_keys, plain
from meta_capi.feed import Feed, MatchKeyPart
from meta_capi.lifecycle import State
from meta_capi.normalise import Flaw, country, text_of
from meta_capi.rows import Kept, Memory, Rows, Verdict

__all__ = ["UserData"]

_BY_COUNTRY: Final = frozenset({"st", "zp"})
# A customer's own: to remember them costs more than to read the few that come again.
_OWN: Final = frozenset({
    "em", "ph", "external_id", "client_ip_address", "client_user_agent", "fbc", "fbp",
    "subscription_id", "fb_login_id", "lead_id", "madid",
})  # fmt: skip


class _Flawed(str):
    """No member, and why."""

    reason: str


class UserData:
    """The match keys of one feed. Keeps what it learnt of repeated values."""

    def __init__(self, feed: Feed, today: date) -> None:
        self._parts: dict[str, MatchKeyPart] = {
            key: feed.user_data[key] for key in match_keys.KEYS if key in feed.user_data
        }
        self._today = today
        country_part = self._parts.get("country")
        self._default_country = country_part.default if country_part else None
        self._countries = Memory(partial(_country_code, default=self._default_country))
        self._readers = {
            key: self._reader(key, part) for key, part in self._parts.items()
        }
        self._memories = {
            key: Memory(self._remembered(key)) for key in self._parts if key not in _OWN
        }
        self._bits = [match_keys.KEYS[key].bit for key in self._parts]
        self._full_mask = sum(self._bits)

    def members(self, rows: Rows) -> tuple[Sequence[str], Kept]:
        """Return user_data's JSON members, with a leading comma, and the rows it kept."""
        codes = self._country_codes(rows)
        columns = [
            self._read_key(key, part, rows, codes) for key, part in self._parts.items()
        ]
        masks = [self._full_mask] * len(rows)
        for row, texts in _gaps(columns):
            masks[row] = sum(compress(self._bits, texts))
            if _Flawed in set(map(type, texts)):
                rows.built.flaws.update(
                    text.reason for text in texts if isinstance(text, _Flawed)
                )
        rows.put(rows.built.masks, masks)
        members = list(map("".join, zip(*columns, strict=True)))
        verdicts = {mask: _verdict(mask) for mask in set(masks)}
        kept = rows.hold([verdicts[mask] for mask in masks])
        return kept.of(members), kept

    def _country_codes(self, rows: Rows) -> list[str | None]:
        """Return each row's country, which phones, states and postcodes are read by."""
        part = self._parts.get("country")
        if part is None or part.column is None:
            return [self._default_country] * len(rows)
        return self._countries.of(rows.column(part.column))

    def _read_key(
        self, key: str, part: MatchKeyPart, rows: Rows, codes: list[str | None]
    ) -> list[str]:
        """Return the JSON member of every row, with a leading comma, or nothing."""
        read = self._readers[key]
        if part.column is None:
            return [read(None, None)] * len(rows)
        column = rows.column(part.column)
        if key in _BY_COUNTRY:
            return self._memories[key].of_pairs(column, codes)
        if key not in _OWN:
            return self._memories[key].of(column)
        normals = _plain_forms(key, part, column, codes)
        if normals is None:
            return list(map(read, column, codes))
        members = match_keys.digested(key, normals)
        for row in compress(range(len(members)), map(not_, members)):
            members[row] = read(column[row], codes[row])
        return members

    def _remembered(self, key: str) -> Callable[[Any], str]:
        """Return the rule that a key's memory asks."""
        read = self._readers[key]
        if key in _BY_COUNTRY:
            return lambda pair: read(*pair)
        if key == "db":
            return self._read_birthday
        return lambda value: read(value, None)

    def _read_birthday(self, value: object) -> str:
        (member,) = match_keys.digested("db", [plain.birthday(value, self._today)])
        return member or self._readers["db"](value, None)

    def _reader(
        self, key: str, part: MatchKeyPart
    ) -> Callable[[object, str | None], str]:
        """Return the function of one value and of its row's country."""

        def read(value: object, code: str | None) -> str:
            if value is None and part.default is None:
                return ""
            context = match_keys.Context(
                country=code.lower() if code else None,
                phone_country=part.default_country,
                birthday_format=part.format,
                external_id_mode=part.mode or "normalised",
                today=self._today,
            )
            values = match_keys.read(key, value, context)
            if values is None and part.default is not None:
                values = match_keys.read(key, part.default, context)
            if isinstance(values, Flaw):
                flawed = _Flawed()
                flawed.reason = values.value
                return flawed
            return f",{match_keys.fragment(key, values)}" if values else ""

        return read


def _plain_forms(
    key: str,
    part: MatchKeyPart,
    column: Sequence[object],
    codes: list[str | None],
) -> list[str] | None:
    """Return the normal forms of plain values; None where a key has no short path."""
    if key == "em":
        return plain.addresses(column)
    if key == "ph":
        default = part.default_country
        return plain.phone_numbers(column, [code or default for code in codes])
    if key == "external_id" and part.mode in (None, "normalised"):
        return [form.lower() for form in plain.ids(column)]
    return None


def _gaps(columns: Sequence[list[str]]) -> Iterable[tuple[int, tuple[str, ...]]]:
    """Return the rows that lack a key, each with its number."""
    are_whole = map(all, zip(*columns, strict=True))
    return compress(enumerate(zip(*columns, strict=True)), map(not_, are_whole))


def _verdict(mask: int) -> Verdict | None:
    if not mask:
        return State.WITHHELD, "match_keys.none"
    if match_keys.too_broad(mask):
        return State.WITHHELD, "match_keys.too_broad"
    return None


def _country_code(raw: object, default: str | None) -> str | None:
    """Return a row's country; the default only where the row names none."""
    text = text_of(raw)
    if isinstance(text, Flaw):
        return None
    code = country(text) if text else None
    if code is None:
        return default
    return None if isinstance(code, Flaw) else code.upper()
