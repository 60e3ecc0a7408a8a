"""An Airflow connection of type `meta_capi` becomes a line to Meta.

What the line is made of is in `transport.py`; here it only gets its connection.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import logging
import os
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from capi_airflow.links import catalogue_address
from capi_airflow.transport import Destination, Line
from meta_capi import spec
from meta_capi.errors import ConfigurationError
from meta_capi.scores import EventScore, Surface
from meta_capi.verdict import Answer

__all__ = ["Destination", "MetaCapiHook", "connection_of"]

_log = logging.getLogger(__name__)
_GRAPH_URL: Final = "META_CAPI_GRAPH_URL"


def connection_of(conn_id: str) -> Any:
    """Return an Airflow connection; ConfigurationError where there is none."""
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"There is no connection {conn_id!r}; make it under Admin, Connections.",
            code="fault.connection",
        ) from None


class MetaCapiHook(BaseHook):
    """Talks to Meta through an Airflow connection of type `meta_capi`."""

    conn_name_attr = "meta_conn_id"
    default_conn_name = "meta_capi_default"
    conn_type = "meta_capi"
    hook_name = "Meta Conversions API"

    def __init__(
        self, meta_conn_id: str = default_conn_name, *, requests_in_flight: int = 1
    ) -> None:
        super().__init__()
        self.meta_conn_id = meta_conn_id
        self._in_flight = requests_in_flight
        self._destination: Destination | None = None
        self._line: Line | None = None

    def destination(self) -> Destination:
        """Read the connection; ConfigurationError names all that is wrong with it."""
        if self._destination is None:
            given = connection_of(self.meta_conn_id)
            found = Destination.of(
                host=given.host,
                port=given.port,
                schema=given.schema,
                login=given.login,
                password=given.password,
                extra=given.extra_dejson,
            )
            mask_secret(list(_spellings(found)))
            if faults := found.faults() or _stray(found):
                raise ConfigurationError(
                    f"Connection {self.meta_conn_id!r}: {' '.join(faults)}",
                    code="fault.connection",
                )
            if found.base_url != spec.GRAPH_HOST:
                _log.warning(
                    "Connection %s does NOT go to Meta but to %s (environment: local). "
                    "See %s",
                    self.meta_conn_id,
                    found.base_url,
                    catalogue_address("warning.not_meta"),
                )
            self._destination = found
        return self._destination

    @property
    def fingerprint(self) -> str:
        """What tells one token from another, and nothing about it."""
        token = self.destination().token.encode()
        return hashlib.blake2s(token, digest_size=4, person=b"capitokn").hexdigest()

    def line(self) -> Line:
        """Return the line to Meta, opened once."""
        if self._line is None:
            self._line = Line(self.destination(), requests_in_flight=self._in_flight)
            _log.info(
                "Connection %s has the token with the fingerprint %s.",
                self.meta_conn_id,
                self.fingerprint,
            )
        return self._line

    def get_conn(self) -> Any:
        """Return the line's `requests.Session`."""
        return self.line().session

    def post(self, body: bytes) -> Answer:
        """Send one request's body to the dataset's `events` edge.

        Raises:
            NoAnswerError: no whole answer came within the deadline.
        """
        return self.line().post(body)

    def get(self, path: str, fields: str) -> Answer:
        """Read a node's fields; `path` begins after the Graph version."""
        return self.line().get(path, fields)

    def scores(self, surface: Surface) -> list[EventScore]:
        """Read Meta's own scores of the dataset's events.

        Raises:
            ScoresError: there was no answer, or none with scores.
        """
        return self.line().scores(surface)

    def dataset_faults(self) -> list[str]:
        """Ask Meta for the dataset; return what is wrong, one sentence each."""
        return self.line().dataset_faults(f"connection {self.meta_conn_id!r}")

    def test_connection(self) -> tuple[bool, str]:
        """Answer Airflow's *Test* button."""
        try:
            faults = self.dataset_faults()
        except ConfigurationError as error:
            return False, str(error)
        if faults:
            return False, " ".join(faults)
        found = self.destination()
        told = (
            f"Dataset {found.dataset_id} answers on {found.graph_version}, to the token "
            f"with the fingerprint {self.fingerprint}."
        )
        if found.base_url != spec.GRAPH_HOST:
            told = f"This is NOT Meta but {found.base_url}. {told}"
        return True, told


def _stray(found: Destination) -> list[str]:
    """Say why a connection may not name this address.

    Who may edit connections must not be able to send the token to a stranger: beside
    this machine, only the one address that the worker's own environment names is taken.
    """
    host = urlsplit(found.base_url).hostname
    named = os.environ.get(_GRAPH_URL, "").strip().rstrip("/")
    if found.base_url in (spec.GRAPH_HOST, named) or _is_this_machine(host):
        return []
    return [
        "The connection's base URL is neither Meta's nor of this machine. If it is the "
        f"local Graph API's, set {_GRAPH_URL} to it where the workers run."
    ]


def _is_this_machine(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _spellings(found: Destination) -> Iterator[str]:
    """Yield the secrets as a library may write them; Airflow masks the plain ones alone."""
    for secret in filter(None, (found.token, found.app_secret, found.proof)):
        yield from {secret, quote(secret, safe="")}
        for shift in range(3):
            packed = base64.b64encode(b":" * shift + secret.encode()).decode()
            # The first and the last four characters depend on the neighbours.
            yield packed[4:-4]
