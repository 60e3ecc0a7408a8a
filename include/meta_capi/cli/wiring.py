"""Where a command finds its feeds, its databases and Meta: options, then variables.

The order is the same for each: the option, the META_CAPI_ variable, the Airflow
connection that the feed names. Nothing is opened before a command asks for it.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from meta_capi.cli.connections import Connection, database_url, find, variable
from meta_capi.cli.page import Page
from meta_capi.errors import ConfigurationError, FeedError
from meta_capi.feed import Feed, load
from meta_capi.feed.parts import Connections
from meta_capi.ledger import Ledger
from meta_capi.source import Source
from meta_capi.words import number

if TYPE_CHECKING:
    from capi_airflow.transport import Destination, Line

__all__ = ["Wiring"]

_LEDGER_PATIENCE: Final = 3.0  # seconds; a person waits
_CONNECT_SECONDS: Final = 5
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the options and the environment say."""

    options: argparse.Namespace
    environ: Mapping[str, str]
    now: datetime

    # --- feeds ----------------------------------------------------------------------

    @property
    def home(self) -> Path:
        """The folder with `feeds/` and `expectations/`."""
        if given := self.options.home or self.environ.get("META_CAPI_HOME"):
            return Path(given)
        beside = Path(__file__).resolve().parents[2]
        here = Path("include")
        return here if (here / "feeds").is_dir() else beside

    def feed_names(self) -> list[str]:
        """Return the names of the feed files."""
        folder = self.home / "feeds"
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        if not names:
            raise ConfigurationError(
                f"{folder} has no feeds; name the folder above it with --home."
            )
        return names

    def feed(self, name: str) -> Feed:
        """Read one feed.

        Raises:
            ConfigurationError: there is none of this name.
            FeedError: with all that is wrong with it.
        """
        return load(self.feed_file(name))

    def feed_file(self, name: str) -> Path:
        """Return the file of a feed.

        Raises:
            ConfigurationError: there is none of this name.
        """
        names = self.feed_names()
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            meant = (
                f"did you mean {close[0]}?"
                if close
                else f"there are {', '.join(names)}."
            )
            raise ConfigurationError(f"There is no feed {name!r}; {meant}")
        return self.home / "feeds" / f"{name}.yaml"

    def feeds(self, name: str | None = None) -> tuple[list[Feed], list[str]]:
        """Read one feed, or all; return the names of those left out as well.

        Of all, those whose files are wrong are left out, with a line for each on standard
        error. One that is named must be right.
        """
        if name:
            return [self.feed(name)], []
        feeds, left_out = [], []
        for each in self.feed_names():
            try:
                feeds.append(self.feed(each))
            except FeedError as error:
                left_out.append(each)
                Page(sys.stderr).say(
                    f"{each} is left out: its file has "
                    f"{number(len(error.faults), 'fault')}; see `meta-capi check`."
                )
        return feeds, left_out

    # --- databases ------------------------------------------------------------------

    def source(self, feed: Feed) -> Source:
        """Return the feed's rows in its warehouse."""
        engine = self.warehouse(feed.connections.warehouse)
        return Source(engine, feed, self.home / "feeds")

    def warehouse(self, conn_id: str) -> sa.Engine:
        """Return an engine for the warehouse of this connection."""
        return _engine("warehouse", self._url("warehouse", {conn_id}))

    def ledger(self, *feeds: Feed) -> Ledger:
        """Return the ledger of these feeds, which must be one."""
        ids = {feed.connections.ledger for feed in feeds} or {Connections().ledger}
        url = self._url("ledger", ids)
        if url.get_backend_name() != "postgresql":
            raise ConfigurationError(
                "The ledger is not PostgreSQL; a ledger needs its row locks. Point "
                "META_CAPI_LEDGER at a PostgreSQL database.",
                code="fault.connection",
            )
        return Ledger(_engine("ledger", url), patience=_LEDGER_PATIENCE)

    def _url(self, name: str, conn_ids: set[str]) -> sa.URL:
        option, own = f"--{name}", f"META_CAPI_{name.upper()}"
        given = getattr(self.options, name, None) or self.environ.get(own)
        if given:
            return _parsed(option, given)
        if len(conn_ids) > 1:
            one = "a feed, or " if hasattr(self.options, "feed") else ""
            raise ConfigurationError(
                f"The feeds have several {name} connections "
                f"({', '.join(sorted(conn_ids))}); name {one}the {name} with {option}.",
                code="fault.connection",
            )
        [conn_id] = conn_ids
        if connection := find(conn_id, self.environ):
            return database_url(conn_id, connection)
        raise ConfigurationError(
            f"No {name} is named. Set {own} (as postgresql://user:password@host/database)"
            f", or {variable(conn_id)}.",
            code="fault.connection",
        )

    # --- Meta -----------------------------------------------------------------------

    def dataset_id(self, feed: Feed | None = None) -> str | None:
        """Return the dataset, if one is named."""
        return self._dataset(self._meta(feed)) or None

    def destination(self, feed: Feed) -> Destination:
        """Return where the feed's events go.

        Raises:
            ConfigurationError: with all that is missing or wrong.
        """
        transport = _transport()
        given = self._meta(feed)
        token = self.environ.get("META_CAPI_TOKEN") or given.password
        url = self.options.graph_url or self.environ.get("META_CAPI_GRAPH_URL")
        own = variable(feed.connections.meta)
        faults = []
        if not token:
            faults.append(
                f"No access token: set META_CAPI_TOKEN, or {own}; Events Manager makes "
                "one in the dataset's settings."
            )
        if not (dataset := self._dataset(given)):
            faults.append(f"No dataset: set META_CAPI_DATASET, or {own}.")
        if faults:
            raise ConfigurationError("\n".join(faults), code="fault.connection")
        environment = self._environment(given, url)
        found = transport.of(
            host=url or given.host,
            port=None if url else given.port,
            schema=None if url else given.schema,
            login=dataset,
            password=token,
            extra={**given.extra, "environment": environment},
        )
        if wrong := found.faults():
            raise ConfigurationError("\n".join(wrong), code="fault.connection")
        return found

    def line(self, feed: Feed) -> Line:
        """Return a line to Meta."""
        _transport()
        from capi_airflow.transport import Line

        return Line(self.destination(feed))

    def _meta(self, feed: Feed | None) -> Connection:
        conn_id = (feed.connections if feed else Connections()).meta
        return find(conn_id, self.environ) or Connection(conn_type="meta_capi")

    def _dataset(self, given: Connection) -> str:
        named = self.options.dataset or self.environ.get("META_CAPI_DATASET")
        return str(named or given.login or given.extra.get("dataset_id") or "").strip()

    def _environment(self, given: Connection, url: str | None) -> str:
        """Return what kind of dataset it is; production, unless someone says otherwise.

        An address of this machine says enough: no token leaves it.
        """
        said = self.options.environment or self.environ.get("META_CAPI_ENVIRONMENT")
        said = said or given.extra.get("environment")
        if not said and url and _is_of_this_machine(url):
            said = "local"
        return str(said or "production")


def _is_of_this_machine(url: str) -> bool:
    try:
        return urlsplit(url).hostname in _LOOPBACK
    except ValueError:  # a bracket too many; the destination says so
        return False


def _parsed(option: str, text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        # What SQLAlchemy says quotes the URL, and so the password.
        raise ConfigurationError(
            f"{option} is not a database's URL; write it as "
            "postgresql://user:password@host:5432/database.",
            code="fault.connection",
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    return url


def _engine(name: str, url: sa.URL) -> sa.Engine:
    postgresql = url.get_backend_name() == "postgresql"
    options = {"connect_timeout": _CONNECT_SECONDS} if postgresql else {}
    try:
        return sa.create_engine(
            url, hide_parameters=True, poolclass=NullPool, connect_args=options
        )
    except (sa.exc.ArgumentError, ImportError):
        raise ConfigurationError(
            f"The {name}'s URL begins with {url.drivername}, for which no SQLAlchemy "
            "driver is installed here.",
            code="fault.connection",
        ) from None


def _transport() -> type[Destination]:
    try:
        from capi_airflow.transport import Destination
    except ImportError:
        raise ConfigurationError(
            "This command talks to Meta, and the package capi_airflow is not here; "
            "install meta-capi-airflow, or put plugins/ on PYTHONPATH."
        ) from None
    return Destination
