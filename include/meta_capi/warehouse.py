"""How the warehouse is asked: in a transaction that only reads, and in our own words.

What a driver says in anger may quote a row, so none of it leaves this room. A feed's
SQL file is read here too: one select, and nothing but a select.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from meta_capi.errors import CapiError, ConfigurationError, SourceError

__all__ = ["read_only", "read_query", "reading"]

_KNOWN_STATES: Final = {
    "42501": "its role may not read that; grant it select",
    "42P01": "the table does not exist",
    "57014": "the statement was cancelled, or took longer than the warehouse allows",
    "25P03": "the transaction waited longer than the warehouse allows",
}
_TOKENS: Final = re.compile(
    r"(?P<text>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`"
    r"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"
    r"|(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<end>;)",
    re.DOTALL,
)


def read_only(engine: sa.Engine) -> sa.Engine:
    """Return the engine with transactions that read one snapshot, where it can.

    Raises:
        ConfigurationError: the engine would show rows or parameters in logs or errors.
    """
    if not engine.hide_parameters or engine.echo:
        raise ConfigurationError(
            "The warehouse's engine would show values in its errors or logs; create it "
            "with hide_parameters=True and without echo."
        )
    # At DEBUG it logs every row that it fetches. The engine's own logger, not a parent:
    # whoever looks for a fault may have named that one.
    logger = engine.logger
    if isinstance(logger, logging.Logger) and logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.INFO)
    if engine.dialect.name != "postgresql":
        return engine
    return engine.execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )


@contextmanager
def reading(engine: sa.Engine, doing: str) -> Iterator[sa.Connection]:
    """Open a read-only connection.

    Args:
        engine: made with `hide_parameters=True`.
        doing: what is being done, for the sentence that says it failed.

    Raises:
        SourceError: for whatever the database or its driver raises. PostgreSQL's
            DETAIL, a failed cast and a driver's loader all quote values of rows.
    """
    reader = read_only(engine)
    connected = False
    try:
        with reader.connect() as connection:
            connected = True
            yield connection
    except CapiError:
        raise
    except Exception as error:
        sentence = _sentence(error, doing, connected=connected)
        raise SourceError(sentence, code="fault.warehouse") from None


def _sentence(error: Exception, doing: str, *, connected: bool) -> str:
    """Say what went wrong by class and SQLSTATE: made by the driver, not by a row."""
    origin = getattr(error, "orig", None) or error
    state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    name = type(origin).__name__ + (f", SQLSTATE {state}" if state else "")
    known = _KNOWN_STATES.get(str(state))
    if known is None and getattr(error, "connection_invalidated", False):
        known = "the connection broke; run the task again"
    if known is None and not connected:
        known = "no connection was made; look at its address, its login, the network"
    return f"The warehouse could not {doing} ({name}){f': {known}' if known else ''}."


def read_query(folder: Path, name: str) -> str:
    """Read a feed's SQL file: one select, without comments and last semicolon.

    Raises:
        SourceError: the file is missing, lies outside the folder or is not one query.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise SourceError(f"{name} lies outside the feeds' folder; put it in there.")
    try:
        query = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SourceError(
            f"{name} cannot be read; put it beside the feed, in UTF-8."
        ) from None
    return _one_select(name, query)


def _one_select(name: str, query: str) -> str:
    query = _TOKENS.sub(lambda token: " " if token["comment"] else token[0], query)
    query = query.strip()
    ends = [token.start() for token in _TOKENS.finditer(query) if token["end"]]
    if ends == [len(query) - 1]:
        query, ends = query[:-1].rstrip(), []
    if ends:
        raise SourceError(f"{name} holds several statements; leave one select.")
    if not re.match(r"(?:select|with)\b", query, re.IGNORECASE):
        raise SourceError(
            f"{name} does not begin with select or with; leave one select."
        )
    return query
