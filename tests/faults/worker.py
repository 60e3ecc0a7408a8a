"""Workers: each a real process that runs one task of ours, and can be killed.

The process that imports this module is the zygote: it has everything imported, no
thread and no open connection, so that a fork of it is a fresh worker in milliseconds.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from airflow.sdk import DAG
from tests.faults.mortal import Pace, Point, Trap, inhabit

from capi_airflow.ending import FinalFault, TaskEnded
from capi_airflow.forms import send_form
from capi_airflow.operators import DeliverOperator, PlanOperator
from capi_airflow.tending import TendOperator
from meta_capi.source import Shard

_DEATH_OF_PARENT: Final = 1  # PR_SET_PDEATHSIG
_LIBC: Final = ctypes.CDLL(None)
_LATE: Final = (
    "airflow.providers.postgres.hooks.postgres",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.definitions.connection",
    "croniter",
    "psycopg2.extras",
    "sqlalchemy.dialects.postgresql.psycopg",
)
_EXITS: Final = {0: "done", 1: "failed", 2: "stopped", 3: "broken", 143: "ended"}


@dataclass
class Messages:
    """The part of a task instance that an operator uses."""

    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.pushed[key] = value


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task of a run of the feed's DAG, as Airflow would start it."""

    kind: str
    """`plan`, `deliver` or `tend`."""
    run_id: str
    start: str
    end: str
    environ: Mapping[str, str] = field(repr=False)
    pace: Pace = field(default_factory=Pace)
    point: Point | None = None
    log: Path = Path(os.devnull)

    def __call__(self, trap: Trap) -> None:
        """Run the operator, in this process."""
        os.environ.update(self.environ)
        inhabit(self.pace, trap)
        tends = self.kind == "tend"
        with DAG(
            "tend_deliveries" if tends else "send_orders",
            params={} if tends else send_form(),
        ) as dag:
            made = {
                "plan": lambda: PlanOperator(task_id="plan", feed="orders"),
                "tend": lambda: TendOperator(task_id="tend", feed="orders"),
                "deliver": lambda: DeliverOperator(
                    task_id="deliver", feed="orders", shard=Shard().to_json()
                ),
            }
            operator = made[self.kind]()
        # As Airflow's task runner does.
        signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
        operator.execute(
            {
                "params": {} if tends else {"start": self.start, "end": self.end},
                "dag": dag,
                "run_id": self.run_id,
                "ti": Messages(),
            }
        )
        trap.pass_by("returned")


class Process:
    """A worker's process, seen from outside."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self.began = time.monotonic()
        self.seconds = 0.0
        self.outcome: str | None = None
        """How it ended: `killed`, or what its exit code says; None while it lives."""

    def fileno(self) -> int:
        """Return what can be polled for its end."""
        return self._descriptor

    def send(self, number: signal.Signals) -> None:
        """Send a signal; to one that has just ended, none."""
        if self.outcome is None:
            os.kill(self.pid, number)  # not reaped yet: the number is still its own

    def kill(self) -> bool:
        """Send SIGKILL; True if it was alive until then."""
        self.send(signal.SIGKILL)
        return self.wait() == "killed"

    def go_on(self) -> None:
        """Let it go on, if it stands still."""
        self.send(signal.SIGCONT)

    def wait(self, seconds: float | None = None) -> str | None:
        """Wait for its end; None if it lives longer than that."""
        if self.outcome is None:
            patience = None if seconds is None else max(0.0, seconds) * 1_000
            poll = select.poll()
            poll.register(self, select.POLLIN)
            if poll.poll(patience):
                _, status = os.waitpid(self.pid, 0)
                os.close(self._descriptor)
                self.seconds = time.monotonic() - self.began
                self.outcome = _outcome(status)
        return self.outcome

    def wait_for_stop(self) -> bool:
        """Wait until it stands still; False if it ended instead."""
        if self.outcome is not None:
            return False
        found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if found is not None and found.si_code == os.CLD_STOPPED:
            return True
        self.wait()
        return False


def _outcome(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "killed" if number == signal.SIGKILL else f"signal {number}"
    code = os.WEXITSTATUS(status)
    return _EXITS.get(code, f"exit {code}")


def warm() -> None:
    """Import what a worker's first second would import, and tidy up before the forks."""
    for name in _LATE:
        importlib.import_module(name)
    DAG("warm")  # its timetables
    gc.collect()
    # Else each worker's collector would copy the whole heap by looking at it.
    gc.freeze()


def start(task: Callable[[Trap], None], *, point: Point | None, log: Path) -> Process:
    """Fork a worker that does one task and ends."""
    if threading.active_count() > 1:
        raise RuntimeError("The zygote has threads; a fork of it would be crippled.")
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return Process(pid)
    _LIBC.prctl(_DEATH_OF_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(3)
    os._exit(_live(task, Trap(point), log))


def run(task: Task) -> Process:
    """Start an operator's task."""
    return start(task, point=task.point, log=task.log)


def _live(task: Callable[[Trap], None], trap: Trap, log: Path) -> int:
    """Do the task; return the exit code."""
    words = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(words, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    try:
        task(trap)
    except FinalFault as error:
        return _tell(2, error)
    except TaskEnded as error:
        return _tell(1, error)
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException as error:
        traceback.print_exc()
        return _tell(3, error)
    return 0


def _tell(code: int, error: BaseException) -> int:
    said = {"exit": code, "error": type(error).__name__, "says": str(error)}
    sys.stdout.write(json.dumps(said) + "\n")
    return code


def watch(processes: Iterable[Process], until: float) -> None:
    """Return when a process ends, or at a moment of the monotonic clock."""
    poll = select.poll()
    for process in processes:
        poll.register(process, select.POLLIN)
    poll.poll(max(0.0, until - time.monotonic()) * 1_000)
