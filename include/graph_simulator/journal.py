"""An append-only file of what arrived, so that the counts survive a restart.

One line of JSON a request, written before the answer. It holds names, ids, times, order
numbers and which match keys an event had; no value of any match key, no token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from graph_simulator.records import Arrival, Receipt, Row


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
        self._append({"reset": True})

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the lines since the last reset, oldest first."""
        lines: list[dict[str, Any]] = []
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                entry = json.loads(line)
                if "reset" in entry:
                    lines.clear()
                else:
                    lines.append(entry)
        yield from lines

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
        self._append(
            {
                "dataset": dataset,
                "at": receipt.at,
                "request": receipt.request,
                "processed": receipt.processed,
                "fault": receipt.fault,
                "code": receipt.code,
                **what,
            }
        )

    def _append(self, entry: dict[str, object]) -> None:
        # One write a line: two processes on one file do not tear each other's lines.
        line = memoryview(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        while line:
            line = line[os.write(self._file, line) :]
