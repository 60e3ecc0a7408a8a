"""Steps 6 and 7 of docs/your-own-feed.md: the feed becomes a DAG, runs dry, then sends."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from tests.airflow.world import DATASET, World
from tests.docs.own_feed_page import block

from meta_capi.cli import main

FEED, DAG = "store_sales", "send_store_sales"


def test_a_feed_of_ones_own_runs_dry_and_then_sends_ten(
    own_feeds: Path, world: World, monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], str],
) -> None:  # fmt: skip
    def type_(line: str) -> str:
        out, (program, *words) = io.StringIO(), shlex.split(line)
        assert program == "meta-capi"
        environ = {
            "META_CAPI_HOME": str(own_feeds), "META_CAPI_WAREHOUSE": world.dsn,
            "META_CAPI_LEDGER": world.dsn,
        }  # fmt: skip
        main(words, environ=environ, out=out)
        return out.getvalue()

    with psycopg.connect(world.dsn) as connection:
        connection.execute(block("create schema").encode())
    type_(block("meta-capi feed new").strip())
    path = own_feeds / "feeds" / f"{FEED}.yaml"
    assert path.exists()
    path.write_text(block("feed:") + block("connections:"), encoding="utf-8")
    world.connect_database(monkeypatch, "capi_own")

    dry = world.run(DAG, {**world.whole, "dry_run": True})
    assert set(dry.values()) == {"success"}
    assert world.requests == 0
    assert world.states(FEED) == {}
    log = said()
    assert "Next: this was a dry run, and nothing was sent." in log
    assert "Without *Dry run* 19 events would go out" in log
    assert "1 × consent.not_given (withheld)" in log

    assert world.run(DAG, {**world.whole, "limit": 10})["dag"] == "success"
    assert world.states(FEED) == {"accepted": 10, "pending": 9, "withheld": 1}
    waiting = "select distinct reason from capi.deliveries where state = 'pending'"
    assert world.sql(waiting) == [("limit",)]
    assert len(world.sim.received(DATASET)) == 10
    listed = type_(f"meta-capi status {FEED} --list accepted")
    keys = world.sql("select source_key from capi.deliveries where state = 'accepted'")
    assert [key for (key,) in keys if key not in listed] == []
    assert "Meta has it" in type_(f"meta-capi explain {keys[0][0]} --feed {FEED}")
