"""Who may do what: tokens, where they stand in a request, what they open.

Without any token configured, every well-shaped one opens every dataset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from graph_simulator.refusals import (
    Refusal,
    bad_request,
    no_permission,
    no_such_object,
    token_invalid,
    token_missing,
)

# Shape only: Meta's tokens are long and of one alphabet; `|` is in app tokens.
_token = re.compile(r"[A-Za-z0-9|._-]{8,512}").fullmatch

# 13 and 11: live tokens of the Events Manager hold read_ads_dataset_quality alone, and
# send.
_SENDING: Final = frozenset(
    {"ads_management", "business_management", "read_ads_dataset_quality"}
)
_READING: Final = frozenset({"ads_read", "ads_management", "read_ads_dataset_quality"})
_EXPIRED_SUBCODE: Final = 463


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token and what it opens. `datasets` None means all of them."""

    value: str = field(repr=False)
    datasets: frozenset[str] | None = None
    scopes: frozenset[str] = frozenset({"ads_management", "ads_read"})
    expires_at: int = 0  # Unix seconds; 0 is never
    revoked: bool = False

    def alive(self, now: float) -> bool:
        """Say whether Meta still takes it at `now`."""
        return not self.revoked and (not self.expires_at or now < self.expires_at)


class Doorkeeper:
    """Knows the tokens and the datasets, and answers with a refusal or with None."""

    def __init__(self, tokens: Iterable[Token | str], datasets: Iterable[str]) -> None:
        known = [t if isinstance(t, Token) else Token(value=t) for t in tokens]
        self.tokens = {token.value: token for token in known}
        self.datasets = frozenset(datasets)

    def token_of(self, value: str) -> Token | None:
        """Return the token, made up on the spot where none is configured."""
        if not self.tokens and _token(value):
            return Token(value=value)
        return self.tokens.get(value)

    def admit(
        self,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        members: Mapping[str, object],
        now: float,
    ) -> Token | Refusal:
        """Find the token in its three places (1.4) and look whether it is good."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        named = {
            query.get("access_token"),
            bearer.strip() if scheme.lower() == "bearer" else None,
            _text_or_none(members.get("access_token")),
        } - {None, ""}
        if not named:
            return token_missing()
        if len(named) > 1:
            return bad_request("The request carries two different access tokens.")
        value = str(named.pop())
        token = self.token_of(value) if _token(value) else None
        if token is None:
            return token_invalid()
        if not token.alive(now):
            return token_invalid(_EXPIRED_SUBCODE)
        return token

    def sending_refusal(self, token: Token, dataset: str) -> Refusal | None:
        """Say why this token may not send to this dataset."""
        if not self.opens(token, dataset):
            return no_such_object()
        return None if token.scopes & _SENDING else no_permission()

    def opens(self, token: Token, dataset: str) -> bool:
        """Say whether the dataset exists and is shared with the token."""
        exists = not self.datasets or dataset in self.datasets
        return exists and (token.datasets is None or dataset in token.datasets)

    def may_read_quality(self, token: Token) -> bool:
        """Say whether the token's scopes cover the Dataset Quality API."""
        return bool(token.scopes & _READING)


def _text_or_none(value: object) -> str | None:
    # A token that is no text is malformed, not missing.
    return None if value is None else str(value)
