"""The next thing is made while this one is used."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, Self, TypeVar

__all__ = ["Ahead"]

T = TypeVar("T")


class Ahead(Generic[T]):
    """What a generator yields, made by a thread, one ahead of whoever takes it.

    The generator runs and is closed in that thread. What it raises is raised to the
    taker. Who leaves early waits so many seconds for the thing in hand; the thread ends
    with it, or with the process.

    >>> with Ahead(number * number for number in range(3)) as squares:
    ...     list(squares)
    [0, 1, 4]
    """

    def __init__(
        self, things: Generator[T, None, None], *, name: str = "ahead",
        patience: float = 5.0,
    ) -> None:  # fmt: skip
        self._things = things
        self._patience = patience
        self._made: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
        self._wanted = threading.Semaphore()
        self._over = False
        self._thread = threading.Thread(target=self._make, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._wanted.release()
        self._thread.join(self._patience)

    def __iter__(self) -> Iterator[T]:
        while (made := self._made.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            self._wanted.release()
            yield made[0]

    def _make(self) -> None:
        try:
            while self._wanted.acquire() and not self._over:
                self._made.put((next(self._things),))
        except StopIteration:
            self._made.put(None)
        except BaseException as error:
            self._made.put(error)
        finally:
            # Who has left hears of nothing more; a thread's own last words are a traceback.
            with suppress(Exception):
                self._things.close()
