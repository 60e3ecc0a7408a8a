"""The next thing is made while this one is used: in order, one ahead, closed at the end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from meta_capi.ahead import Ahead


class Numbers:
    """Counts, and remembers where and how far."""

    def __init__(self, last: int = 1_000_000, fault: Exception | None = None) -> None:
        self.made = 0
        self.thread: threading.Thread | None = None
        self.closed_by: threading.Thread | None = None
        self._last = last
        self._fault = fault

    def all(self) -> Generator[int, None, None]:
        """Yield the numbers."""
        self.thread = threading.current_thread()
        try:
            while self.made < self._last:
                self.made += 1
                yield self.made
            if self._fault:
                raise self._fault
        finally:
            self.closed_by = threading.current_thread()


def test_everything_comes_in_order_from_another_thread() -> None:
    numbers = Numbers(last=500)
    with Ahead(numbers.all()) as ahead:
        assert list(ahead) == list(range(1, 501))
    assert numbers.thread is numbers.closed_by is not threading.current_thread()


def test_the_next_is_made_while_this_one_is_used_and_no_more() -> None:
    numbers = Numbers()
    with Ahead(numbers.all()) as ahead:
        for number in ahead:
            while numbers.made < number + 1:
                """The next is on its way."""
            assert numbers.made == number + 1
            if number == 100:
                break
    assert numbers.made <= 102


def test_what_goes_wrong_is_told_after_what_was_made() -> None:
    numbers = Numbers(last=3, fault=LookupError("no more"))
    taken: list[int] = []
    with Ahead(numbers.all()) as ahead, pytest.raises(LookupError, match="no more"):
        taken.extend(ahead)
    assert taken == [1, 2, 3]
    assert numbers.closed_by is not None


def test_who_leaves_early_closes_what_was_begun() -> None:
    numbers = Numbers()
    with Ahead(numbers.all()) as ahead:
        assert [number for _, number in zip(range(3), ahead, strict=False)] == [1, 2, 3]
    assert numbers.closed_by is numbers.thread
    assert numbers.made <= 4


def test_who_leaves_does_not_wait_for_ever() -> None:
    hangs, began = threading.Event(), threading.Event()

    def never() -> Generator[int, None, None]:
        yield 1
        began.set()
        hangs.wait()

    with Ahead(never(), patience=0.01) as ahead:
        assert next(iter(ahead)) == 1
        assert began.wait(10)
    assert not hangs.is_set()
    hangs.set()


def test_several_makers_work_at_a_time_each_in_a_thread_of_its_own() -> None:
    meet = threading.Barrier(2)
    makers = Numbers(last=50), Numbers(last=50)

    def together(numbers: Numbers) -> Generator[int, None, None]:
        for number in numbers.all():
            meet.wait(10)
            yield number

    with Ahead(*map(together, makers)) as ahead:
        assert Counter(ahead) == dict.fromkeys(range(1, 51), 2)
    assert makers[0].thread is not makers[1].thread


def test_several_takers_get_each_thing_once_and_all_find_the_end() -> None:
    taken: list[int] = []
    with Ahead(Numbers(last=500).all()) as ahead, ThreadPoolExecutor(4) as takers:
        for future in [takers.submit(lambda: taken.extend(ahead)) for _ in range(4)]:
            future.result(10)
    assert sorted(taken) == list(range(1, 501))


def test_what_one_maker_raises_is_told_after_what_the_others_have_in_hand() -> None:
    begun, failed, numbers = threading.Event(), threading.Event(), Numbers()

    def fails() -> Generator[int, None, None]:
        assert begun.wait(10)
        try:
            raise LookupError("no more")
        finally:
            failed.set()
        yield

    def goes_on() -> Generator[int, None, None]:
        begun.set()
        assert failed.wait(10)
        yield from numbers.all()

    taken: list[int] = []
    with (
        Ahead(fails(), goes_on()) as ahead,
        pytest.raises(LookupError, match="no more"),
    ):
        taken.extend(ahead)
    assert taken in ([1], [1, 2]), "what was in hand, and what was begun as it failed"
    assert list(ahead) == []
    assert numbers.closed_by is numbers.thread


def test_of_two_failures_the_first_is_told() -> None:
    begun, first = threading.Event(), threading.Event()

    def cause() -> Generator[int, None, None]:
        assert begun.wait(10)
        try:
            raise LookupError("the cause")
        finally:
            first.set()
        yield

    def consequence() -> Generator[int, None, None]:
        begun.set()
        assert first.wait(10)
        while not ahead._failure:
            """The first has not been written down yet."""
        raise TypeError("a consequence")
        yield

    with Ahead(cause(), consequence()) as ahead, pytest.raises(LookupError):
        list(ahead)


def test_a_taker_who_waits_is_let_go_when_the_owner_leaves() -> None:
    hangs = threading.Event()

    def never() -> Generator[int, None, None]:
        hangs.wait()
        yield 1

    with ThreadPoolExecutor(1) as takers:
        with Ahead(never(), patience=0.01) as ahead:
            taking = takers.submit(list[int], ahead)
        assert taking.result(10) == []
    hangs.set()


def test_a_line_that_cannot_be_closed_is_nobodys_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last_words: list[object] = []
    monkeypatch.setattr(threading, "excepthook", last_words.append)

    def broken() -> Generator[int, None, None]:
        try:
            yield 1
            yield 2
        finally:
            raise OSError("the line is dead")

    with Ahead(broken()) as ahead:
        assert next(iter(ahead)) == 1
    assert last_words == []
