"""What a figure was measured on: the machine, how busy it was, and the code."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.party import ROOT

__all__ = ["machine", "moment"]


def machine() -> dict[str, Any]:
    """Return what does not change while the benchmark runs."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((f.split(":")[1].strip() for f in facts if f[:10] == "model name"), "")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 2**30),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
    }


def moment() -> dict[str, Any]:
    """Return what does: the time, the load, the commit, and how long a digest takes.

    The digest of a short text is the yardstick between a quiet machine and a busy one.
    """
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load": [round(each, 2) for each in os.getloadavg()],
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed": bool(
            _git("status", "--porcelain", "--", "include", "plugins", "dags")
        ),
        "digest_us": round(_digest(), 3),
    }


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _digest() -> float:
    texts = [f"person{number}@shop.example" for number in range(20_000)]
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for text in texts:
            hashlib.sha256(text.encode()).hexdigest()
        best = min(best, time.process_time() - began)
    return best / len(texts) * 1e6
