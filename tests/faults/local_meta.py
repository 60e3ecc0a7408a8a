"""The local Graph API as a process of its own, whose clock the harness can move.

`python -m tests.faults.local_meta --port 8085 --record record.jsonl --clock clock`
"""

from __future__ import annotations

import argparse
import mmap
import signal
import struct
import sys
import threading
import time
from pathlib import Path

from graph_simulator import Simulator, Switches

CLOCK = struct.Struct("d")


def main() -> None:
    """Answer until SIGTERM. The clock's file says how many seconds it is ahead."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--clock", type=Path, required=True)
    parser.add_argument("--counts-repeats", action="store_true")
    options = parser.parse_args()
    with options.clock.open("rb") as file:
        ahead = mmap.mmap(file.fileno(), CLOCK.size, prot=mmap.PROT_READ)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with Simulator(
        port=options.port,
        switches=Switches(dedupe_server_server=not options.counts_repeats),
        record=options.record,
        now=lambda: time.time() + CLOCK.unpack_from(ahead)[0],
    ):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        ended.wait()


if __name__ == "__main__":
    main()
