"""The one table of Meta's match keys: each key's rule, and whether it is digested.

Digests are made here and nowhere else. What comes out is what goes on the wire; nothing
here keeps, shows or logs what came in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from json.encoder import encode_basestring
from typing import Final, NewType

from meta_capi import normalise, spec
from meta_capi.normalise import ExternalIdMode, Flaw, Normalised

__all__ = [
    "KEYS", "Context", "Digest", "MatchKey", "digest", "digested", "fragment", "names",
    "prehashed", "read", "too_broad",
]  # fmt: skip

Digest = NewType("Digest", str)
"""64 lower-case hex characters, perhaps with the tail of Meta's parameter builder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What else must be known to read a match key. It is the same for many rows."""

    today: date
    """No birthday is later."""
    country: str | None = None
    """The row's country as `normalise.country` gives it."""
    phone_country: str | None = None
    """The feed's country for numbers without one, where the row has no country."""
    birthday_format: str | None = None
    external_id_mode: ExternalIdMode = "normalised"


Rule = Callable[[str, Context], Normalised | Flaw | None]


@dataclass(frozen=True, slots=True)
class MatchKey:
    """One line of the table."""

    name: str
    bit: int
    """Its bit in the ledger's masks. Never renumber: old rows keep theirs."""
    rule: Rule
    separators: re.Pattern[str] | None
    """What stands between several values in one field; None where nothing can."""
    splits: bool
    """Several values in one field are all sent; elsewhere they are a flaw."""
    is_digested: bool
    takes_list: bool
    is_integer: bool


_LINES: Final = re.compile(r"[;|\r\n]")
_COMMAS_TOO: Final = re.compile(r"[;|,\r\n]")
# No bar: ids of identity providers hold one ("auth0|507f..."), and its first part would
# be the same for every customer.
_NO_BAR: Final = re.compile(r"[;\r\n]")


def _key(
    name: str,
    place: int,
    rule: Rule,
    separators: re.Pattern[str] | None = None,
    *,
    splits: bool = False,
) -> MatchKey:
    return MatchKey(
        name,
        1 << place,
        rule,
        separators,
        splits,
        is_digested=name in spec.DIGESTED_KEYS,
        takes_list=name in spec.LIST_KEYS,
        is_integer=name in spec.INTEGER_KEYS,
    )


def _phone(text: str, at: Context) -> Normalised | Flaw | None:
    return normalise.phone(text, at.country or at.phone_country)


def _birthday(text: str, at: Context) -> Normalised | Flaw | None:
    return normalise.birthday(text, at.birthday_format, at.today)


_TABLE: Final = (
    _key("em", 0, lambda text, _: normalise.email(text), _COMMAS_TOO, splits=True),
    _key("ph", 1, _phone, _COMMAS_TOO, splits=True),
    _key("fn", 2, lambda text, _: normalise.name(text), _LINES),
    _key("ln", 3, lambda text, _: normalise.name(text), _LINES),
    _key("db", 4, _birthday, _LINES),
    _key("ge", 5, lambda text, _: normalise.gender(text), _LINES),
    _key("ct", 6, lambda text, _: normalise.city(text), _LINES),
    _key("st", 7, lambda text, at: normalise.state(text, at.country), _LINES),
    _key("zp", 8, lambda text, at: normalise.postcode(text, at.country), _LINES),
    _key("country", 9, lambda text, _: normalise.country(text), _LINES),
    _key(
        "external_id", 10,
        lambda text, at: normalise.external_id(text, at.external_id_mode),
        _NO_BAR, splits=True,
    ),
    _key(
        "client_ip_address", 11,
        lambda text, _: normalise.ip_address(text), _COMMAS_TOO,
    ),
    _key("client_user_agent", 12, lambda text, _: normalise.user_agent(text)),
    _key("fbc", 13, lambda text, _: normalise.click_id(text), _COMMAS_TOO),
    _key("fbp", 14, lambda text, _: normalise.browser_id(text), _COMMAS_TOO),
    _key("subscription_id", 15, lambda text, _: normalise.subscription_id(text)),
    _key("fb_login_id", 16, lambda text, _: normalise.fb_login_id(text), _COMMAS_TOO),
    _key("lead_id", 17, lambda text, _: normalise.lead_id(text), _COMMAS_TOO),
    _key("madid", 18, lambda text, _: normalise.madid(text), _COMMAS_TOO),
)  # fmt: skip

KEYS: Final = {key.name: key for key in _TABLE}


# --- digests --------------------------------------------------------------------------


def digest(normalised: Normalised) -> Digest:
    """Return the SHA-256 digest of a normal form, unsalted, as Meta matches it.

    >>> digest(Normalised("mary"))
    '6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec'
    >>> digest(Normalised(""))
    Traceback (most recent call last):
    ValueError: Nothing is left to digest; leave the match key out.
    """
    if not normalised:
        raise ValueError("Nothing is left to digest; leave the match key out.")
    return Digest(hashlib.sha256(normalised.encode()).hexdigest())


_DIGEST: Final = re.compile(spec.DIGEST_PATTERN)
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_HEX_LENGTH: Final = 64
_MD5_LENGTH: Final = 32
# A digest alone, with the old tail of a dot and 2 characters, with the new one of 8.
_LENGTHS: Final = frozenset(
    {_MD5_LENGTH, _HEX_LENGTH, _HEX_LENGTH + 3, _HEX_LENGTH + 9}
)


def prehashed(text: str) -> Digest | Flaw | None:
    """Return the digest that a text already is, or None if it is none.

    [choice] MD5 is a flaw: Meta's libraries let it pass, but Meta matches SHA-256 only.

    >>> prehashed("AB" * 32) == "ab" * 32
    True
    >>> prehashed("ab" * 16)
    <Flaw.HASH_MD5: 'hash.md5'>
    >>> prehashed("mary")
    """
    text = text.strip()
    if len(text) not in _LENGTHS:
        return None
    text = text[:_HEX_LENGTH].lower() + text[_HEX_LENGTH:]
    if _MD5.fullmatch(text):
        return Flaw.HASH_MD5
    if not _DIGEST.fullmatch(text):
        return None
    if text.startswith(spec.EMPTY_STRING_SHA256):
        return Flaw.HASH_OF_NOTHING
    return Digest(text)


# --- from the database's value to the wire --------------------------------------------


def read(key: str, value: object, context: Context) -> tuple[str, ...] | Flaw | None:
    """Return what goes on the wire for one value of the database.

    Of several values in one field the good ones are kept, each once, in order; a flaw
    is returned only if none is good.

    Pure: the same key, value and context give the same, so callers may remember it. Let
    them look up texts only, because 1, 1.0 and True are equal and not the same text.
    """
    match_key = KEYS[key]
    if key == "db" and isinstance(value, date):
        context = replace(context, birthday_format=None)  # it comes as ISO 8601
    text = normalise.text_of(value)
    if text is None or isinstance(text, Flaw):
        return text
    if key == "external_id" and context.external_id_mode == "raw":
        raw = normalise.external_id(text, "raw")
        return (raw,) if isinstance(raw, str) else raw
    parts = _parts(text, match_key.separators)
    if len(parts) > 1 and not match_key.splits:
        return Flaw.VALUE_SEVERAL
    good: dict[str, None] = {}
    flaw: Flaw | None = None
    for part in parts:
        sent = _sent(part, match_key, context)
        if isinstance(sent, Flaw):
            flaw = flaw or sent
        elif sent is not None:
            good[sent] = None
    return tuple(good) or flaw


def _parts(text: str, separators: re.Pattern[str] | None) -> tuple[str, ...]:
    if separators is None or not separators.search(text):
        return (text,)
    parts = map(str.strip, separators.split(text))
    return tuple(dict.fromkeys(filter(None, parts)))


def _sent(text: str, key: MatchKey, context: Context) -> str | Flaw | None:
    if key.is_digested:
        ready = prehashed(text)
        # An external id of 32 hex characters is a UUID without dashes.
        if ready is not None and not (
            ready is Flaw.HASH_MD5 and key.name == "external_id"
        ):
            return ready
    normalised = key.rule(text, context)
    if normalised is None or isinstance(normalised, Flaw):
        return normalised
    return digest(normalised) if key.is_digested else normalised


def fragment(key: str, values: tuple[str, ...]) -> str:
    """Return the member of `user_data` for one key, as JSON.

    >>> fragment("lead_id", ("1234567890123456",))
    '"lead_id":1234567890123456'
    >>> fragment("fbp", ("fb.1.1596403881668.1116446470",))
    '"fbp":"fb.1.1596403881668.1116446470"'
    """
    match_key = KEYS[key]
    if match_key.is_integer:
        return f'"{key}":{values[0]}'
    texts = ",".join(map(encode_basestring, values))
    return f'"{key}":[{texts}]' if match_key.takes_list else f'"{key}":{texts}'


def digested(key: str, normals: Sequence[str]) -> list[str]:
    """Return the `fragment`s of normal forms, each with a leading comma.

    For an empty text there is an empty one.
    """
    start, sha256 = f',"{key}":["', hashlib.sha256
    return [
        f'{start}{sha256(normal.encode()).hexdigest()}"]' if normal else ""
        for normal in normals
    ]


# --- masks ----------------------------------------------------------------------------


def _mask(keys: Iterable[str]) -> int:
    return sum(KEYS[key].bit for key in keys)


_TOO_BROAD: Final = tuple(map(_mask, spec.TOO_BROAD_KEY_SETS))


def names(mask: int) -> tuple[str, ...]:
    """Return the keys of a mask, in the order of the wire.

    >>> names(0b101)
    ('em', 'fn')
    """
    return tuple(key.name for key in _TABLE if mask & key.bit)


def too_broad(mask: int) -> bool:
    """Tell whether the keys fit too many people: all lie in one of Meta's sets.

    >>> too_broad(_mask(["ge", "ct", "st", "country"]))
    True
    >>> too_broad(_mask(["fn", "ln"]))
    False
    """
    return any(not mask & ~broad for broad in _TOO_BROAD)
