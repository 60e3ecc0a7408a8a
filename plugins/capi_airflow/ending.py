"""How a task ends that cannot go on: in sentences, with their entry of the catalogue."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol

from airflow.sdk import Context
from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowException, AirflowTaskTimeout

from capi_airflow.links import catalogue_address
from meta_capi.catalogue import reason
from meta_capi.errors import (
    CapiError,
    ConfigurationError,
    FeedError,
    GateError,
    ReconciliationError,
    StoppedError,
)
from meta_capi.words import ago

__all__ = ["FinalFault", "Log", "RetryWhatPasses", "TaskEnded", "told_plainly"]

# Trying again cannot help: a person has to change something first.
_FINAL: Final = (
    ConfigurationError,
    FeedError,
    GateError,
    ReconciliationError,
    StoppedError,
)


class Log(Protocol):
    """The part of a logger that stories are told to."""

    def info(self, message: str, *values: object) -> object:
        """Write a line."""

    def warning(self, message: str, *values: object) -> object:
        """Write a line that a person should read."""

    def error(self, message: str, *values: object) -> object:
        """Write a line that a person has to read."""


class TaskEnded(SystemExit):
    """A task that ends with a fault; what it says stands in its log already.

    Airflow (3.3, `task_runner.py`) writes the traceback of every exception into the
    task's log but of SystemExit, which it takes for a failure all the same: it tries
    again, calls callbacks, and hands them this.
    """

    def __init__(self, headline: str, entry: str) -> None:
        super().__init__(headline)
        self.code = 1
        self.entry = entry
        """The catalogue's code."""


class FinalFault(TaskEnded):
    """Trying again cannot help; as with AirflowFailException, it is not tried again."""


class RetryWhatPasses(RetryPolicy):
    """Airflow's own retries, but for what only a person can mend."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Fail at once with a final fault; leave all else to the task's `retries`."""
        if isinstance(exception, FinalFault):
            return RetryDecision.fail("Trying again cannot help before that is mended.")
        return RetryDecision.default()


@contextmanager
def told_plainly(log: Log, context: Mapping[str, Any] | None = None) -> Iterator[None]:
    """End with faults of ours in sentences, and of others in no words but our own.

    Of a fault that nobody foresaw the log has the places: what it says itself may quote
    a row.

    Raises:
        TaskEnded: without a cause, and so without anything that could quote a row.
    """
    try:
        yield
    except CapiError as error:
        raise _told(log, error, context) from None
    except AirflowTaskTimeout:
        # By now the step has left its desk, as for any other signal.
        raise _told(log, _out_of_time(context), context) from None
    except AirflowException:
        raise
    except Exception as error:
        for frame in traceback.extract_tb(error.__traceback__):
            log.error("at %s:%s, in %s", frame.filename, frame.lineno, frame.name)
        headline = (
            f"This is a fault of ours: {type(error).__name__}. Please report it with the "
            "places in the log; what it says itself could quote a row."
        )
        log.error("%s", headline)
        log.error("See %s%s", catalogue_address(CapiError.code), _tries(context))
        raise TaskEnded(headline, CapiError.code) from None


def _told(log: Log, error: CapiError, context: Mapping[str, Any] | None) -> TaskEnded:
    """Tell a fault with its entry of the catalogue; return how the task ends with it."""
    final = isinstance(error, _FINAL)
    for line in str(error).splitlines():
        log.error("%s", line)
    entry = reason(error.code)
    log.error("%s: %s", entry.code, entry.meaning)
    log.error("See %s", catalogue_address(entry.code))
    log.error("Next: %s%s", entry.action, "" if final else _tries(context))
    kind = FinalFault if final else TaskEnded
    return kind(_headline(error), error.code)


def _out_of_time(context: Mapping[str, Any] | None) -> CapiError:
    limit = getattr((context or {}).get("task"), "execution_timeout", None)
    most = f" of {ago(limit)}" if limit else ""
    return CapiError(
        f"The task was not done within its execution_timeout{most}, so Airflow ended it.",
        code="fault.time_out",
    )


def _headline(error: CapiError) -> str:
    lines = str(error).splitlines()
    more = f" (and {len(lines) - 1} more, see the log)" if len(lines) > 1 else ""
    return f"{lines[0] if lines else type(error).__name__}{more}"


def _tries(context: Mapping[str, Any] | None) -> str:
    """Say which try this was, where Airflow tells."""
    task = (context or {}).get("ti")
    number, most = getattr(task, "try_number", None), getattr(task, "max_tries", None)
    if number is None or most is None:
        return ""
    return f" This was try {number} of {most + 1}."
