"""Jobs for a process of its own: a line of JSON in, a line of JSON out.

The product and its peers have different packages, so each party works in a process that
has imported all it needs before it says that it is ready. Only the standard library is
used here: the peers' environments have nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Handler", "serve"]

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def serve(handlers: Mapping[str, Handler], packages: tuple[str, ...] = ()) -> None:
    """Do jobs until the input ends; each answer says what it cost.

    A job that raises is answered with the error's class and words: all rows are a
    sample's, so nothing in them is anybody's.
    """
    # What a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _tell(answers, {"ready": {name: _version(name) for name in packages}})
    for line in sys.stdin:
        job = json.loads(line)
        _reset_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            answer = dict(handlers[job["kind"]](job))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {str(error)[:1_000]}"}
        answer |= {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mb": _peak_mb(),
        }
        _tell(answers, answer)


def _tell(answers: Any, answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer, default=str) + "\n")
    answers.flush()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _reset_peak() -> None:
    # proc(5): 5 sets VmHWM back to the resident size of now.
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return round(int(line.split()[1]) / 1_024, 1)
