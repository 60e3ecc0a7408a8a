"""What a task asks of its own process. No Airflow here."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import stat
import sys
from typing import Final

__all__ = ["collect_seldom", "end_with_supervisor", "keep_one_heap"]

# From <linux/prctl.h>, and from glibc's <malloc.h>.
_PR_SET_PDEATHSIG: Final = 1
_M_ARENA_MAX: Final = -8
# Python looks for cycles after every 700 new objects, and now and then through all of
# Airflow. Rows hold none: at 700 the looking took half of reading and an eighth of a
# delivery (measured; 100,000 costs no memory that shows).
_OBJECTS_PER_COLLECTION: Final = 100_000


def collect_seldom() -> None:
    """Let Python look for cycles seldom: rows hold none."""
    gc.set_threshold(_OBJECTS_PER_COLLECTION)


def keep_one_heap() -> None:
    """Let all threads share one heap.

    Rows are made by one thread and let go by another, and glibc would give each thread a
    heap of its own, with holes that the others do not fill: 390 MB after five shards,
    where one heap has 260 (measured; Python's threads take turns, so none waits for it).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def end_with_supervisor() -> None:
    """Let the kernel send this task SIGTERM when its supervisor dies.

    Airflow leaves such a task working beside its own retry (seen on 3.3.2). SIGTERM, for
    what has begun is then ended in order. Where there is no supervisor, as under `airflow
    dags test`, or no such kernel, nothing happens: the ledger's leases hold without it.
    """
    # A task's standard input is the line to its supervisor.
    if sys.platform != "linux" or not stat.S_ISSOCK(os.fstat(0).st_mode):
        return
    supervisor = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor:  # It died a moment ago, and the kernel said nothing.
        os.kill(os.getpid(), signal.SIGTERM)
