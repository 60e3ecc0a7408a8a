"""An append-only file of what arrived, so that the counts survive a restart.

One line of JSON a request, written before the answer. It holds names, ids, times, order
numbers and which match keys an event had; no value of any match key, no token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from graph_simulator.records import Arrival, Receipt, Row

_RESET: Final = b'{"reset":true}\n'


class Journal:
    """The file. A line that a crash cut short is the last one, and is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mend()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write_rows(
        self, dataset: str, rows: Sequence[Row], receipt: Receipt, agent: str
    ) -> None:
        """Append the events of a request that Meta took."""
        # Without the fingerprint: it is made of match keys.
        self._write(dataset, receipt, rows=[row[:-1] for row in rows], agent=agent)

    def write_arrivals(
        self, dataset: str, arrivals: Sequence[Arrival], receipt: Receipt
    ) -> None:
        """Append the events of a request that was refused or lost."""
        self._write(dataset, receipt, arrivals=arrivals)

    def write_reset(self) -> None:
        """Append that everything before was forgotten."""
        self._append(_RESET)

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the lines since the last reset, oldest first."""
        with self._path.open("rb") as file:
            resets = (n for n, line in enumerate(file) if line == _RESET)
            last_reset = max(resets, default=-1)
            file.seek(0)
            for line in islice(file, last_reset + 1, None):
                yield json.loads(line)

    def close(self) -> None:
        """Close the file; nothing is buffered."""
        os.close(self._file)

    def _mend(self) -> None:
        """Cut off a half-written last line."""
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)

    def _write(self, dataset: str, receipt: Receipt, **what: object) -> None:
        entry = {
            "dataset": dataset,
            "at": receipt.at,
            "request": receipt.request,
            "processed": receipt.processed,
            "fault": receipt.fault,
            "code": receipt.code,
            **what,
        }
        try:
            line = msgspec.json.encode(entry)
        except UnicodeEncodeError:  # half a surrogate pair, which only ASCII can name
            line = json.dumps(entry, separators=(",", ":")).encode()
        self._append(line + b"\n")

    def _append(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            left = left[os.write(self._file, left) :]
