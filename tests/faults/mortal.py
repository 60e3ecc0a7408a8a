"""A worker's inside: the product as it is, at another pace, and mortal at named points.

Everything here happens in the worker's own process, after its fork. The product's
classes are bound anew, with shorter times, as subclasses that die, stop or lose a line
at a point of one's choice; what they do between is the product's.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

import psycopg

from capi_airflow import deadline, hook, operators, stage, tending
from capi_airflow.transport import Line
from meta_capi.desk import Desk
from meta_capi.dispatch import Patience, deliver
from meta_capi.ledger import Ledger, ResendPolicy, Run
from meta_capi.source import Slice, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The product's times, in the product's proportions, twenty times as fast."""

    deadline: float = 1.5
    cover: float = 3.0
    lease: float = 9.0
    window: int | None = None
    """How long a doubt may be sent again; None for the product's own two days."""
    renewed_every: float = 1.5
    patience: Patience = field(
        default_factory=lambda: Patience(
            first_pause=0.02, longest_wait=0.5, doubt_pause=3.0
        )
    )


class Deed(StrEnum):
    """What happens at a point."""

    DIE = "die"  # SIGKILL; at a commit: after it, before its answer is read
    STOP = "stop"  # SIGSTOP: whoever watches lets it go on
    UNHEARD = "unheard"  # the line breaks after the COMMIT, before its answer
    UNDONE = "undone"  # the line breaks before the COMMIT


@dataclass(frozen=True, slots=True)
class Point:
    """Where a worker meets its fate: the n-th time it comes by."""

    name: str
    nth: int = 1
    deed: Deed = Deed.DIE


class Trap:
    """Counts how often each point is passed, and strikes at one of them."""

    def __init__(self, point: Point | None) -> None:
        self._point = point
        self._seen = 0
        self._lock = threading.Lock()
        self._dying = False

    def due(self, name: str) -> Deed | None:
        """Count this passage; return the deed if it is the one.

        A death is not done at once: the COMMIT before it takes its time. No other
        thread passes a point meanwhile, so that the ledger's word can be exact.
        """
        with self._lock:
            if not self._dying:
                return self._count(name)
        threading.Event().wait()
        return None

    def _count(self, name: str) -> Deed | None:
        if self._point is None or name != self._point.name:
            return None
        self._seen += 1
        if self._seen != self._point.nth:
            return None
        self._dying = self._point.deed is Deed.DIE
        return self._point.deed

    def pass_by(self, name: str) -> None:
        """Die or stop here, if it is the place."""
        deed = self.due(name)
        if deed is not None:
            fall(deed)


def fall(deed: Deed) -> None:
    """Die, or stand still until somebody sends SIGCONT."""
    os.kill(os.getpid(), signal.SIGKILL if deed is Deed.DIE else signal.SIGSTOP)


class MortalLedger(Ledger):
    """A ledger whose commits can be the last thing its worker does."""

    def __init__(self, *args: Any, trap: Trap, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trap = trap
        self._here = threading.local()

    @contextmanager
    def doing(self, step: str) -> Iterator[None]:
        """Name the step whose transactions follow."""
        self._here.step = step
        try:
            yield
        finally:
            self._here.step = None

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        """Yield a cursor; at the step's commit, meet the worker's fate."""
        step = getattr(self._here, "step", None)
        with super().transaction() as cursor:
            yield cursor
            if step:
                self._trap.pass_by(f"{step}.open")
                if deed := self._trap.due(f"{step}.commit"):
                    _end_transaction(cursor.connection, deed)

    def open_run(self, *args: Any, **kwargs: Any) -> Run:
        """Record a planned run."""
        run = super().open_run(*args, **kwargs)
        self._trap.pass_by("planned")
        return run


def _end_transaction(connection: psycopg.Connection[Any], deed: Deed) -> None:
    if deed is not Deed.UNDONE:
        # The transaction stands, and the next one has begun: psycopg will ask for
        # another COMMIT, which finds the line dead, as if this one's answer were lost.
        connection.pgconn.exec_(b"COMMIT AND CHAIN")
    if deed is Deed.DIE:
        fall(deed)
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


class MortalDesk(Desk):
    """A desk that tells its ledger which step it makes."""

    _ledger: MortalLedger

    def claim(self, *args: Any, **kwargs: Any) -> Any:
        """Claim a slice."""
        with self._ledger.doing("claim"):
            return super().claim(*args, **kwargs)

    def settle(self, *args: Any, **kwargs: Any) -> Any:
        """Settle an answer."""
        with self._ledger.doing("settle"):
            return super().settle(*args, **kwargs)


class MortalSource(Source):
    """A source whose reader can die with a slice in its hands."""

    trap: Trap

    def read(self, *args: Any, **kwargs: Any) -> Iterator[Slice]:
        """Stream slices."""
        for rows in super().read(*args, **kwargs):
            self.trap.pass_by("slice")
            yield rows


class MortalHttp(deadline._Http):
    """A connection on which a request can end in its middle."""

    trap: Trap
    _in_body = False

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request."""
        self._in_body = False
        super().request(*args, **kwargs)

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        """End the head; what follows is the body."""
        super().endheaders(*args, **kwargs)
        self._in_body = True

    def send(self, data: Any) -> None:
        """Send a piece; die after the half of a body's first one."""
        if self._in_body and (deed := self.trap.due("mid_body")):
            super().send(data[: len(data) // 2])
            fall(deed)
        super().send(data)

    def getresponse(self) -> Any:
        """Wait for the answer: the last byte of the body has left."""
        self.trap.pass_by("body_left")
        return super().getresponse()


def inhabit(pace: Pace, trap: Trap) -> None:
    """Give this process its pace, and the point at which it falls."""
    policy_of = stage.resend_policy

    def policy(feed: Any) -> ResendPolicy:
        found = policy_of(feed)
        return replace(found, window_seconds=pace.window) if pace.window else found

    MortalSource.trap = MortalHttp.trap = trap
    at_pace = partial(
        deliver, patience=pace.patience, lease_seconds=6 * pace.renewed_every,
        probe=trap.pass_by,
    )  # fmt: skip
    for module, name, bound in (
        (stage, "resend_policy", policy),
        (stage, "Source", MortalSource),
        (stage, "Ledger", partial(MortalLedger, trap=trap)),
        (
            stage, "Desk",
            partial(MortalDesk, lease_seconds=pace.lease, cover_seconds=pace.cover),
        ),
        (hook, "Line", partial(Line, deadline_seconds=pace.deadline)),
        (deadline._HttpPool, "ConnectionCls", MortalHttp),
        (operators, "deliver", at_pace),
        (tending, "deliver", at_pace),
    ):  # fmt: skip
        setattr(module, name, bound)
