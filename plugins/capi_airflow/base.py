"""What every task of a feed has in common: its feed, its first lines, and how it fails."""

from __future__ import annotations

import resource
import signal
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from airflow.sdk import BaseOperator

from capi_airflow.ending import Log, RetryWhatPasses, told_plainly
from capi_airflow.forms import refuse_strangers
from capi_airflow.links import RunPageLink, catalogue_address
from capi_airflow.pace import Progress
from capi_airflow.process import collect_seldom, end_with_supervisor, keep_one_heap
from capi_airflow.stage import Stage
from capi_airflow.story import labelled, outcome_table, reasons_lines
from meta_capi.errors import ConfigurationError
from meta_capi.source import Interval
from meta_capi.words import ago, moment, number

__all__ = ["FeedOperator", "tell_rescue", "tell_tally"]

_MODES: Final = {
    "send": "send",
    "dry_run": "dry run: every event is built and checked, nothing is sent",
    "test": "test: events go out with a test event code",
}


class FeedOperator(BaseOperator):
    """A task of a feed."""

    ui_color = "#e7f0ff"
    operator_extra_links = (RunPageLink(),)
    template_fields: Sequence[str] = ()

    def __init__(self, *, feed: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.feed = feed
        self.retry_policy = self.retry_policy or RetryWhatPasses()

    def execute(self, context: Mapping[str, Any]) -> Any:
        """Run the task's one step; expected faults end in a sentence, not in a traceback."""
        end_with_supervisor()
        collect_seldom()
        keep_one_heap()
        with told_plainly(self.log, context):
            refuse_strangers(context["params"], context["dag"].params)
            stage = Stage(self.feed, context)
            for line in labelled(self._opening(stage)):
                self.log.info("%s", line)
            return self.step(stage)

    def on_kill(self) -> None:
        """End the task: Airflow's SIGTERM calls this in the main thread, and ends nothing.

        Raises:
            SystemExit: to the task's own code, which gives back what it holds; Airflow
                tries such a task again.
        """
        raise SystemExit(128 + signal.SIGTERM)

    @abstractmethod
    def step(self, stage: Stage) -> Any:
        """Do the task's work."""

    def interval(self, stage: Stage) -> Interval | None:
        """Return the interval that the task works on, if it has one."""
        return None

    def mode(self, stage: Stage) -> str:
        """Say whether the task sends."""
        return _MODES[stage.choices.mode]

    def _opening(self, stage: Stage) -> Iterator[tuple[str, str | None]]:
        """Yield what the log begins with; what cannot be said is left to `preflight`."""
        feed = stage.feed
        yield "Feed", f"{feed.feed}: {feed.description}"
        place = feed.source.table or feed.source.sql
        yield "From", f"{place}, over connection {feed.connections.warehouse}"
        with suppress(ConfigurationError):
            to = stage.hook.destination()
            yield (
                "To",
                f"dataset {to.dataset_id} on {to.graph_version}, {to.environment}",
            )
        with suppress(ConfigurationError):
            if interval := self.interval(stage):
                yield (
                    "Interval",
                    f"rows that became known from {moment(interval.start)} up to "
                    f"{moment(interval.end)} ({ago(interval.end - interval.start)})",
                )
        yield "Mode", self.mode(stage)
        yield "Started", stage.started


def tell_rescue(log: Log, stage: Stage) -> None:
    """Clear the desks of lost workers, and say so."""
    found = stage.ledger.rescue()
    if found.workers:
        log.warning(
            "Cleared the desks of %s: %s deliveries are pending again, %s in doubt. See %s",
            number(found.workers, "lost worker"), f"{found.pending:,}",
            f"{found.in_doubt:,}", catalogue_address("warning.rescued"),
        )  # fmt: skip


def tell_tally(log: Log, progress: Progress, feed: str) -> None:
    """Say what became of the rows, how long it took, and why some were not sent."""
    tally, seconds = progress.tally, progress.seconds
    if not tally.rows:
        log.info("No row was read, so nothing was sent.")
        return
    log.info(
        "%s read in %.1f s, %s rows/s; %s accepted now, in %s and %.1f MB; %s split.",
        number(tally.rows, "row"), seconds, f"{tally.rows / max(seconds, 0.001):,.0f}",
        f"{tally.accepted_now:,}", number(tally.requests, "request"),
        tally.bytes_sent / 1e6, number(tally.splits, "batch", "batches"),
    )  # fmt: skip
    if tally.waits:
        log.info(
            "Meta asked to wait %s, %.0f s in all.",
            number(tally.waits, "time"), tally.wait_seconds,
        )  # fmt: skip
    # ru_maxrss is in kilobytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    log.info("Peak memory of this task: %.0f MB.", peak)
    for line in outcome_table(tally.outcomes, tally.rows):
        log.info("%s", line)
    for line in reasons_lines(tally.reasons, feed):
        log.info("%s", line)
