"""Who is told of alerts: one text names a connection for each channel, in one place.

Airflow keeps it as a Variable; the command line sees it where Airflow's own environment
variable holds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from meta_capi.errors import ConfigurationError

__all__ = ["CHANNELS", "VARIABLE", "read_channels", "recipients"]

VARIABLE: Final = "meta_capi_alerts"
CHANNELS: Final = ("slack", "email", "webhook")
_WORDS: Final = {*CHANNELS, "to"}


def read_channels(text: str) -> dict[str, str]:
    """Return the connection of each channel that is named, and `to`, whom mail is for.

    Raises:
        ConfigurationError: it is something else.
    """
    try:
        named = json.loads(text)
    except ValueError:
        named = None
    if (
        not isinstance(named, dict)
        or set(named) - _WORDS
        or not all(isinstance(value, str) for value in named.values())
    ):
        raise ConfigurationError(
            f"The Airflow Variable {VARIABLE!r} is not a JSON object of slack, email, to "
            "and webhook; nobody is told of anything. See docs/alerts.md."
        )
    if named.get("email"):
        recipients(named)
    return named


def recipients(named: Mapping[str, str]) -> tuple[str, ...]:
    """Return whom mail is for.

    Raises:
        ConfigurationError: it is nobody.
    """
    given = named.get("to", "").split(",")
    people = tuple(each.strip() for each in given if each.strip())
    if not people or not all("@" in each and each.isprintable() for each in people):
        raise ConfigurationError(
            f"The Airflow Variable {VARIABLE!r} names no recipients of e-mail; add "
            '"to", with addresses and commas between them.'
        )
    return people
