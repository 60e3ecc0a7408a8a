"""Airflow's connections, read from the environment: AIRFLOW_CONN_<ID>, JSON or URI.

So one file of variables serves Airflow and the command line. Connections that are kept
in Airflow's database or in a secrets backend are not seen here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import sqlalchemy as sa

from meta_capi.errors import ConfigurationError

__all__ = ["Connection", "database_url", "find", "variable"]

# What Airflow's PostgreSQL hook hands on to the driver, as far as libpq knows it.
_LIBPQ: Final = frozenset({
    "application_name", "connect_timeout", "options", "sslcert", "sslkey", "sslmode",
    "sslrootcert", "target_session_attrs",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An Airflow connection."""

    conn_type: str
    host: str | None = None
    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    schema: str | None = None
    port: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def variable(conn_id: str) -> str:
    """Return the variable of a connection.

    >>> variable("capi_ledger")
    'AIRFLOW_CONN_CAPI_LEDGER'
    """
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def find(conn_id: str, environ: Mapping[str, str]) -> Connection | None:
    """Return a connection of the environment, if it has it.

    Raises:
        ConfigurationError: it is there and cannot be read.
    """
    text = environ.get(variable(conn_id), "").strip()
    if not text:
        return None
    try:
        return _from_json(text) if text.startswith("{") else _from_uri(text)
    except (ValueError, TypeError, AttributeError):
        # The text holds a password, and so does what is said of it.
        raise ConfigurationError(
            f"{variable(conn_id)} is neither Airflow's JSON nor its URI of a "
            "connection; write it as Airflow's documentation of connections says.",
            code="fault.connection",
        ) from None


def _from_json(text: str) -> Connection:
    given = json.loads(text)
    extra = given.get("extra") or {}
    return Connection(
        conn_type=_type(given["conn_type"]) if "conn_type" in given else "",
        host=_text(given.get("host")),
        login=_text(given.get("login")),
        password=_text(given.get("password")),
        schema=_text(given.get("schema")),
        port=int(given["port"]) if given.get("port") else None,
        extra=dict(json.loads(extra) if isinstance(extra, str) else extra),
    )


def _from_uri(text: str) -> Connection:
    parts = urlsplit(text)
    if not parts.scheme:
        raise ValueError
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    inside = query.pop("__extra__", None)
    # urlsplit's own `hostname` would fold an encoded URL to lower case.
    host = parts.netloc.rpartition("@")[2]
    if parts.port is not None:
        host = host.rpartition(":")[0]
    return Connection(
        conn_type=_type(parts.scheme),
        host=unquote(host) or None,
        login=_unquoted(parts.username),
        password=_unquoted(parts.password),
        schema=unquote(parts.path.lstrip("/")) or None,
        port=parts.port,
        extra=dict(json.loads(inside)) if inside else query,
    )


def _text(value: object) -> str | None:
    """Return a field as a text: a password of digits alone is often written as one."""
    if isinstance(value, list | dict):
        raise TypeError
    return None if value is None else str(value)


def _unquoted(text: str | None) -> str | None:
    return unquote(text) if text else None


def _type(text: str) -> str:
    return text.replace("-", "_").lower()


def database_url(conn_id: str, connection: Connection) -> sa.URL:
    """Return the SQLAlchemy URL of a PostgreSQL connection.

    Raises:
        ConfigurationError: it is of another type, which only Airflow's hook can read.
    """
    if connection.conn_type not in ("postgres", "postgresql"):
        raise ConfigurationError(
            f"{variable(conn_id)} is of type {connection.conn_type or 'nothing'}; the "
            "command line reads only postgres from there. Give the database's "
            "SQLAlchemy URL in META_CAPI_WAREHOUSE.",
            code="fault.connection",
        )
    extra = {
        name: str(connection.extra[name]) for name in _LIBPQ & set(connection.extra)
    }
    return sa.URL.create(
        "postgresql+psycopg",
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
        query=extra,
    )
