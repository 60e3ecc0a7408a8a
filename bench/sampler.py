"""Where a process spends its CPU: its threads' stacks, weighed by their CPU time.

Forty times a second each thread's CPU time since the last look goes to the innermost
function on its stack that belongs to a stage. What runs in C counts for its caller; what
the looking itself takes is told apart.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["WATCHING", "sampled", "weigh"]

_SECONDS: Final = 0.025
WATCHING: Final = "the sampler itself"
_SENDERS: Final = "capi-send"
# A module's name, or a function's in it. The innermost on a stack decides.
_STAGES: Final = {
    "source": "reading rows",
    "match_keys.digested": "hashing",
    "match_keys.digest": "hashing",
    "event.Builder._fingerprint": "hashing",
    "event.Builder._assemble": "writing JSON",
    "user_data": "match keys",
    "custom_data": "amounts and items",
    "event": "keys, times, ids",
    "incoming": "claiming: the text for COPY",
    "claiming": "claiming: the rest",
    "desk": "claiming: the rest",
    "ledger": "claiming: the rest",
    "transport": "HTTP",
    "sending": "sending, beside HTTP",
}
_OF_SENDERS: Final = {"claiming: the rest": "settling"}


@contextmanager
def sampled(stages: dict[str, float]) -> Iterator[None]:
    """Add the CPU seconds of each stage to `stages`."""
    done = threading.Event()
    sampler = threading.Thread(target=_sample, args=[stages, done], daemon=True)
    sampler.start()
    try:
        yield
    finally:
        done.set()
        sampler.join()


def weigh(
    stages: dict[str, float],
    before: dict[int, int],
    seen: Iterable[tuple[int, str, int, FrameType]],
) -> None:
    """Give what each thread spent since the look before to the stage it is in now.

    `seen` holds a thread's number, its name, its CPU nanoseconds so far and its stack.
    """
    for number, name, now, frame in seen:
        spent, before[number] = now - before.get(number, 0), now
        stage = _stage(frame)
        if name.startswith(_SENDERS):
            stage = _OF_SENDERS.get(stage, stage)
        stages[stage] = stages.get(stage, 0.0) + spent / 1e9


def _sample(stages: dict[str, float], done: threading.Event) -> None:
    before = {each.native_id or 0: _cpu(each) for each in threading.enumerate()}
    while not done.wait(_SECONDS):
        frames = sys._current_frames()
        seen = [
            (each.native_id or 0, each.name, _cpu(each), frames[each.ident])
            for each in threading.enumerate()
            if each is not threading.current_thread() and each.ident in frames
        ]
        weigh(stages, before, seen)
    stages[WATCHING] = time.thread_time()


def _stage(frame: FrameType | None) -> str:
    while frame is not None:
        code = frame.f_code
        folder, _, module = code.co_filename.removesuffix(".py").rpartition("/")
        if folder.endswith(("/meta_capi", "/capi_airflow")):
            for name in (f"{module}.{code.co_qualname}", module):
                if name in _STAGES:
                    return _STAGES[name]
        frame = frame.f_back
    return "other"


def _cpu(thread: threading.Thread) -> int:
    """Return a thread's CPU nanoseconds so far."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/schedstat", "rb") as told:
            return int(told.read().split()[0])
    except OSError:  # it has ended
        return 0
