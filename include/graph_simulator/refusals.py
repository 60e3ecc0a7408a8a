"""Meta's *no*: one value with a code, a subcode and the words around them.

Codes and HTTP statuses follow section 10 of our reference. Words are ours: Meta's are
localised to the token's owner, and no client may depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from meta_capi.spec import Subcode


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error envelope before it is written.

    `path` leads to the member that is wrong, from the root of the request; `wait` goes
    into the usage header as Meta's minutes to wait (text and nonsense for tests).
    """

    code: int
    subcode: int | None = None
    status: int = 400
    message: str = "Invalid parameter"
    type: str = "OAuthException"
    is_transient: bool = False
    title: str | None = None
    explanation: str | None = None
    path: tuple[str | int, ...] = ()
    wait: object = None

    def within(self, *prefix: str | int) -> Refusal:
        """Return the same refusal with its path set below `prefix`."""
        return replace(self, path=(*prefix, *self.path))

    def error(self, trace: str, *, blame_as_text: bool) -> Mapping[str, object]:
        """Return the `error` object. `error_data` was seen as object and as text."""
        error: dict[str, object] = {
            "message": self.message,
            "type": self.type,
            "code": self.code,
        }
        if self.subcode is not None:
            error["error_subcode"] = self.subcode
        error["is_transient"] = self.is_transient
        if self.title is not None:
            error["error_user_title"] = self.title
            error["error_user_msg"] = self._explanation()
        if self.subcode == Subcode.PARAMETER and self.path:
            blame = {"blame_field_specs": [[_bracketed(self.path)]]}
            error["error_data"] = json.dumps(blame) if blame_as_text else blame
        error["fbtrace_id"] = trace
        return error

    def _explanation(self) -> str:
        words = self.explanation or "The request was refused and nothing was processed."
        # Only 2804019 was seen to say where: $['data'][0]['user_data'].
        if self.subcode == Subcode.PARAMETER and self.path:
            steps = "".join(f"[{step!r}]" for step in self.path)
            return f"{words} ${steps}"
        return words


def _bracketed(path: tuple[str | int, ...]) -> str:
    first, *rest = path
    return f"{first}" + "".join(f"[{step}]" for step in rest)


_WORDS: Final[Mapping[int, tuple[str, str]]] = {
    Subcode.TOO_OLD: (
        "Event timestamp too old",
        "An event_time lies further back than this action_source allows.",
    ),
    Subcode.IN_FUTURE: (
        "Event timestamp in the future",
        "An event_time lies in the future. Send seconds, not milliseconds.",
    ),
    Subcode.CONTENTS: (
        "Invalid contents",
        "contents must be a list of objects, each with an id.",
    ),
    Subcode.NO_VALUE: ("Purchase without value", "A Purchase needs a value."),
    Subcode.NO_CURRENCY: ("Purchase without currency", "A Purchase needs a currency."),
    2804016: ("Invalid custom data", "custom_data holds customer information."),
    Subcode.VALUE_WITHOUT_CURRENCY: (
        "Value without currency",
        "A value needs a currency.",
    ),
    Subcode.APP_EXTINFO: (
        "Invalid extended device info",
        "extinfo must have 16 members; the platform and the system's version are "
        "required.",
    ),
    Subcode.MATCH_KEYS: (
        "Not enough customer information",
        "An event has no customer parameters, or only ones that fit too many people.",
    ),
    Subcode.MESSAGING_CHANNEL_MISSING: (
        "Missing messaging channel",
        "business_messaging needs messaging_channel.",
    ),
    2804064: (
        "Argument not allowed",
        "This messaging channel takes no address and no user agent of a browser.",
    ),
    Subcode.MESSAGING_EVENT_NAME: (
        "Event name not allowed",
        "This event_name is not one of those for business_messaging.",
    ),
    Subcode.MESSAGING_PAGE_ID: ("Missing page_id", "messenger needs page_id."),
    Subcode.MESSAGING_IG_SID: ("Missing ig_sid", "instagram needs ig_sid."),
    Subcode.MESSAGING_IG_ACCOUNT: (
        "Missing ig_account_id",
        "instagram needs ig_account_id.",
    ),
    Subcode.MESSAGING_CTWA_CLID: (
        "Invalid ctwa_clid",
        "whatsapp needs the ctwa_clid of a real click.",
    ),
    Subcode.MESSAGING_WHATSAPP_IDS: (
        "Missing WhatsApp account",
        "whatsapp needs page_id or whatsapp_business_account_id.",
    ),
}


def invalid(subcode: int, *path: str | int) -> Refusal:
    """Return code 100 with a subcode whose meaning is known."""
    title, explanation = _WORDS[subcode]
    return Refusal(
        code=100, subcode=subcode, title=title, explanation=explanation, path=path
    )


def bad_parameter(explanation: str, *path: str | int) -> Refusal:
    """Return 100/2804019: a member is missing, mistyped or out of its range."""
    return Refusal(
        code=100,
        subcode=Subcode.PARAMETER,
        title="Invalid server event parameter",
        explanation=explanation,
        path=path,
    )


def bad_request(message: str) -> Refusal:
    """Return 100 without a subcode: the request, not an event, is wrong."""
    return Refusal(code=100, message=message)


def no_such_object() -> Refusal:
    """Return 100/33: no such dataset, or not with this token."""
    return Refusal(
        code=100,
        subcode=33,
        message=(
            "Unsupported request. The object does not exist, cannot be loaded due to "
            "missing permissions, or does not support this operation."
        ),
        type="GraphMethodException",
    )


def unknown_path(message: str = "Unknown path components") -> Refusal:
    """Return 2500."""
    return Refusal(code=2500, message=message)


def dead_version() -> Refusal:
    """Return 2635: the Graph version is no longer served."""
    return Refusal(code=2635, message="This version of the API is deprecated.")


def token_missing() -> Refusal:
    """Return 104."""
    return Refusal(code=104, message="An access token is required.")


def token_invalid(subcode: int | None = None) -> Refusal:
    """Return 190 as HTTP 401, as seen on v26.0 for a token that cannot be read."""
    return Refusal(
        code=190, subcode=subcode, status=401, message="Invalid OAuth access token."
    )


def no_permission(code: int = 200) -> Refusal:
    """Return 200 (writing) or 10 (reading) as HTTP 403."""
    return Refusal(code=code, status=403, message="Permissions error")
