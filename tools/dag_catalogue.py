"""The catalogue of DAGs, from the DAG folder as Airflow reads it.

A program of its own: it prints the page, in a process with a throwaway Airflow home.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import groupby

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, CronDataIntervalTimetable

_INTRO = """\
# DAGs

Generated from `dags/` by `make docs`. Schedules are in UTC."""


def page(dags: Iterable[DAG]) -> Iterator[str]:
    """Yield the page's lines: a section for each file of the folder."""
    yield _INTRO
    ordered = sorted(dags, key=lambda dag: (dag.fileloc, dag.dag_id))
    for file, group in groupby(ordered, key=lambda dag: dag.fileloc):
        members = list(group)
        manual = str(members[0].doc_md).partition("**This feed:**")[0]
        yield from ("", f"{manual.strip().removeprefix('#')}", "")
        yield from (f"`dags/{file.rpartition('/')[2]}`", "")
        yield from _table(("DAG", "schedule", "owner", "what"), map(_row, members))
        yield from ("", f"Tasks: {_tasks(members[0])}.")
        if members[0].params:
            yield from ("", *_form(members[0]))


def _row(dag: DAG) -> tuple[str, ...]:
    owners = sorted({task.owner for task in dag.tasks})
    return (f"`{dag.dag_id}`", _schedule(dag), ", ".join(owners), str(dag.description))


def _schedule(dag: DAG) -> str:
    match dag.schedule:
        case None:
            return "by hand"
        case CronDataIntervalTimetable() as cron:
            return f"`{cron.expression}`"
        case timedelta() as every:
            return f"every {int(every.total_seconds()) // 60} minutes"
    return str(dag.schedule)


def _tasks(dag: DAG) -> str:
    steps = list(dag.topological_sort())
    chained = any(step.upstream_task_ids for step in steps)
    names = [
        f"`{step.task_id}`" + (" (one per shard)" if step.is_mapped else "")
        for step in steps
    ]
    return (" → " if chained else ", ").join(names)


def _form(dag: DAG) -> Iterator[str]:
    yield from ("The form of a run by hand:", "")
    rows = []
    for name in dag.params:
        param = dag.params.get_param(name)
        rows.append((
            f"`{name}`", str(param.schema["title"]), _shown(param.value),
            param.description or "",
        ))  # fmt: skip
    yield from _table(("name", "field", "default", "meaning"), rows)


def _shown(value: object) -> str:
    return "" if value is None else f"`{json.dumps(value)}`"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "| " + " | ".join("---" for _ in heads) + " |"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def main() -> None:
    """Print the page of the folder named on the command line."""
    bag = DagBag(sys.argv[1])
    if bag.import_errors:
        sys.exit("\n".join(bag.import_errors.values()))
    print("\n".join(page(bag.dags.values())))


if __name__ == "__main__":
    main()
