"""What every task of a feed has in common: its feed, and how it fails."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import stat
import sys
import traceback
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from capi_airflow.forms import refuse_strangers
from capi_airflow.links import RunPageLink
from capi_airflow.stage import Stage
from capi_airflow.story import outcome_table
from meta_capi.dispatch import Tally
from meta_capi.errors import (
    CapiError,
    ConfigurationError,
    FeedError,
    GateError,
    ReconciliationError,
    StoppedError,
)

__all__ = [
    "FeedOperator", "Told", "end_with_supervisor", "tell_rescue", "tell_tally", "told_plainly",
]  # fmt: skip

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1
# Python looks for cycles after every 700 new objects, and now and then through all of
# Airflow. Rows hold none: at 700 the looking took half of reading and an eighth of a
# delivery (measured; 100,000 costs no memory that shows).
_OBJECTS_PER_COLLECTION: Final = 100_000
# Trying again cannot help: a person has to change something first.
_FINAL: Final = (
    ConfigurationError,
    FeedError,
    GateError,
    ReconciliationError,
    StoppedError,
)


class Told(Exception):  # noqa: N818  # the two below are errors
    """Marks what Airflow is told in words that are all our own."""


class FailedError(Told, AirflowException):
    """The task failed, and may be tried again."""


class FinallyFailedError(Told, AirflowFailException):
    """The task failed, and trying again cannot help."""


class FeedOperator(BaseOperator):
    """A task of a feed."""

    ui_color = "#e7f0ff"
    operator_extra_links = (RunPageLink(),)
    template_fields: Sequence[str] = ()

    def __init__(self, *, feed: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.feed = feed

    def execute(self, context: Mapping[str, Any]) -> Any:
        """Run the task's one step; expected faults end in a sentence, not in a traceback."""
        end_with_supervisor()
        gc.set_threshold(_OBJECTS_PER_COLLECTION)
        with told_plainly(self.log):
            refuse_strangers(context["params"], context["dag"].params)
            return self.step(Stage(self.feed, context))

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


def end_with_supervisor() -> None:
    """Let the kernel send this task SIGTERM when its supervisor dies.

    Airflow leaves such a task working beside its own retry (seen on 3.3.2). SIGTERM, for
    what has begun is then ended in order. Where there is no supervisor, as under `airflow
    dags test`, or no such kernel, nothing happens: the ledger's leases hold without it.
    """
    # A task's standard input is the line to its supervisor.
    if sys.platform != "linux" or not stat.S_ISSOCK(os.fstat(0).st_mode):
        return
    supervisor = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor:  # It died a moment ago, and the kernel said nothing.
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def told_plainly(log: Any) -> Iterator[None]:
    """Turn errors into Airflow's, without a cause, and in no words but our own.

    A fault that only a person can mend does not use up retries. Of one that nobody
    foresaw the log has the places: what it says itself may quote a row.
    """
    try:
        yield
    except _FINAL as error:
        log.error("%s", error)
        raise FinallyFailedError(_headline(error)) from None
    except CapiError as error:
        log.error("%s", error)
        raise FailedError(_headline(error)) from None
    except AirflowException:
        raise
    except Exception as error:
        for frame in traceback.extract_tb(error.__traceback__):
            log.error("at %s:%s, in %s", frame.filename, frame.lineno, frame.name)
        raise FailedError(
            f"This is a fault of ours: {type(error).__name__}. Please report it with the "
            "places in the log; what it says itself could quote a row."
        ) from None


def _headline(error: CapiError) -> str:
    lines = str(error).splitlines()
    more = f" (and {len(lines) - 1} more, see the log)" if len(lines) > 1 else ""
    return f"{lines[0] if lines else type(error).__name__}{more}"


def tell_rescue(log: Any, stage: Stage) -> None:
    found = stage.ledger.rescue()
    if found.workers:
        log.warning(
            "Cleared the desks of %d lost worker(s): %s deliveries are pending again, %s in doubt.",
            found.workers, f"{found.pending:,}", f"{found.in_doubt:,}",
        )  # fmt: skip


def tell_tally(log: Any, tally: Tally) -> None:
    log.info(
        "%s rows read; %s accepted now, in %s requests and %.1f MB; %s batches were split.",
        f"{tally.rows:,}", f"{tally.accepted_now:,}", f"{tally.requests:,}",
        tally.bytes_sent / 1e6, f"{tally.splits:,}",
    )  # fmt: skip
    # ru_maxrss is in kilobytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    log.info("Peak memory of this task: %.0f MB.", peak)
    for line in outcome_table(tally.outcomes, tally.rows):
        log.info("%s", line)
