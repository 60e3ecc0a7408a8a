"""Parse DAG files as the DAG processor does: in a process that has Airflow, not ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

# The processor imports what it can before it forks (parsing_pre_import_modules).
import airflow.sdk  # noqa: F401
from airflow.dag_processing.dagbag import DagBag

from bench.jobs import serve
from bench.party import BenchError


def parse(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parse each file, in the given order; the first pays for what they all import."""
    seconds = {}
    for path in job["files"]:
        began = time.perf_counter()
        bag = DagBag(path)
        seconds[path.rpartition("/")[2]] = round(time.perf_counter() - began, 3)
        if bag.import_errors or not bag.dags:
            raise BenchError(f"{path} has no DAG.")
    return {"files": seconds}


if __name__ == "__main__":
    serve({"parse": parse}, ("apache-airflow",))
