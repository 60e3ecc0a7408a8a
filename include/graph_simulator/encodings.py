"""A request's body, in each of the forms that real clients send (reference 1.3).

E1 JSON; E2 a form whose `data` is a JSON array of JSON texts; E3 a form whose `data` is
a JSON array of objects; E4 multipart with the same. All of them end as one dictionary
whose `data`, if readable, is a list. Whether that list is right is for the rules.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from email import message_from_bytes
from email.policy import HTTP
from typing import Final, NoReturn
from urllib.parse import parse_qsl

from graph_simulator.refusals import Refusal, bad_request

# Members that a form can only carry as text.
_JSON_MEMBERS: Final = ("data", "progress", "platforms")


class UnreadableError(Exception):
    """The body is in no form that Meta takes; carries the refusal."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


def is_plain_json(headers: Mapping[str, str]) -> bool:
    """Say whether the body is JSON as it stands."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = headers.get("content-encoding", "identity").strip().lower()
    return media_type == "application/json" and coding == "identity"


def decode(
    body: bytes, headers: Mapping[str, str], *, accept_gzip: bool = False
) -> dict[str, object]:
    """Return the body's members. An empty body has none.

    Raises:
        UnreadableError: unknown encoding, broken JSON, bytes that are not UTF-8.
    """
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding == "gzip" and accept_gzip:
        try:
            body = gzip.decompress(body)
        except (OSError, EOFError) as error:
            raise _unreadable("The gzip body cannot be unpacked.") from error
    elif coding != "identity":
        raise _unreadable("Unknown content encoding.")
    if not body:
        return {}
    content_type = headers.get("content-type", "")
    match content_type.partition(";")[0].strip().lower():
        case "application/json":
            members = _json(_text(body))
            if not isinstance(members, dict):
                raise _unreadable("The body must be a JSON object.")
        case "multipart/form-data":
            members = _multipart(body, content_type)
        case "application/x-www-form-urlencoded" | "":
            members = _from_form(_form(body))
        case _:
            raise _unreadable("Unknown content type.")
    _unwrap(members)
    return members


def _unwrap(members: dict[str, object]) -> None:
    """Read, in place, the events that are JSON texts themselves (E2)."""
    data = members.get("data")
    if type(data) is list and str in set(map(type, data)):
        members["data"] = [
            _lenient_json(item) if isinstance(item, str) else item for item in data
        ]


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(_text(body), keep_blank_values=True, errors="strict"))
    except UnicodeDecodeError as error:
        raise _unreadable("The form is not UTF-8.") from error


def _from_form(fields: Mapping[str, str]) -> dict[str, object]:
    members: dict[str, object] = dict(fields)
    for name in _JSON_MEMBERS:
        if name in fields:
            members[name] = _lenient_json(fields[name])
    return members


def _multipart(body: bytes, content_type: str) -> dict[str, object]:
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    message = message_from_bytes(head + body, policy=HTTP)
    if not message.is_multipart():
        raise _unreadable("The multipart body has no parts.")
    fields: dict[str, str] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            fields[name] = _text(content)
    return _from_form(fields)


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unreadable("The body is not UTF-8.") from error


def _not_a_number(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_not_a_number)


def _json(text: str) -> object:
    try:
        return _DECODER.decode(text)
    # ValueError: broken JSON, or an integer of more than 4,300 digits.
    except (ValueError, RecursionError) as error:
        raise _unreadable("The body is not JSON.") from error


def _lenient_json(text: str) -> object:
    """Return the value, or the text itself, which the rules then refuse."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return text


def _unreadable(message: str) -> UnreadableError:
    return UnreadableError(bad_request(message))
