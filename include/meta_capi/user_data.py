"""The columns of match keys become `user_data`, each repeated value read once."""

from __future__ import annotations

from datetime import date

from meta_capi import match_keys
from meta_capi.built import Built, Columns, bound
from meta_capi.feed import Feed
from meta_capi.lifecycle import State
from meta_capi.normalise import Flaw, country, text_of

__all__ = ["UserData"]


class UserData:
    """The match keys of one feed. Keeps what it learnt of repeated values."""

    def __init__(self, feed: Feed, today: date) -> None:
        self._feed = feed
        self._today = today
        self._countries: dict[str, str | None] = {}
        self._fragments: dict[str, dict[object, tuple[int, str] | str | None]] = {}

    def members(
        self, columns: Columns, built: Built, alive: list[int]
    ) -> tuple[list[str], list[int]]:
        """Return the JSON members of user_data of the kept rows, and those rows."""
        codes = self._country_codes(columns, alive)
        found: list[list[str]] = [[] for _ in alive]
        masks = [0] * len(alive)
        for key in match_keys.KEYS:
            if key in self._feed.user_data:
                self._read_key(key, columns, built, alive, codes, found, masks)
        kept, members = [], []
        for row, mask, texts in zip(alive, masks, found, strict=True):
            built.masks[row] = mask
            if not mask:
                built.hold(row, State.WITHHELD, "match_keys.none")
            elif match_keys.too_broad(mask):
                built.hold(row, State.WITHHELD, "match_keys.too_broad")
            else:
                kept.append(row)
                members.append(",".join(texts))
        return members, kept

    def _country_codes(self, columns: Columns, alive: list[int]) -> list[str | None]:
        """Return each row's country, which phones, states and postcodes are read by."""
        part = self._feed.user_data.get("country")
        default = part.default if part else None
        if part is None or part.column is None:
            return [default] * len(alive)
        column, known = columns[part.column], self._countries
        codes = []
        for row in alive:
            raw = column[row]
            if type(raw) is not str:
                codes.append(_country_code(raw, default))
                continue
            if raw not in known:
                bound(known)
                known[raw] = _country_code(raw, default)
            codes.append(known[raw])
        return codes

    def _read_key(
        self, key: str, columns: Columns, built: Built, alive: list[int],
        codes: list[str | None], found: list[list[str]], masks: list[int],
    ) -> None:  # fmt: skip
        part = self._feed.user_data[key]  # type: ignore[index]
        column = columns[part.column] if part.column else [None] * len(built)
        cache = self._fragments.setdefault(key, {})
        by_country = key in ("ph", "st", "zp")
        bit = match_keys.KEYS[key].bit
        for place, row in enumerate(alive):
            raw = column[row]
            if raw is None and part.default is None:
                continue
            code = codes[place]
            # Only texts are looked up: 1, True and Decimal(1) are equal, and are not
            # the same text.
            name = (raw, code) if by_country else raw
            if type(raw) is str and name in cache:
                entry = cache[name]
            else:
                entry = self._fragment(key, raw, code)
                if type(raw) is str:
                    bound(cache)
                    cache[name] = entry
            if type(entry) is tuple:
                masks[place] |= bit
                found[place].append(entry[1])
            elif entry is not None:
                built.flaws[str(entry)] += 1

    def _fragment(
        self, key: str, raw: object, code: str | None
    ) -> tuple[int, str] | str | None:
        """Return a match key's JSON member, or the flaw's code, or None for nothing."""
        part = self._feed.user_data[key]  # type: ignore[index]
        context = match_keys.Context(
            country=code.lower() if code else None,
            phone_country=part.default_country,
            birthday_format=part.format,
            external_id_mode=part.mode or "normalised",
            today=self._today,
        )
        values = match_keys.read(key, raw, context)
        if values is None and part.default is not None:
            values = match_keys.read(key, part.default, context)
        if isinstance(values, Flaw):
            return values.value
        return (1, match_keys.fragment(key, values)) if values else None


def _country_code(raw: object, default: str | None) -> str | None:
    """Return a row's country; the default only where the row names none."""
    text = text_of(raw)
    if isinstance(text, Flaw):
        return None
    code = country(text) if text else None
    if code is None:
        return default
    return None if isinstance(code, Flaw) else code.upper()
