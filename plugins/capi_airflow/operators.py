"""The tasks of a feed's DAG. An operator stores, opens its stage, calls one function of
the core and returns counts: never a row, never a value of one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from airflow.sdk import BaseOperator

from capi_airflow.base import FeedOperator, tell_rescue, tell_tally, told_plainly
from capi_airflow.notify import look_around
from capi_airflow.stage import Stage, home
from capi_airflow.story import (
    dropped_keys_lines,
    merged,
    outcome_table,
    progress,
    reasons_table,
    table,
)
from meta_capi import overview
from meta_capi.alerts import Kind
from meta_capi.dispatch import Tally, deliver, rehearse
from meta_capi.errors import (
    CapiError,
    ConfigurationError,
    FeedError,
    GateError,
    ReconciliationError,
)
from meta_capi.names import key_of
from meta_capi.source import Shard

__all__ = [
    "BrokenFeedOperator", "DeliverOperator", "PlanOperator", "PreflightOperator",
    "ReportOperator", "ValidateOperator",
]  # fmt: skip

_SHOWN_VALIDATIONS: Final = 200


class BrokenFeedOperator(BaseOperator):
    """Stands for a feed whose file is wrong: it fails with every fault of the file."""

    ui_color = "#ffe3e3"

    def __init__(self, *, faults: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.faults = list(faults)

    def execute(self, context: Mapping[str, Any]) -> None:
        """Fail."""
        with told_plainly(self.log):
            raise FeedError(self.faults)


class PreflightOperator(FeedOperator):
    """Look at everything the run needs; fail with one sentence for each fault, at once."""

    def step(self, stage: Stage) -> dict[str, Any]:
        """Check feed, source, ledger schema, dataset, test code and interval."""
        faults: list[str] = []
        for check in (
            lambda: stage.source.faults(),
            lambda: _schema_faults(stage),
            # A dry run opens no line to Meta, not even to ask.
            lambda: [] if stage.choices.dry_run else stage.hook.dataset_faults(),
            lambda: _needs(stage.envelope),
            lambda: _needs(stage.own_interval),
        ):
            faults += _asked(check)
        if faults:
            raise ConfigurationError("\n".join(faults))
        interval = stage.own_interval
        self.log.info("Feed %s: %s", stage.feed.feed, stage.feed.description)
        self.log.info(
            "Rows of %s that became known from %s up to %s; events go to dataset %s on %s.",
            stage.source.name, interval.start, interval.end,
            stage.hook.destination().dataset_id, stage.hook.destination().graph_version,
        )  # fmt: skip
        return {
            "mode": stage.choices.mode,
            "start": str(interval.start),
            "end": str(interval.end),
        }


def _asked(check: Callable[[], list[str]]) -> list[str]:
    try:
        return check()
    except CapiError as error:
        return str(error).splitlines()


def _needs(_: object) -> list[str]:
    """Say nothing of a part that could be made; making it raises what is wrong."""
    return []


def _schema_faults(stage: Stage) -> list[str]:
    missing = stage.ledger.missing_migrations()
    if not missing:
        return []
    return [
        f"The ledger's schema is behind by {len(missing)} step(s): {', '.join(missing)}. "
        "Run `meta-capi migrate`."
    ]


class PlanOperator(FeedOperator):
    """Count the interval in SQL and cut it into shards."""

    def step(self, stage: Stage) -> list[dict[str, Any]]:
        """Return the shards; the counts go beside them."""
        now, interval = datetime.now(UTC), stage.choose_interval()
        counts = asdict(stage.source.count(interval, now=now))
        shards = stage.source.shards(interval, stage.feed.limits.rows_per_shard)
        run = stage.open_run(stage.choices.mode, counts, interval)
        if interval != stage.own_interval:
            self.log.info(
                "Runs are missing before this one. It reads from %s on, instead of from %s.",
                interval.start, stage.own_interval.start,
            )  # fmt: skip
        for line in table(["in the interval", "rows"], list(counts.items())):
            self.log.info("%s", line)
        self.log.info(
            "Cut into %d shard(s); run %d in the ledger.", len(shards), run.run_no
        )
        stage.context["ti"].xcom_push(key="counts", value=counts)
        # An empty interval still has a run to deliver nothing and to report.
        return [shard.to_json() for shard in shards or [Shard()]]


class ValidateOperator(FeedOperator):
    """Run the feed's suite in the warehouse; quarantine rows; stop above the thresholds."""

    def step(self, stage: Stage) -> dict[str, Any]:
        """Return the validation's number and counts."""
        # Great Expectations takes seconds to import, so only this task does it.
        from meta_capi.quality import check, verdict
        from meta_capi.suites import load_suite

        suite = load_suite(
            home() / "expectations" / f"{stage.feed.suite}.json", stage.feed
        )
        run = _run_of(stage)
        number = stage.ledger.open_validation(run, suite.name)
        dry = stage.choices.dry_run

        def record(rows: Any) -> None:
            keyed = ((key_of(row.key), row.reason) for row in rows)
            named = ((key, reason) for key, reason in keyed if key)
            if not dry:
                stage.ledger.quarantine(run, number, named, stage.interval.start)

        result = check(
            stage.source, stage.interval, suite, record_bad_rows=record,
            validation_id=str(number), timer=time.perf_counter,
        )  # fmt: skip
        faults = verdict(result, stage.feed)
        stage.ledger.close_validation(
            number, result=result.to_json(), passed=not faults,
            results=[_row_of(each) for each in result.expectations],
        )  # fmt: skip
        self._tell(result)
        _publish(stage, self.log)
        if faults:
            raise GateError(
                "The quality gate stopped the run; nothing was sent.\n"
                + "\n".join(faults)
            )
        stage.context["ti"].xcom_push(key="validation_id", value=number)
        return {"rows": result.rows, "quarantined": result.quarantined}

    def _tell(self, result: Any) -> None:
        failed = [
            each
            for each in result.expectations
            if each.unexpected or each.status != "passed"
        ]
        self.log.info(
            "Suite %s: %d expectations on %s rows in %.1f s; %s rows go to quarantine.",
            result.suite, len(result.expectations), f"{result.rows:,}", result.seconds,
            f"{result.quarantined:,}",
        )  # fmt: skip
        rows = [(e.type, e.column, e.reason, e.severity, e.unexpected) for e in failed]
        if rows:
            for line in table(
                ["expectation", "column", "reason", "severity", "rows"], rows
            ):
                self.log.info("%s", line)


def _run_of(stage: Stage) -> Any:
    """Return the run that `plan` recorded."""
    return stage.ledger.find_run(stage.run_id)


def _row_of(outcome: Any) -> dict[str, Any]:
    return {
        "expectation": outcome.type,
        "column_name": outcome.column or None,
        "reason": outcome.reason,
        "severity": str(outcome.severity),
        "status": str(outcome.status),
        "failed_rows": outcome.unexpected,
        "share": outcome.share,
    }


def _publish(stage: Stage, log: Any) -> None:
    from meta_capi.data_docs import publish

    folder = Path(os.environ.get("META_CAPI_DATA_DOCS") or home().parent / "data_docs")
    try:
        page = publish(stage.ledger.latest_validations(_SHOWN_VALIDATIONS), folder)
    except OSError as error:
        # The gate's verdict stands in the ledger; a page is a convenience.
        log.warning("Data Docs were not written (%s).", type(error).__name__)
    else:
        log.info("Data Docs: %s", page)


class DeliverOperator(FeedOperator):
    """The CAPI operator: rows → events → batches → Meta → ledger, for one shard.

    Args:
        shard: a range of the source key, from `plan`.
        validation_id: the gate that let the run pass.
    """

    template_fields = ("shard", "validation_id")

    def __init__(
        self,
        *,
        shard: Mapping[str, Any],
        validation_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.validation_id = validation_id

    def step(self, stage: Stage) -> dict[str, Any]:
        """Return the shard's tally."""
        shard = Shard.from_json(self.shard)
        now = datetime.now(UTC)
        slices = (
            rows.columns
            for rows in stage.source.read(
                stage.interval, shard, stage.feed.limits.rows_per_slice
            )
        )
        if stage.choices.dry_run:
            self.log.info("Dry run: events are built and nothing can be sent.")
            tally = rehearse(slices, stage.builder(now), time.time)
        else:
            tally = self._deliver(stage, slices, now, shard.rows)
        tell_tally(self.log, tally)
        return tally.to_json()

    def _deliver(self, stage: Stage, slices: Any, now: datetime, rows: int) -> Tally:
        number = int(self.validation_id) if self.validation_id is not None else None
        tell_rescue(self.log, stage)
        return deliver(
            slices,
            builder=stage.builder(now),
            post=stage.hook.post,
            envelope=stage.envelope,
            desk=stage.desk(_run_of(stage), number),
            limits=stage.feed.limits,
            now=time.time,
            report=progress(self.log, rows),
            limit=stage.choices.limit,
        )


class ReportOperator(FeedOperator):
    """Reconcile: every source row has one outcome, or the task fails.

    Args:
        counts: what `plan` counted.
        tallies: what the shards returned.
    """

    template_fields = ("counts", "tallies")

    def __init__(
        self, *, counts: Mapping[str, Any], tallies: Sequence[Any], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.counts = counts
        self.tallies = tallies

    def step(self, stage: Stage) -> dict[str, Any]:
        """Return the run's outcomes."""
        # The slice asks Airflow once; iterating asks for each shard, and for one too many.
        tallies = [tally for tally in self.tallies[:] if tally]
        outcomes, reasons = merged(tallies, "outcomes"), merged(tallies, "reasons")
        rows = sum(tally["rows"] for tally in tallies)
        settled = sum(outcomes.values())
        planned = int(self.counts["rows"])
        now_there = stage.source.count(stage.interval, now=datetime.now(UTC)).rows
        outcome = {
            "planned": planned,
            "rows": rows,
            "outcomes": outcomes,
            "reasons": reasons,
            "flaws": merged(tallies, "flaws"),
            "requests": sum(tally["requests"] for tally in tallies),
            "accepted_now": sum(tally["accepted_now"] for tally in tallies),
        }
        gap = settled != rows or not min(planned, now_there) <= rows <= max(
            planned, now_there
        )
        stage.remember_mark()
        stage.ledger.close_run(
            _run_of(stage), state="gap" if gap else "reported", outcome=outcome
        )
        overview.count_days(stage.ledger)
        self._tell(stage, outcome)
        if gap:
            raise ReconciliationError(
                f"The outcomes do not add up: {planned:,} rows planned, {now_there:,} in the "
                f"source now, {rows:,} read, {settled:,} with an outcome. Look at the deliver "
                "tasks' logs; running the interval again sends nothing twice."
            )
        if stage.choices.mode == "send":
            look_around(self.log, stage, over=Kind.RUN_FAILED)
        return outcome

    def _tell(self, stage: Stage, outcome: Mapping[str, Any]) -> None:
        self.log.info(
            "%s, %s up to %s:",
            stage.feed.feed,
            stage.interval.start,
            stage.interval.end,
        )
        for line in outcome_table(outcome["outcomes"], outcome["rows"]):
            self.log.info("%s", line)
        for line in reasons_table(outcome["reasons"]):
            self.log.info("%s", line)
        if lines := dropped_keys_lines(outcome["flaws"]):
            self.log.info("Match keys left out of events:")
            for line in lines:
                self.log.info("%s", line)
        if in_doubt := outcome["outcomes"].get("in_doubt"):
            self.log.warning(
                "%s events are in doubt: see `meta-capi status %s`.", f"{in_doubt:,}",
                stage.feed.feed,
            )  # fmt: skip
