"""What the page reads: the feeds' files, and the ledgers behind their connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from sqlalchemy import Engine

from capi_airflow.stage import all_feeds, broken_feeds, engine_of
from meta_capi import overview
from meta_capi.errors import CapiError
from meta_capi.feed import Feed
from meta_capi.feed.parts import Connections
from meta_capi.ledger import Ledger

__all__ = ["House", "Ledgers"]

_PATIENCE: Final = 2.0  # seconds; a person waits


class Ledgers:
    """The ledgers by their connections, opened once, and again when one changes."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Engine, Ledger]] = {}

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
        return all_feeds()

    @cached_property
    def broken(self) -> dict[str, list[str]]:
        """The faults of the feed files that are wrong."""
        return broken_feeds()

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
