"""Where the time of a million goes: each stage of the worker, PostgreSQL, the server.

One run of the whole journey, watched. The worker's stages are CPU time by `sampler`;
PostgreSQL's CPU time of delivering is shared out by how long its statements took. Airflow
is not in it: part `airflow` says what that adds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from bench.journey import journey
from bench.parts import Sizes
from bench.party import BenchError
from bench.sampler import WATCHING
from bench.world import World

__all__ = ["WATCH", "profile"]

# How PostgreSQL must be started; it watches nothing until it is told to.
WATCH: Final = {
    "shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "none",
}  # fmt: skip

# What a statement of ours has in it.
_STATEMENTS: Final = {
    "fetch forward 10000": "reading rows",
    "copy incoming": "claiming: COPY",
    "with taken as": "claiming: recording",
    "with moved as": "settling",
    "moved as (": "settling",
    "insert into capi.attempts": "settling",
}
# Statements of the other tasks; what those cost is known from their laps.
_NOT_DELIVERING: Final = re.compile(r"fetch forward (?!10000)|as count_1|anon_1")


def profile(world: World, sizes: Sizes) -> dict[str, Any]:
    """Return microseconds a row of each stage."""
    (rows, *_) = sizes.sizes(1_000_000)
    which = world.lot("dirty", rows)
    with (
        world.graph_api() as graph,
        world.ledger() as ledger,
        _statements(world) as statements,
    ):
        run = journey(world, which, graph, ledger, workers=sizes.workers, profile=True)
    cpu = run["cpu_seconds"]
    stages = Counter(run.pop("stages"))
    cpu["client"] -= stages.pop(WATCHING)
    stages["other"] += cpu["client"] - stages.total()
    delivering = run["laps"]["deliver"]["cpu_seconds"]["postgres"]
    spent = sum(statements.values())
    postgres = {name: delivering * each / spent for name, each in statements.items()}
    postgres["plan, gate, report"] = cpu["postgres"] - delivering
    return {
        "run": run,
        "us": {
            "worker": _us(stages, rows),
            "PostgreSQL": _us(postgres, rows),
            "server": _us({"the local Graph API": cpu["server"]}, rows),
        },
        "figures": {},
    }  # fmt: skip


def _us(seconds: Mapping[str, float], rows: int) -> dict[str, float]:
    ordered = sorted(seconds.items(), key=lambda each: -each[1])
    return {name: round(each / rows * 1e6, 2) for name, each in ordered}


@contextmanager
def _statements(world: World) -> Iterator[Counter[str]]:
    """Collect how long PostgreSQL worked on statements of each kind."""
    spent: Counter[str] = Counter()
    with psycopg.connect(world.postgres.dsn("postgres"), autocommit=True) as connection:
        connection.execute("create extension if not exists pg_stat_statements")
        _track(connection, "top")
        connection.execute("select pg_stat_statements_reset()")
        try:
            yield spent
            found = connection.execute(
                "select lower(query), total_exec_time from pg_stat_statements"
            ).fetchall()
        finally:
            _track(connection, "none")
    for query, milliseconds in found:
        text = " ".join(query.split())
        if not _NOT_DELIVERING.search(text):
            kind = next((k for part, k in _STATEMENTS.items() if part in text), "other")
            spent[kind] += milliseconds
    if not spent:
        raise BenchError("PostgreSQL has counted no statement.")


def _track(connection: psycopg.Connection[Any], what: str) -> None:
    """Tell sessions to come what to watch; a role's word goes before the server's."""
    connection.execute(
        f"alter role current_user set pg_stat_statements.track = '{what}'"
    )
