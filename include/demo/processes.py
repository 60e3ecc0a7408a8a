"""Long-running programs of the demo: started in their own groups, found again, stopped.

Each leaves a file with its pid and its start time, so that `down` ends exactly what `up`
began, even in another shell, and never a stranger that got the same pid.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]  # types-psutil is not a dependency

__all__ = ["DemoError", "Program", "free_port", "port_is_taken"]

_TERM_SECONDS: Final = 15.0


class DemoError(Exception):
    """The demo cannot go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that runs in the background."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / f"{self.name}.log"

    @property
    def _note(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it in a session of its own, unless it runs already."""
        if self.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        born = psutil.Process(process.pid).create_time()
        self._note.write_text(json.dumps({"pid": process.pid, "born": born}))

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process() is not None

    def stop(self) -> None:
        """End it and everything it started."""
        process = self._process()
        if process is not None:
            # The scheduler's workers leave its group; the tree has them all.
            family = [process, *process.children(recursive=True)]
            for each in family:
                _signal(each, signal.SIGTERM)
            _, alive = psutil.wait_procs(family, timeout=_TERM_SECONDS)
            for each in alive:
                _signal(each, signal.SIGKILL)
            psutil.wait_procs(alive, timeout=_TERM_SECONDS)
        self._note.unlink(missing_ok=True)

    def last_words(self, lines: int = 15) -> str:
        """Return the end of its log."""
        if not self.log.exists():
            return "(no output)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _process(self) -> psutil.Process | None:
        try:
            note = json.loads(self._note.read_text())
            process = psutil.Process(note["pid"])
            same = abs(process.create_time() - note["born"]) < 1
            return (
                process if same and process.status() != psutil.STATUS_ZOMBIE else None
            )
        except (OSError, ValueError, KeyError, psutil.Error):
            return None


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return  # it was faster


def port_is_taken(port: int) -> bool:
    """Tell whether something listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def leftovers(folder: Path) -> list[int]:
    """Return pids of processes that belong to the demo in a folder.

    They have its name in their environment, or write to a file of it: some of Airflow's
    and PostgreSQL's put their title where the environment was.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and _belongs_to(process, folder):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _belongs_to(process: psutil.Process, folder: Path) -> bool:
    if process.environ().get("META_CAPI_DEMO") == str(folder):
        return True
    return any(
        # Who only reads, as `tail` does, is a guest.
        opened.mode != "r" and Path(opened.path).is_relative_to(folder)
        for opened in process.open_files()
    )


def wait_until(
    done: object, what: str, seconds: float, programs: Sequence[Program] = ()
) -> None:
    """Wait for a condition; DemoError with the last words of a program that died."""
    assert callable(done)  # noqa: S101 - a programming mistake, not an input
    end = time.monotonic() + seconds
    while not done():
        for program in programs:
            if not program.running:
                raise DemoError(
                    f"{program.name} ended by itself. Its log, {program.log}, ends with:\n"
                    f"{program.last_words()}"
                )
        if time.monotonic() > end:
            raise DemoError(
                f"{what} took longer than {seconds:.0f} s; see the logs in the demo's folder."
            )
        time.sleep(0.25)
