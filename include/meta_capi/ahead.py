"""The next thing is made while this one is used."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, Self, TypeVar

__all__ = ["Ahead"]

T = TypeVar("T")


class Ahead(Generic[T]):
    """What generators yield, made by threads ahead of whoever takes it.

    Each generator runs and is closed in a thread of its own, and as many things as there
    are generators are ahead. Several threads may take; of one generator's things they get
    the earlier first. After what a generator raises the others begin nothing new; it is
    raised, once, when everything made has been taken. Who leaves early waits so many
    seconds, in all, for what is in hand; the threads end with it, or with the process.

    >>> with Ahead(number * number for number in range(3)) as squares:
    ...     list(squares)
    [0, 1, 4]
    """

    def __init__(
        self, *makers: Generator[T, None, None], name: str = "ahead",
        patience: float = 5.0,
    ) -> None:  # fmt: skip
        self._patience = patience
        self._made: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
        self._wanted = threading.Semaphore(len(makers))
        self._over = False
        self._failure: BaseException | None = None
        self._at_work = len(makers)
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._make, args=[maker], name=name, daemon=True)
            for maker in makers
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for thread in self._threads:
            thread.join(self._patience / len(self._threads))

    def stop(self) -> None:
        """Begin nothing more; whoever takes, or waits to, is at the end."""
        self._over = True
        self._wanted.release(len(self._threads))
        self._made.put(None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        made = self._made.get()
        if isinstance(made, tuple) and not self._over:
            self._wanted.release()
            return made[0]
        self._made.put(None)  # whoever else asks finds the end, too
        if isinstance(made, BaseException):
            raise made
        raise StopIteration

    def _make(self, maker: Generator[T, None, None]) -> None:
        try:
            while self._wanted.acquire() and not (self._over or self._failure):
                self._made.put((next(maker),))
        except StopIteration:
            pass
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error
        finally:
            self._wanted.release()  # for the others to find the end
            # Who has left hears of nothing more; a thread's own last words are a traceback.
            with suppress(Exception):
                maker.close()
        with self._lock:
            self._at_work -= 1
            if not self._at_work:
                self._made.put(self._failure)
