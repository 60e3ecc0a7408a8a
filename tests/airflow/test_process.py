"""What a task asks of its own process: each claim in a process of its own."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from capi_airflow import process

# Bodies of events are larger than what Python's own allocator serves.
HEAPS = """
import ctypes, sys, threading
from capi_airflow.process import keep_one_heap
if "one" in sys.argv:
    keep_one_heap()
together = threading.Barrier(4)
kept = []
def make():
    together.wait()
    kept.extend(bytes(1200 + n) for n in range(500))
    together.wait()
threads = [threading.Thread(target=make) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
told = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, told)
libc.fclose(told)
"""


@pytest.mark.parametrize("word", ["one", "many"])
def test_threads_of_a_task_share_one_heap(tmp_path: Path, word: str) -> None:
    """And have several where nobody asks for it: so the first half could fail."""
    report = tmp_path / "heaps.xml"
    subprocess.run([sys.executable, "-c", HEAPS, str(report), word], check=True)
    heaps = report.read_text().count("<heap nr=")
    assert (heaps == 1) == (word == "one")


def test_a_task_looks_for_cycles_seldom() -> None:
    before = gc.get_threshold()
    try:
        process.collect_seldom()
        assert gc.get_threshold()[0] > 100 * 700
    finally:
        gc.set_threshold(*before)
