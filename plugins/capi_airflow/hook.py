"""An Airflow connection of type `meta_capi` becomes a line to Meta.

What the line is made of is in `transport.py`; here it only gets its connection.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from capi_airflow.transport import Destination, Line
from meta_capi import spec
from meta_capi.errors import ConfigurationError
from meta_capi.verdict import Answer

__all__ = ["Destination", "MetaCapiHook", "connection_of"]

_log = logging.getLogger(__name__)


def connection_of(conn_id: str) -> Any:
    """Return an Airflow connection; ConfigurationError where there is none."""
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"There is no connection {conn_id!r}; make it under Admin, Connections."
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
            if faults := found.faults():
                raise ConfigurationError(
                    f"Connection {self.meta_conn_id!r}: {' '.join(faults)}"
                )
            if found.base_url != spec.GRAPH_HOST:
                _log.warning(
                    "Connection %s does NOT go to Meta but to %s (environment: local).",
                    self.meta_conn_id,
                    found.base_url,
                )
            self._destination = found
        return self._destination

    def line(self) -> Line:
        """Return the line to Meta, opened once."""
        if self._line is None:
            self._line = Line(self.destination(), requests_in_flight=self._in_flight)
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
        destination = self.destination()
        return True, (
            f"Dataset {destination.dataset_id} answers on {destination.graph_version}."
        )
