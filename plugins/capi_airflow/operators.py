"""The tasks of a feed's DAG. An operator stores, opens its stage, calls one function of
the core and returns counts: never a row, never a value of one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from airflow.sdk import BaseOperator

from capi_airflow.base import FeedOperator, tell_rescue, tell_tally
from capi_airflow.ending import RetryWhatPasses, told_plainly
from capi_airflow.gate import ValidateOperator
from capi_airflow.notify import look_around
from capi_airflow.pace import Progress
from capi_airflow.stage import Stage
from capi_airflow.story import (
    dropped_keys_lines,
    merged,
    next_lines,
    outcome_table,
    reasons_lines,
    table,
)
from meta_capi import overview
from meta_capi.alerts import Kind
from meta_capi.built import Columns
from meta_capi.dispatch import deliver, rehearse
from meta_capi.errors import (
    CapiError,
    ConfigurationError,
    FeedError,
    ReconciliationError,
    SchemaError,
    SourceError,
)
from meta_capi.source import Interval, Shard, Slice
from meta_capi.words import moment, number

__all__ = [
    "BrokenFeedOperator", "DeliverOperator", "PlanOperator", "PreflightOperator",
    "ReportOperator", "ValidateOperator",
]  # fmt: skip

_COUNTS: Final = {
    "rows": "all",
    "without_key": "without a key",
    "withheld": "without consent",
    "too_old": "too old for Meta",
    "expires_within_24h": "too old within 24 hours",
    "held_back": "in the holding period",
}


class BrokenFeedOperator(BaseOperator):
    """Stands for a feed whose file is wrong: it fails with every fault of the file."""

    ui_color = "#ffe3e3"

    def __init__(self, *, feed: str, faults: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.feed = feed
        self.faults = list(faults)
        self.retry_policy = self.retry_policy or RetryWhatPasses()

    def execute(self, context: Mapping[str, Any]) -> None:
        """Fail."""
        with told_plainly(self.log, context):
            raise FeedError(self.faults)


class PreflightOperator(FeedOperator):
    """Look at everything the run needs; fail with one sentence for each fault, at once."""

    def interval(self, stage: Stage) -> Interval:
        """Return the run's own."""
        return stage.own_interval

    def step(self, stage: Stage) -> dict[str, Any]:
        """Check feed, source, ledger schema, dataset, test code and interval."""
        faults: list[CapiError] = []
        for check in (
            lambda: list(map(SourceError, stage.source.faults())),
            lambda: _schema_faults(stage),
            lambda: _dataset_faults(stage),
            lambda: _needs(stage.envelope),
            lambda: _needs(stage.own_interval),
        ):
            faults += _asked(check)
        if faults:
            codes = {each.code for each in faults}
            raise ConfigurationError(
                "\n".join(map(str, faults)),
                code=codes.pop() if len(codes) == 1 else None,
            )
        self.log.info(
            "Feed, table, ledger, dataset and interval are as they should be."
        )
        self.log.info("Next: nothing; `plan` counts the rows.")
        interval = stage.own_interval
        return {
            "mode": stage.choices.mode,
            "start": str(interval.start),
            "end": str(interval.end),
        }


def _asked(check: Callable[[], list[CapiError]]) -> list[CapiError]:
    try:
        return check()
    except CapiError as error:
        return [error]


def _needs(_: object) -> list[CapiError]:
    """Say nothing of a part that could be made; making it raises what is wrong."""
    return []


def _schema_faults(stage: Stage) -> list[CapiError]:
    missing = stage.ledger.missing_migrations()
    if not missing:
        return []
    return [
        SchemaError(
            f"The ledger's schema is behind by {len(missing)} step(s): "
            f"{', '.join(missing)}. Run `meta-capi migrate`."
        )
    ]


def _dataset_faults(stage: Stage) -> list[CapiError]:
    # A dry run opens no line to Meta, not even to ask.
    told = [] if stage.choices.dry_run else stage.hook.dataset_faults()
    return [ConfigurationError(each, code="fault.dataset") for each in told]


class PlanOperator(FeedOperator):
    """Count the interval in SQL and cut it into shards."""

    def interval(self, stage: Stage) -> Interval:
        """Return the run's own; what it makes up for is told when it is known."""
        return stage.own_interval

    def step(self, stage: Stage) -> list[dict[str, Any]]:
        """Return the shards; the counts go beside them."""
        now, interval = datetime.now(UTC), stage.choose_interval()
        counts = asdict(stage.source.count(interval, now=now))
        shards = self._shards(stage, interval, counts["rows"])
        run = stage.open_run(stage.choices.mode, counts, interval)
        if interval != stage.own_interval:
            self.log.info(
                "Runs are missing before this one. It reads from %s on, instead of from %s.",
                moment(interval.start), moment(stage.own_interval.start),
            )  # fmt: skip
        rows = [(_COUNTS[name], count) for name, count in counts.items()]
        for line in table(["in the interval", "rows"], rows):
            self.log.info("%s", line)
        self.log.info("The kinds overlap; each row's event decides when it is built.")
        self.log.info(
            "Cut into %s; run %d in the ledger.",
            number(len(shards), "shard"),
            run.run_no,
        )
        self.log.info(
            "Next: nothing; %s",
            "`validate` asks the quality gate." if counts["rows"] else
            "no row became known in this interval, so there is nothing to send.",
        )  # fmt: skip
        stage.context["ti"].xcom_push(key="counts", value=counts)
        # An empty interval still has a run to deliver nothing and to report.
        return [shard.to_json() for shard in shards or [Shard()]]

    def _shards(self, stage: Stage, interval: Interval, rows: int) -> list[Shard]:
        if stage.choices.limit:  # one worker counts what it may still send
            return [Shard(rows=rows)]
        return stage.source.shards(interval, stage.feed.limits.rows_per_shard)


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

    def interval(self, stage: Stage) -> Interval:
        """Return the interval that `plan` chose."""
        return stage.interval

    def step(self, stage: Stage) -> dict[str, Any]:
        """Return the shard's tally."""
        shard = Shard.from_json(self.shard)
        self.log.info(
            "This shard: %s of %s.", number(shard.rows, "row"), stage.source.name
        )
        progress = Progress(self.log, shard.rows)
        now = datetime.now(UTC)
        slices = _columns(
            stage.source.read(stage.interval, shard, stage.feed.limits.rows_per_slice)
        )
        try:
            if stage.choices.dry_run:
                with closing(slices):
                    rehearse(slices, stage.builder(now), time.time, progress)
            else:
                self._deliver(stage, slices, now, progress)
        finally:
            # A run that Meta stopped in the middle has sent what it has sent.
            tell_tally(self.log, progress, stage.feed.feed)
        self.log.info(
            "Next: nothing; `report` adds the shards up, and says what to do."
        )
        return progress.tally.to_json()

    def _deliver(
        self, stage: Stage, slices: Any, now: datetime, progress: Progress
    ) -> None:
        gate = int(self.validation_id) if self.validation_id is not None else None
        tell_rescue(self.log, stage)
        run = stage.ledger.find_run(stage.run_id)
        deliver(
            slices,
            builder=stage.builder(now),
            post=stage.hook.post,
            envelope=stage.envelope,
            desk=stage.desk(run, gate),
            limits=stage.feed.limits,
            now=time.time,
            report=progress,
            limit=stage.room(run),
        )


def _columns(reading: Generator[Slice, None, None]) -> Generator[Columns, None, None]:
    """Hand out rows; whatever ends it, the warehouse is told that nobody reads on."""
    with closing(reading):
        for rows in reading:
            yield rows.columns


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

    def interval(self, stage: Stage) -> Interval:
        """Return the interval that `plan` chose."""
        return stage.interval

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
            stage.ledger.find_run(stage.run_id),
            state="gap" if gap else "reported",
            outcome=outcome,
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
        for line in next_lines(stage.feed.feed, outcomes):
            self.log.info("%s", line)
        return outcome

    def _tell(self, stage: Stage, outcome: Mapping[str, Any]) -> None:
        for line in outcome_table(outcome["outcomes"], outcome["rows"]):
            self.log.info("%s", line)
        for line in reasons_lines(outcome["reasons"], stage.feed.feed):
            self.log.info("%s", line)
        if lines := dropped_keys_lines(outcome["flaws"]):
            self.log.info("Match keys left out of events:")
            for line in lines:
                self.log.info("%s", line)
