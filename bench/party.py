"""A party of the benchmark: a process that does jobs, and what its CPU time was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil  # type: ignore[import-untyped]  # types-psutil is not a dependency

__all__ = ["ROOT", "BenchError", "Party", "cpu_seconds", "environment"]

ROOT: Final = Path(__file__).resolve().parent.parent
OURS: Final = (sys.executable, "-m", "bench.ours")


class BenchError(Exception):
    """The benchmark cannot go on; the message says why."""


class Party:
    """A process that answers jobs in the order in which they are asked.

    It starts at once, and gets ready while its maker does other things.

    Args:
        command: a program that calls `bench.jobs.serve`.
        log: where its own words go.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as words:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment(), text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=words,
            )  # fmt: skip

    @cached_property
    def packages(self) -> dict[str, str]:
        """What it works with; known when it is ready."""
        versions: dict[str, str] = self._answer()["ready"]
        return versions

    def wait(self) -> None:
        """Return when it is ready."""
        _ = self.packages

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def ask(self, kind: str, **job: Any) -> dict[str, Any]:
        """Give it a job; return the answer.

        Raises:
            BenchError: the job failed, or the process ended.
        """
        self.wait()
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"kind": kind, **job}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise BenchError(f"{kind}: {answer['error']}")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"A party ended by itself; see {self._log}.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, its children, and those that it has reaped."""
    process = psutil.Process(pid)
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue  # its parent has it in children_user from now on
        total += times.user + times.system + times.children_user + times.children_system
    return total


def environment() -> Mapping[str, str]:
    """Return the environment without another Python's and another Airflow's settings."""
    foreign = ("AIRFLOW", "_AIRFLOW", "PYTHON", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return kept | {
        # This checkout's code, whichever one is installed.
        "PYTHONPATH": os.pathsep.join(
            str(ROOT / each) for each in ("include", "plugins")
        ),
        "AIRFLOW_HOME": str(ROOT / ".bench" / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "GX_ANALYTICS_ENABLED": "False",
        "TZ": "UTC",
    }
