"""The quality gate against one SQL statement that somebody wrote by hand.

The same checks on the same rows in the same database (`bench/sql/gate.sql`): both count
what each check finds, and bring the keys of the rows to quarantine. Great Expectations is
imported before, as in the scheduler; how long that takes is told beside.
"""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from bench.lots import Lot, statement
from bench.parts import Sizes
from bench.party import ROOT, BenchError
from bench.targets import figure
from bench.world import World

__all__ = ["gate"]

_SUITE: Final = ROOT / "include" / "expectations" / "offline_purchases.json"
# The statement's columns in the order of the suite's expectations.
_CHECKS: Final = (
    "key_missing", "key_duplicate", "time_missing", "time_ancient", "time_in_future",
    "value_missing", "value_negative", "currency_unknown", "consent_unknown",
    "email_missing", None, "email_odd",
)  # fmt: skip


def gate(world: World, sizes: Sizes) -> dict[str, Any]:
    """Return the seconds of both, in turns."""
    rows = max(sizes.sizes(1_000_000))
    which = world.lot("dirty", rows)
    job = {"shop": world.postgres.url(world.shop), "lot": which.to_json()}
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "by hand": []}
    for _ in range(sizes.repeat + 1):
        ours = world.lead.ask("judge", **job)
        hand = _by_hand(world.dsn, which)
        _agree(ours, hand)
        runs["ours"].append(_run(ours))
        runs["by hand"].append(_run(hand))
    # The first of each reads the table into memory.
    ratios = [
        mine["seconds"] / theirs["seconds"]
        for mine, theirs in zip(runs["ours"][1:], runs["by hand"][1:], strict=True)
    ]
    return {
        "rows": which.rows,
        "import_seconds": round(world.import_seconds, 2),
        "runs": runs,
        "figures": {"gate.ratio": figure("gate.ratio", median(ratios), ratios)},
    }


def _by_hand(dsn: str, which: Lot) -> dict[str, Any]:
    suite = json.loads(_SUITE.read_text(encoding="utf-8"))["expectations"]
    currencies = next(
        each["kwargs"]["value_set"] for each in suite if "value_set" in each["kwargs"]
    )
    query = statement(
        "gate", lot=sql.Identifier(*which.table.split(".")), currencies=currencies,
        start=which.start, end=which.end,
    )  # fmt: skip
    began = time.perf_counter()
    with psycopg.connect(dsn, row_factory=dict_row) as database:
        found = database.execute(query).fetchone()
    assert found is not None
    seconds = time.perf_counter() - began
    counted = {
        name: len(value or ()) if isinstance(value, list | None) else value
        for name, value in found.items()
    }
    return {**counted, "seconds": seconds}


def _agree(ours: dict[str, Any], hand: dict[str, Any]) -> None:
    """See that both found the same: a quick answer to another question is worth nothing."""
    same = ours["rows"] == hand["rows"] and ours["quarantined"] == hand["quarantined"]
    # A warning that passes its `mostly` is not always counted.
    critical = [
        mine == hand[name]
        for name, mine in zip(_CHECKS, ours["unexpected"], strict=True)
        if name in _CHECKS[:7]
    ]
    if not (same and all(critical)):
        raise BenchError("The gate and the hand-written statement disagree.")


def _run(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "seconds": round(answer["seconds"], 3),
        "quarantined": answer["quarantined"],
    }
