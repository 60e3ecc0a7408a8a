"""Our product as a party: what the operators of a feed's DAG do, a job for each.

The same functions with the same arguments as in `capi_airflow.operators`; there is no
Airflow around them, and one process does the jobs that Airflow would give to several.
"""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from copy import copy
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine

from bench.jobs import serve
from bench.party import ROOT
from bench.sampler import sampled
from bench.world import DATASET
from capi_airflow.process import collect_seldom, keep_one_heap
from capi_airflow.transport import Destination, Line
from meta_capi.built import Built, Columns
from meta_capi.desk import Desk
from meta_capi.dispatch import deliver
from meta_capi.event import Builder
from meta_capi.feed import Feed, load
from meta_capi.ledger import Ledger
from meta_capi.names import key_of
from meta_capi.payload import Envelope, OwedEvent, cut
from meta_capi.source import Interval, Shard, Source

INCLUDE: Final = ROOT / "include"
# With no more fields than drt-core can send.
LEAN: Final = Path(__file__).parent / "lean_purchases.yaml"
PACKAGES: Final = (
    "apache-airflow", "great-expectations", "psycopg", "requests", "sqlalchemy",
)  # fmt: skip
Job = Mapping[str, Any]


@cache
def _engine(url: str, lines: int) -> Engine:
    return create_engine(
        url,
        hide_parameters=True,
        pool_size=lines,
        max_overflow=0,
        pool_use_lifo=True,
        pool_pre_ping=True,
    )


def _ledger(job: Job) -> Ledger:
    return Ledger(_engine(job["ledger"], 6))


def feed_of(job: Job) -> Feed:
    """Return a feed of the purchases on the job's lot: the shipped one, or the peer's."""
    lean = job.get("lean", False)
    feed = load(LEAN if lean else INCLUDE / "feeds" / "offline_purchases.yaml")
    source = feed.source.model_copy(update={"table": job["lot"]["table"]})
    limits = feed.limits.model_copy(update=job.get("limits", {}))
    return feed.model_copy(update={"source": source, "limits": limits})


def _source(job: Job) -> Source:
    return Source(_engine(job["shop"], 4), feed_of(job), INCLUDE / "feeds")


def _interval(job: Job) -> Interval:
    lot = job["lot"]
    return Interval(
        datetime.fromisoformat(lot["start"]), datetime.fromisoformat(lot["end"])
    )


def _builder(job: Job, digest_key: bytes) -> Builder:
    today = datetime.now(UTC).date()
    return Builder(feed_of(job), dataset_id=DATASET, digest_key=digest_key, today=today)


def _line(job: Job, feed: Feed) -> Line:
    destination = Destination(
        dataset_id=DATASET,
        token=job["token"],
        environment="local",
        base_url=job["graph"],
    )
    return Line(destination, requests_in_flight=feed.limits.requests_in_flight)


def build(job: Job) -> Job:
    """Take rows to the bytes that would be sent; nothing is sent."""
    source, key = _source(job), job["lot"]["table"]
    if key not in _kept:
        size = source.feed.limits.rows_per_slice
        _kept[key] = [
            each.columns for each in source.read(_interval(job), Shard(), size)
        ]
    slices, now, events, size = _kept[key], int(time.time()), 0, 0
    # A builder of a shard starts with nothing learnt.
    builder, envelope, limits = _builder(job, bytes(32)), Envelope(), source.feed.limits
    cpu = time.process_time()
    for columns in slices:
        built = builder.build(columns, now)
        owed = [
            OwedEvent(key, body)
            for key, body in zip(built.source_keys, built.bodies, strict=True)
            if body is not None
        ]
        for some in cut(
            [len(event.body) for event in owed],
            most_events=limits.events_per_request, most_bytes=limits.bytes_per_request,
        ):  # fmt: skip
            size += len(envelope.wrap(owed[some.start : some.stop]))
        events += len(owed)
    cpu = time.process_time() - cpu
    return {"events": events, "build_seconds": cpu, "bytes": size}


_kept: dict[str, list[Columns]] = {}


# --- the tasks of a run -------------------------------------------------------------


def plan(job: Job) -> Job:
    """Count the interval and cut it into shards, as PlanOperator does."""
    source, interval = _source(job), _interval(job)
    counts = asdict(source.count(interval, now=datetime.now(UTC)))
    shards = source.shards(interval, source.feed.limits.rows_per_shard)
    _ledger(job).open_run(
        job["run"], feed=source.feed.feed, dataset_id=DATASET, mode="send",
        interval=(interval.start, interval.end), plan=counts,
    )  # fmt: skip
    return {
        "counts": counts,
        "shards": [each.to_json() for each in shards or [Shard()]],
    }


def import_gate(_: Job) -> Job:
    """Import Great Expectations, as the scheduler has before it forks a task."""
    import great_expectations.validator.validator  # noqa: F401

    import meta_capi.quality  # noqa: F401

    return {}


def import_operators(_: Job) -> Job:
    """Import what a deliver task has in memory: the operators, and Airflow with them."""
    import capi_airflow.operators  # noqa: F401

    gc.collect()
    gc.freeze()
    return {}


def validate(job: Job) -> Job:
    """Run the suite and quarantine rows, as ValidateOperator does."""
    from meta_capi.quality import check, verdict
    from meta_capi.suites import load_suite

    source, interval, ledger = _source(job), _interval(job), _ledger(job)
    suite = load_suite(INCLUDE / "expectations" / "offline_purchases.json", source.feed)
    run = ledger.find_run(job["run"])
    number = ledger.open_validation(run, suite.name)

    def record(rows: Iterable[Any]) -> None:
        keyed = ((key_of(row.key), row.reason) for row in rows)
        named = ((key, reason) for key, reason in keyed if key)
        ledger.quarantine(run, number, named, interval.start)

    result = check(
        source, interval, suite, record_bad_rows=record, validation_id=str(number),
        timer=time.perf_counter,
    )  # fmt: skip
    faults = verdict(result, source.feed)
    ledger.close_validation(
        number, result=result.to_json(), passed=not faults,
        results=[
            {
                "expectation": each.type, "column_name": each.column or None,
                "reason": each.reason, "severity": str(each.severity),
                "status": str(each.status), "failed_rows": each.unexpected,
                "share": each.share,
            }
            for each in result.expectations
        ],
    )  # fmt: skip
    return {"number": number, "rows": result.rows, "quarantined": result.quarantined,
            "faults": faults}  # fmt: skip


def judge(job: Job) -> Job:
    """Run the suite and count the bad rows, writing nothing: the gate by itself."""
    from meta_capi.quality import check
    from meta_capi.suites import load_suite

    source = _source(job)
    suite = load_suite(INCLUDE / "expectations" / "offline_purchases.json", source.feed)

    def count(rows: Iterable[Any]) -> None:
        for _ in rows:
            """They are brought here, as the hand's are; that is all."""

    result = check(
        source, _interval(job), suite, record_bad_rows=count, validation_id="bench",
        timer=time.perf_counter,
    )  # fmt: skip
    return {
        "rows": result.rows,
        "quarantined": result.quarantined,
        "unexpected": [each.unexpected for each in result.expectations],
    }


def deliver_shard(job: Job) -> Job:
    """Deliver one shard, as DeliverOperator does."""
    # Airflow has a process for each: nothing of the shard before is left.
    gc.collect()
    source, ledger = _source(job), _ledger(job)
    feed = source.feed
    shard = Shard.from_json(job["shard"])
    ledger.rescue()
    slices = (
        rows.columns
        for rows in source.read(_interval(job), shard, feed.limits.rows_per_slice)
    )
    stages: dict[str, float] = {}
    with sampled(stages) if job.get("profile") else nullcontext():
        tally = _delivered(
            job, feed, ledger, slices, _builder(job, ledger.digest_key())
        )
    return {**tally, "stages": stages}


def _delivered(
    job: Job, feed: Feed, ledger: Ledger, slices: Iterable[Columns], builder: Any
) -> Job:
    from capi_airflow.stage import resend_policy

    tally = deliver(
        slices,
        builder=builder,
        post=_line(job, feed).post,
        envelope=Envelope(),
        desk=Desk(
            ledger, ledger.find_run(job["run"]), policy=resend_policy(feed),
            host=socket.gethostname()[:64], pid=os.getpid(),
            validation_id=job.get("validation"),
        ),
        limits=feed.limits,
        now=time.time,
        report=lambda _: None,
    )  # fmt: skip
    return tally.to_json()


def pipeline(job: Job) -> Job:
    """Deliver slices that are built already: claiming, sending and settling are left."""
    source, ledger = _source(job), _ledger(job)
    feed, interval = source.feed, _interval(job)
    ledger.open_run(
        job["run"], feed=feed.feed, dataset_id=DATASET, mode="send",
        interval=(interval.start, interval.end), plan={},
    )  # fmt: skip
    builder, now = _builder(job, ledger.digest_key()), int(time.time())
    size = feed.limits.rows_per_slice
    built = [
        builder.build(each.columns, now)
        for each in source.read(interval, Shard(), size)
    ]
    turns = range(job["first"], job["first"] + job["turns"])
    again = [_renamed(each, turn) for turn in turns for each in built]
    began = time.perf_counter()
    tally = _delivered(job, feed, ledger, [{}] * len(again), _Prebuilt(again))
    return {**tally, "deliver_seconds": time.perf_counter() - began}


class _Prebuilt:
    """A builder that has done its work."""

    def __init__(self, built: Iterable[Built]) -> None:
        self._built = iter(built)

    def build(self, columns: Columns, now: int) -> Built:
        """Hand out the next slice."""
        return next(self._built)


def _renamed(built: Built, turn: int) -> Built:
    """Return the slice as other conversions, with bodies of the same size."""
    copied = {each.name: copy(getattr(built, each.name)) for each in fields(Built)}
    copied["source_keys"] = [f"{key}/{turn}" for key in built.source_keys]
    copied["event_ids"] = [
        f"{turn:04x}{name[4:]}" if name else None for name in built.event_ids
    ]
    return Built(**copied)


def report(job: Job) -> Job:
    """Add up and close the run, as ReportOperator does."""
    source, ledger = _source(job), _ledger(job)
    rows = sum(tally["rows"] for tally in job["tallies"])
    settled = sum(sum(tally["outcomes"].values()) for tally in job["tallies"])
    now_there = source.count(_interval(job), now=datetime.now(UTC)).rows
    gap = not rows == settled == now_there == job["counts"]["rows"]
    outcome = {"planned": job["counts"]["rows"], "rows": rows}
    run = ledger.find_run(job["run"])
    ledger.close_run(run, state="gap" if gap else "reported", outcome=outcome)
    return {"rows": rows, "gap": gap}


if __name__ == "__main__":
    collect_seldom()  # these two as every task of ours does
    keep_one_heap()
    serve(
        {
            "plan": plan, "validate": validate, "deliver": deliver_shard,
            "report": report, "build": build, "judge": judge, "pipeline": pipeline,
            "import_gate": import_gate, "import_operators": import_operators,
        },
        PACKAGES,
    )  # fmt: skip
