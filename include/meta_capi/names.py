"""What a conversion is called: its source key, and its event's id.

Both are made from the row's key alone: a row is the same conversion each time it is
read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from meta_capi import plain, spec
from meta_capi.normalise import email, text_of

__all__ = [
    "clean_text", "event_id", "event_ids", "holds_address", "joined_key", "key_of",
    "keys_of", "names_a_row", "occurrence_key", "split_key",
]  # fmt: skip

# Our own namespace for UUIDv5 event ids. Another would make every event new to Meta.
_NAMESPACE: Final = bytes.fromhex("6f2b1c5e8d3a4f71b0c95e7a2d4c8f16")
_OCCURRENCE: Final = "#dup"
# A line for a UUID: its dashes and its version stand already.
_BLANK: Final = b"........-....-5...-....-............\n"
_PLACES: Final = [
    (source, target)
    for source, target in zip(
        [*range(12), *range(13, 32)],
        [place for place, sign in enumerate(_BLANK) if sign == ord(".")],
        strict=True,
    )
]
_VARIANT_PLACE: Final = 19
_VARIANT: Final = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)


def clean_text(value: object) -> str | None:
    """Return a value's text between its ends; None where there is none to be read.

    >>> clean_text(" ord-1 "), clean_text("NULL")
    ('ord-1', None)
    """
    text = text_of(value)
    return text.strip() or None if isinstance(text, str) else None


def joined_key(parts: Iterable[str]) -> str:
    """Return one text for a key of several columns; different keys, different texts.

    >>> joined_key(["L-1", "mql"])
    'L-1|mql'
    >>> joined_key(["a|b"]) == joined_key(["a", "b"])
    False
    """
    return "|".join(map(_escaped, parts))


def _escaped(part: str) -> str:
    # `#dup` stands before the number of an occurrence.
    escaped = part.replace("%", "%25").replace("|", "%7C")
    return escaped.replace(_OCCURRENCE, "%23dup")


def key_of(values: Iterable[object]) -> str:
    """Return the source key of a row's key values; empty if a part is empty.

    >>> key_of([7, "mql"]), key_of([None, "mql"])
    ('7|mql', '')
    """
    parts = [clean_text(value) or "" for value in values]
    return joined_key(parts) if all(parts) else ""


def keys_of(columns: Sequence[Sequence[object]]) -> list[str]:
    """Return the source keys of rows, given their key columns."""
    if len(columns) > 1:
        return [key_of(parts) for parts in zip(*columns, strict=True)]
    (column,) = columns
    return [
        found or key_of([value])
        for found, value in zip(plain.ids(column), column, strict=True)
    ]


def holds_address(key: str) -> bool:
    """Tell whether a part of a key is an e-mail address: such a key names a person.

    >>> holds_address("jane@shop.example|mql"), holds_address("ord-1@2")
    (True, False)
    """
    if "@" not in key:
        return False
    return any(isinstance(email(part), str) for part in split_key(key))


def names_a_row(key: str) -> bool:
    """Tell whether the ledger may call a row by its key; else the builder names it.

    >>> names_a_row("ord-1"), names_a_row(""), names_a_row("jane@shop.example|mql")
    (True, False, False)
    """
    return 0 < len(key) <= spec.MAX_EVENT_ID_CHARACTERS and not holds_address(key)


def split_key(text: str) -> list[str]:
    """Undo `joined_key`, and forget which occurrence the row was.

    >>> split_key(joined_key(["a|b", "c"]))
    ['a|b', 'c']
    >>> split_key("ord-1#dup2")
    ['ord-1']
    """
    key, _, _ = text.partition(_OCCURRENCE)
    return [
        part.replace("%23", "#").replace("%7C", "|").replace("%25", "%")
        for part in key.split("|")
    ]


def event_id(dataset_id: str, event_name: str, source_key: str) -> str:
    """Return the event's UUIDv5: the same conversion, the same id, for ever.

    Nothing else goes in: no amount, no time, no run. A corrected row is no new event.

    >>> event_id("1234567890", "Purchase", "ord-1")
    'dc00c8e7-954b-51f9-bcc6-919bc28bb6ee'
    """
    (identity,) = event_ids(dataset_id, [event_name], [source_key])
    return identity


def event_ids(
    dataset_id: str, event_names: Sequence[str | None], source_keys: Sequence[str]
) -> list[str]:
    """Return the event ids of many conversions, as `event_id` names each."""
    starts = {
        name: hashlib.sha1(
            _NAMESPACE + f"{dataset_id}\n{name}\n".encode(), usedforsecurity=False
        )
        for name in set(event_names)
    }
    digests = []
    for name, key in zip(event_names, source_keys, strict=True):
        digest = starts[name].copy()
        digest.update(key.encode())
        digests.append(digest.hexdigest())
    return _uuids(digests)


def _uuids(digests: Sequence[str]) -> list[str]:
    """Write SHA-1 digests, 40 hexadecimal characters each, as UUIDs of version 5.

    Column by column: the nth characters of all digests are moved at once.
    """
    digits, text = "".join(digests).encode(), bytearray(_BLANK * len(digests))
    for source, target in _PLACES:
        text[target :: len(_BLANK)] = digits[source::40]
    text[_VARIANT_PLACE :: len(_BLANK)] = digits[16::40].translate(_VARIANT)
    return text.decode().split("\n")[:-1]


def occurrence_key(key: str, number: int) -> str:
    """Name the nth row that has the same key; the first has the key itself.

    >>> occurrence_key("ord-1", 2)
    'ord-1#dup2'
    """
    return key if number == 1 else f"{key}{_OCCURRENCE}{number}"
