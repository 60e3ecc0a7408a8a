"""What the page reads: the feeds' files, and the ledgers behind their connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from sqlalchemy import Engine

from capi_airflow.feed_files import all_feeds, broken_feeds, home
from capi_airflow.stage import engine_of
from meta_capi import overview
from meta_capi.errors import CapiError
from meta_capi.feed import Feed
from meta_capi.feed.parts import Connections
from meta_capi.ledger import Ledger

__all__ = ["House", "Ledgers"]

_PATIENCE: Final = 2.0  # seconds; a person waits


class Ledgers:
    """What outlives a request: ledgers by their connections, and the feeds' files.

    Each is opened once, and again when it changes.
    """

    def __init__(self) -> None:
        self._open: dict[str, tuple[Engine, Ledger]] = {}
        self._edition: object = None
        self._feeds: dict[str, Feed] = {}
        self._broken: dict[str, list[str]] = {}

    def feeds(self) -> tuple[dict[str, Feed], dict[str, list[str]]]:
        """Return the feeds whose files are right, and the faults of the others."""
        files = sorted((home() / "feeds").iterdir())
        edition = [(path, path.stat().st_mtime_ns) for path in files]
        if edition != self._edition:
            self._feeds, self._broken = all_feeds(), broken_feeds()
            self._edition = edition
        return self._feeds, self._broken

    def of(self, conn_id: str) -> Ledger:
        """Return the ledger behind an Airflow connection."""
        engine = engine_of(conn_id)
        known = self._open.get(conn_id)
        if known and known[0].url == engine.url:
            return known[1]
        ledger = Ledger(engine, patience=_PATIENCE)
        self._open[conn_id] = engine, ledger
        return ledger


@dataclass
class House:
    """One request's view of the feeds and their ledgers."""

    ledgers: Ledgers
    troubles: list[str] = field(default_factory=list)
    """Ledgers that did not answer, each with a sentence."""

    @cached_property
    def feeds(self) -> dict[str, Feed]:
        """The feeds whose files are right."""
        return self.ledgers.feeds()[0]

    @cached_property
    def broken(self) -> dict[str, list[str]]:
        """The faults of the feed files that are wrong."""
        return self.ledgers.feeds()[1]

    @cached_property
    def names(self) -> list[str]:
        """The feeds of the files, and those that only the ledger still knows."""
        known = {*self.feeds, *self.broken}
        for conn_id in {feed.connections.ledger for feed in self.feeds.values()} or {
            Connections().ledger
        }:
            try:
                known.update(overview.known_feeds(self.ledgers.of(conn_id)))
            except CapiError as error:
                self.troubles.append(str(error))
        return sorted(known)

    def dag_id(self, feed: str) -> str:
        """Return the DAG of a feed, whether or not its file is still there."""
        return self.feeds[feed].dag_id if feed in self.feeds else f"send_{feed}"

    def ledger(self, feed: str) -> Ledger:
        """Return the feed's ledger."""
        known = self.feeds.get(feed)
        return self.ledgers.of((known.connections if known else Connections()).ledger)
