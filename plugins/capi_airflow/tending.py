"""The tasks that look after deliveries outside their feed's own runs."""

from __future__ import annotations

import getpass
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

from capi_airflow.base import FeedOperator, tell_rescue, tell_tally
from capi_airflow.ending import Log
from capi_airflow.links import catalogue_address
from capi_airflow.notify import look_around, try_out
from capi_airflow.pace import Progress
from capi_airflow.scores import read_scores
from capi_airflow.stage import Stage
from capi_airflow.story import next_lines, table
from meta_capi import overview
from meta_capi.alerts import Kind
from meta_capi.built import Columns
from meta_capi.dispatch import Tally, deliver
from meta_capi.ledger import Run
from meta_capi.names import joined_key, key_of, split_key
from meta_capi.people import Act
from meta_capi.retention import retain
from meta_capi.source import Interval, Slice
from meta_capi.words import number

__all__ = ["ReplayOperator", "TendOperator"]

_MOST_KEYS: Final = 100_000


class TendOperator(FeedOperator):
    """Rescue, expire, send what is due, and remove what is old, for one feed."""

    def mode(self, stage: Stage) -> str:
        """Say what is sent."""
        return "tend: send what is due, whenever it became known"

    def step(self, stage: Stage) -> dict[str, Any]:
        """Return what was done, in counts."""
        tell_rescue(self.log, stage)
        feed, dataset_id = stage.feed, stage.hook.destination().dataset_id
        oldest = datetime.now(UTC) - feed.longest_window + feed.window.margin
        expired = stage.ledger.expire(feed.feed, dataset_id, oldest)
        stage.ledger.close_doubt(feed.feed, dataset_id, stage.policy)
        keys = stage.ledger.due_keys(
            feed.feed, dataset_id, stage.policy, limit=_MOST_KEYS
        )
        self.log.info(
            "%s expired since the last time; %s due.",
            f"{expired:,}", number(len(keys), "delivery is", "deliveries are"),
        )  # fmt: skip
        steps = next_lines(feed.feed, {})
        done = {"expired": expired, "due": len(keys)}
        if keys:
            run = stage.open_run("tend", {"due": len(keys)})
            tally = send_keys(self.log, stage, run, keys)
            done["accepted"] = tally.accepted_now
            steps = next_lines(feed.feed, tally.outcomes)
        removed = retain(stage.ledger, feed, datetime.now(UTC))
        if any(removed.values()):
            self.log.info(
                "Removed what is older than it is kept: %s deliveries, %s batches.",
                f"{removed['deliveries']:,}", f"{removed['batches']:,}",
            )  # fmt: skip
        stage.remember_mark()
        overview.count_days(stage.ledger)
        look_around(self.log, stage, over=Kind.TENDING_FAILED)
        if stage.context["params"].get("try_alerts"):
            try_out(self.log, stage)
        read_scores(
            self.log, stage, now=bool(stage.context["params"].get("read_scores"))
        )
        for line in steps:
            self.log.info("%s", line)
        return done | {"removed": removed["deliveries"]}


class ReplayOperator(FeedOperator):
    """Put back what the form chooses, and send it. The feed is the form's."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(feed="", **kwargs)

    def execute(self, context: Mapping[str, Any]) -> Any:
        """Run for the feed that the form names."""
        self.feed = str(context["params"]["feed"])
        return super().execute(context)

    def mode(self, stage: Stage) -> str:
        """Say whether anything is changed."""
        if stage.choices.dry_run:
            return "plan only: say what would be put back, change nothing"
        return "replay: put back what the form chooses, and send it"

    def step(self, stage: Stage) -> dict[str, Any]:
        """Return what was put back and sent, in counts."""
        params = stage.context["params"]
        choice = {
            "states": list(params["states"]),
            "reason": params["reason"] or None,
            "keys": params["keys"] or None,
            "start": stage.choices.start,
            "end": stage.choices.end,
        }
        dry = stage.choices.dry_run
        act = None if dry else _act(stage)
        run = stage.open_run("dry_run" if dry else "replay", {})
        found = stage.ledger.count_replay(run, choice)
        rows = [(each["state"], each["reason"], each["deliveries"]) for each in found]
        for line in table(["state", "reason", "deliveries"], rows):
            self.log.info("%s", line)
        total = sum(each["deliveries"] for each in found)
        if not found:
            self.log.info("No delivery is as the form says.")
        if act is None:
            self.log.info(
                "Next: nothing was changed. Trigger it again without *Plan only* and with "
                "*Why* to put %s back.", number(total, "delivery", "deliveries"),
            )  # fmt: skip
            return {"would_replay": total}
        keys = stage.ledger.replay(run, choice, who=act.who, why=act.why)
        tally = send_keys(self.log, stage, run, keys)
        for line in next_lines(stage.feed.feed, tally.outcomes):
            self.log.info("%s", line)
        return {"replayed": len(keys), "accepted": tally.accepted_now}


def _act(stage: Stage) -> Act:
    """Return who has triggered this run, and why."""
    run = stage.context.get("dag_run")
    user = getattr(run, "triggering_user_name", None)
    who = f"airflow:{user}" if user else f"os:{_os_user()}"
    return Act(who[:200], str(stage.context["params"].get("why") or ""))


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "somebody"


def _known_since(stage: Stage, run: Run, keys: Sequence[str]) -> datetime | None:
    """Return from when on rows are worth a second look, by something dearer than a key.

    It is taken once: what was looked for in vain is asked for by its key alone.
    """
    [found] = stage.ledger.run(
        "known_since", feed=run.feed, dataset_id=run.dataset_id, keys=list(keys)
    )
    since: datetime | None = found["since"]
    oldest = datetime.now(UTC) - stage.feed.longest_window
    return max(since, oldest) if since else None


def send_keys(log: Log, stage: Stage, run: Run, keys: Sequence[str]) -> Tally:
    """Read rows again by their keys and deliver them."""
    parts = list(dict.fromkeys(tuple(split_key(key)) for key in keys))
    found: set[str] = set()
    # Its engine is made here: a thread reads, and Airflow is asked by the task's own.
    source, feed = stage.source, stage.feed

    def note(reading: Generator[Slice, None, None]) -> Iterator[Columns]:
        with closing(reading):
            for rows in reading:
                named = [rows.columns[name] for name in feed.source.key]
                found.update(map(key_of, zip(*named, strict=True)))
                yield rows.columns

    def lost() -> list[str]:
        return [key for key in keys if joined_key(split_key(key)) not in found]

    def read() -> Iterator[Columns]:
        yield from note(source.read_keys(parts, feed.limits.rows_per_slice))
        since, now = _known_since(stage, run, lost()), datetime.now(UTC)
        if since and since < now:
            left = [split_key(key) for key in lost()]
            yield from note(
                source.read_padded(
                    left, Interval(since, now), feed.limits.rows_per_slice
                )
            )

    progress = Progress(log, len(parts))
    try:
        tally = deliver(
            read(),
            builder=stage.builder(datetime.now(UTC)),
            post=stage.hook.post,
            envelope=stage.envelope,
            desk=stage.desk(run, None),
            limits=stage.feed.limits,
            now=time.time,
            report=progress,
        )
    finally:
        # What Meta stopped in the middle has sent what it has sent.
        tell_tally(log, progress, stage.feed.feed)
    if gone := lost():
        stage.ledger.run("miss", feed=run.feed, dataset_id=run.dataset_id, keys=gone)
        log.warning(
            "%s no longer in the source. See %s",
            number(len(gone), "row is", "rows are"), catalogue_address("row.missing"),
        )  # fmt: skip
    stage.ledger.close_run(
        run,
        state="reported",
        outcome={
            "outcomes": dict(tally.outcomes),
            "rows": tally.rows,
            "requests": tally.requests,
            "accepted_now": tally.accepted_now,
        },
    )
    return tally
