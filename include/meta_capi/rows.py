"""The rows of a slice that are still on their way, column by column.

A rule is a function of one value. A `Memory` asks it once for every value that repeats,
and so the rules of `normalise`, `money` and `privacy` can be written for one value and
still be fast for a million rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from itertools import compress
from typing import Any, Final, Generic, TypeVar

from meta_capi.built import Built, Columns
from meta_capi.lifecycle import State

__all__ = ["Kept", "Memory", "Rows", "Verdict"]

T = TypeVar("T")

Verdict = tuple[State, str]
"""Why a row is held: its state, and the reason's code."""


class Rows:
    """The rows of a slice that nothing holds yet.

    Every list that goes in or comes out has one entry for each of them, in order.
    """

    def __init__(self, columns: Columns, built: Built) -> None:
        self.built = built
        self.places: Sequence[int] = range(len(built))
        """Where in the slice they are."""
        self._columns = columns
        self._is_kept = [True] * len(built)
        self._cut: dict[str, Sequence[object]] = {}

    def __len__(self) -> int:
        return len(self.places)

    def column(self, name: str) -> Sequence[object]:
        """Return a column's values."""
        if name not in self._cut:
            self._cut[name] = self.of(self._columns[name])
        return self._cut[name]

    def of(self, values: Sequence[T]) -> Sequence[T]:
        """Return these rows' entries of a list that has one for every row of the slice."""
        return values if self._is_whole else list(compress(values, self._is_kept))

    def put(self, column: list[T], values: Iterable[T]) -> None:
        """Write these rows' entries of a list that has one for every row of the slice."""
        if self._is_whole:
            column[:] = values
            return
        for place, value in zip(self.places, values, strict=True):
            column[place] = value

    def hold(self, verdicts: Sequence[Verdict | None]) -> Kept:
        """Hold the rows that have a verdict; tell which are kept."""
        if not any(verdicts):
            return Kept(None)
        for place, verdict in compress(
            zip(self.places, verdicts, strict=True), verdicts
        ):
            if verdict is not None:
                self.built.hold(place, *verdict)
                self._is_kept[place] = False
        kept = Kept([verdict is None for verdict in verdicts])
        self.places = kept.of(self.places)
        self._cut.clear()
        return kept

    @property
    def _is_whole(self) -> bool:
        return len(self.places) == len(self.built)


class Kept:
    """Which rows a check has kept."""

    def __init__(self, flags: list[bool] | None) -> None:
        self._flags = flags

    def of(self, values: Sequence[T]) -> Sequence[T]:
        """Return the kept rows' entries of a list made before the check."""
        return values if self._flags is None else list(compress(values, self._flags))


# Equal values of these types are the same value; 1, 1.0 and True are equal, and are not
# the same text.
_ALIKE: Final = frozenset({str, bool, date, type(None)})
_MOST_KNOWN: Final = 50_000
_LONGEST_KNOWN: Final = 64


class Memory(dict[Any, T], Generic[T]):
    """What a rule says of each value. It stays small, whatever comes.

    >>> memory = Memory(repr)
    >>> memory.of(["a", "a", None]), len(memory)
    (["'a'", "'a'", 'None'], 2)
    """

    def __init__(self, rule: Callable[[Any], T]) -> None:
        self._rule = rule

    def __missing__(self, value: Any) -> T:
        said = self._rule(value)
        text = value[0] if type(value) is tuple else value
        if not (isinstance(text, str) and len(text) > _LONGEST_KNOWN):
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[value] = said
        return said

    def of(self, column: Sequence[object]) -> list[T]:
        """Return what the rule says of every value of a column."""
        known = set(map(type, column)) <= _ALIKE
        return list(map(self.__getitem__ if known else self._rule, column))

    def of_pairs(
        self, column: Sequence[object], others: Sequence[str | None]
    ) -> list[T]:
        """Return what the rule says of every value together with another."""
        known = set(map(type, column)) <= _ALIKE
        pairs = zip(column, others, strict=True)
        return list(map(self.__getitem__ if known else self._rule, pairs))
