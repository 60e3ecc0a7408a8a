"""One POST to whoever is told of alerts. No Airflow here, and no second try."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import requests
from urllib3.exceptions import HTTPError

from capi_airflow.deadline import DeadlineAdapter, Deadlines

__all__ = ["SECONDS", "UndeliveredError", "post_json"]

SECONDS: Final = 10.0
"""The most that one message may take."""


class UndeliveredError(Exception):
    """A channel did not take a message. Says why in our words: no address, no answer."""


def post_json(
    url: str, body: Mapping[str, Any], headers: Mapping[str, str],
    *, seconds: float = SECONDS,
) -> None:  # fmt: skip
    """Send a body once. No redirect is followed: it could lead a secret astray.

    Raises:
        UndeliveredError: it was not taken, or nobody said so in time.
    """
    deadlines = Deadlines(seconds)
    with requests.Session() as session:
        # As on the line to Meta: the environment names no proxy and no .netrc.
        session.trust_env = False
        for scheme in ("https://", "http://"):
            session.mount(scheme, DeadlineAdapter(max_retries=0))
        try:
            with (
                deadlines.begin(),
                session.post(
                    url, data=json.dumps(body).encode(), timeout=(seconds / 2, seconds),
                    allow_redirects=False, stream=True,
                    headers={"Content-Type": "application/json", **headers},
                ) as response,
            ):  # fmt: skip
                status = response.status_code
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # What it says may hold the address, and so a secret.
            raise UndeliveredError(f"no answer ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise UndeliveredError(f"HTTP {status}")
