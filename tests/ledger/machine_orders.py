"""The rows of the state machine: what the warehouse says of them at the moment."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from tests.ledger.conftest import DATASET

from meta_capi import names
from meta_capi.feed import Feed

__all__ = ["PLACES", "Orders", "event_id_of", "key_of", "number_of", "twin_id_of"]

PLACES = range(6)  # in each stands an order: its number is the place's, or 6, 12… more
OLD = 3  # the order in this place expires within a day
TWINS = {4: 5, 5: 4}  # places of two conversions whose rows claim one event id


class Orders:
    """The six orders that runs read; those before them are in the ledger alone."""

    def __init__(self) -> None:
        self.numbers = list(PLACES)
        self.withheld: set[int] = set()
        self.started = datetime.now(UTC)
        self._amounts: dict[int, str] = {}

    def renew(self, finished: set[int]) -> dict[int, int]:
        """Let new orders come in for what is finished; return the new by the old."""
        came = {}
        for place, old in enumerate(self.numbers):
            twin = old - place + TWINS.get(place, place)
            if not finished.isdisjoint({old, twin}):
                came[old] = self.numbers[place] = old + len(PLACES)
        return came

    def cost(self, amount: str) -> None:
        """Change the rows."""
        self._amounts = dict.fromkeys(self.numbers, amount)

    def mend(self) -> None:
        """Make every row sound again."""
        self._amounts.clear()
        self.withheld.clear()

    def columns(self, numbers: Collection[int], feed: Feed) -> dict[str, list[Any]]:
        """Return the rows with these numbers."""
        at = self.started - timedelta(hours=1)
        old = self.started - feed.longest_window + timedelta(hours=24)
        return {
            "order_id": [key_of(n) for n in numbers],
            "loaded_at": [at] * len(numbers),
            "bought_at": [old if is_old(n) else at for n in numbers],
            "event_id": [twin_id_of(n) for n in numbers],
            "email": [f"buyer{n}@shop.example" for n in numbers],
            "amount": [self._amounts.get(n, "12.50") for n in numbers],
            "consent": [n not in self.withheld for n in numbers],
        }


def key_of(number: int) -> str:
    """Return an order's source key."""
    return f"o-{number}"


def number_of(key: str) -> int:
    """Return the number of the order with this key."""
    return int(key.removeprefix("o-"))


def is_old(number: int) -> bool:
    """Whether Meta will soon not take it any more."""
    return number % len(PLACES) == OLD


def twin_id_of(number: int) -> str | None:
    """Return the event id that an order's row names; None where it names none."""
    group, place = divmod(number, len(PLACES))
    return f"twins {group}" if place in TWINS else None


@cache
def event_id_of(number: int) -> str:
    """Return the event id by which Meta knows an order."""
    made = names.event_id(DATASET, "Purchase", key_of(number))
    return twin_id_of(number) or made
