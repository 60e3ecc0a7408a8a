"""The rows of a slice that are still on their way, column by column.

A rule is a function of one value. `each` asks it once for every value that repeats, and
so the rules of `normalise`, `money` and `moments` can be written for one value and still
be fast for a million rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from itertools import compress
from typing import Any, Final, TypeVar

from meta_capi.built import Built, Columns
from meta_capi.lifecycle import State

__all__ = ["Kept", "Rows", "Verdict", "each", "each_pair"]

T = TypeVar("T")

Verdict = tuple[State, str]
"""Why a row is held: its state, and the reason's code."""

# Equal values of these types are the same value; 1, 1.0 and True are equal, and are not
# the same text.
_ALIKE: Final = frozenset({str, bool, date, type(None)})
_MOST_KNOWN: Final = 100_000
_LONGEST_KNOWN: Final = 200


class Rows:
    """The rows of a slice that nothing holds yet.

    Every list that goes in or comes out has one entry for each of them, in order.
    """

    def __init__(self, columns: Columns, built: Built) -> None:
        self.built = built
        self.places: Sequence[int] = range(len(built))
        """Where in the slice they are."""
        self._columns = columns
        self._cut: dict[str, list[object]] = {}

    def __len__(self) -> int:
        return len(self.places)

    def column(self, name: str) -> Sequence[object]:
        """Return a column's values."""
        if len(self.places) == len(self.built):
            return self._columns[name]
        if name not in self._cut:
            self._cut[name] = self.of(self._columns[name])
        return self._cut[name]

    def of(self, values: Sequence[T]) -> list[T]:
        """Return these rows' entries of a list that has one for every row of the slice."""
        return [values[place] for place in self.places]

    def hold(self, verdicts: Sequence[Verdict | None]) -> Kept:
        """Hold the rows that have a verdict; tell which are kept."""
        if not any(verdicts):
            return Kept(None)
        flags = [verdict is None for verdict in verdicts]
        for place, verdict in zip(self.places, verdicts, strict=True):
            if verdict is not None:
                self.built.hold(place, *verdict)
        self.places = list(compress(self.places, flags))
        self._cut.clear()
        return Kept(flags)


class Kept:
    """Which rows a check has kept."""

    def __init__(self, flags: list[bool] | None) -> None:
        self._flags = flags

    def of(self, values: list[T]) -> list[T]:
        """Return the kept rows' entries of a list made before the check."""
        return values if self._flags is None else list(compress(values, self._flags))


def each(
    column: Sequence[object], rule: Callable[[Any], T], known: dict[Any, T]
) -> list[T]:
    """Return what the rule says of every value, asking it once for each.

    What it said is kept in `known`, which stays small, whatever comes.

    >>> known: dict[object, str] = {}
    >>> each(["a", "a", None], repr, known), len(known)
    (["'a'", "'a'", 'None'], 2)
    """
    if not set(map(type, column)) <= _ALIKE:
        return [rule(value) for value in column]
    said = {
        value: known[value] if value in known else rule(value) for value in set(column)
    }
    _remember(said, known)
    return [said[value] for value in column]


def each_pair(
    column: Sequence[object],
    others: Sequence[str | None],
    rule: Callable[[Any, str | None], T],
    known: dict[Any, T],
) -> list[T]:
    """Return what the rule says of every value together with another, as `each` does."""
    if not set(map(type, column)) <= _ALIKE:
        return list(map(rule, column, others))
    pairs = list(zip(column, others, strict=True))
    said = {pair: known[pair] if pair in known else rule(*pair) for pair in set(pairs)}
    _remember(said, known)
    return [said[pair] for pair in pairs]


def _remember(said: dict[Any, T], known: dict[Any, T]) -> None:
    if len(said) + len(known) > _MOST_KNOWN:
        known.clear()
    if len(said) <= _MOST_KNOWN:
        known.update(
            (value, answer)
            for value, answer in said.items()
            if not (isinstance(value, str) and len(value) > _LONGEST_KNOWN)
        )
