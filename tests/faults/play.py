"""One trial's stage: its shop, the runs of its DAG, and the way back to order."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tests.faults.books import Books, balance
from tests.faults.mortal import Pace, Point
from tests.faults.worker import Process, Task, run, watch
from tests.faults.world import Shop, World

# Recovery after this many leases, or the harness calls it no progress.
LEASES = 4
# How far the clock may run ahead: at five minutes a worker refuses to work.
MOST_AHEAD = 280.0
# The faults are over: a slow machine shall not look like one.
_CALM = {"deadline": 6.0, "cover": 8.0, "lease": 30.0, "renewed_every": 5.0}
_WHERE = """
select w.pid,
    count(b.batch_id) as batches,
    count(*) filter (where b.state = 'sending') as sending,
    count(*) filter (where b.state = 'claimed') as claimed,
    bool_or(b.depth > 0 and b.state in ('sending', 'claimed')) as splitting,
    w.ended_at is not null as left
from capi.workers w left join capi.batches b using (worker_id)
where w.dataset_id = %s and w.pid = any(%s)
group by w.worker_id
"""
_AT_DESKS = """
select count(*) from capi.workers w where w.dataset_id = %s and (
    w.ended_at is null or exists (
        select from capi.batches b
        where b.worker_id = w.worker_id and b.state in ('claimed', 'sending')
    )
)
"""


@dataclass
class Play:
    """A trial: what it was given, and what it did."""

    world: World
    rng: Random
    pace: Pace = field(default_factory=Pace)
    shop: Shop = field(init=False)
    runs: dict[str, tuple[str, str]] = field(default_factory=dict)
    attempts: int = 0
    """Tasks that were started."""
    kills: int = 0
    where: Counter[str] = field(default_factory=Counter)
    """What the killed were doing, by the ledger's word."""
    violations: list[str] = field(default_factory=list)
    quickest: float = math.inf
    """Of the deliveries after the faults, in seconds."""
    notes: dict[str, Any] = field(default_factory=dict)

    def open(
        self, fates: Sequence[str], *, parts: Sequence[tuple[float, float]] = ((0, 1),),
        policy: str = "resend", action_source: str = "physical_store", **limits: int,
    ) -> None:  # fmt: skip
        """Make the rows, and plan a run for each part of their hour."""
        self.shop = self.world.open_shop(
            fates, policy=policy, action_source=action_source, **limits
        )
        self.runs = {
            f"run{number}": self.shop.interval(*part)
            for number, part in enumerate(parts)
        }
        for name in self.runs:
            self.expect("plan", self.begin("plan", name).wait(), "done")

    def begin(
        self, kind: str, name: str, *, point: Point | None = None,
        pace: Pace | None = None, **environ: Any,
    ) -> Process:  # fmt: skip
        """Start a task of a run in a process of its own."""
        self.attempts += 1
        start, end = self.runs[name]
        return run(
            Task(
                kind=kind, run_id=name if kind != "tend" else f"tend{self.attempts}",
                start=start, end=end, point=point, pace=pace or self.pace,
                environ=self.world.environ(self.shop.dataset, **environ),
                log=self.world.log,
            )
        )  # fmt: skip

    def deliver(self, point: Point | None = None, **more: Any) -> Process:
        """Start an attempt of the first run's `deliver`."""
        return self.begin("deliver", next(iter(self.runs)), point=point, **more)

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Note a violation unless both are alike."""
        if found != wanted:
            self.violations.append(f"{what}: {found}, not {wanted}")

    def let_time_pass(self, seconds: float | None = None) -> None:
        """Let a lease run out, or as long as said."""
        step = self.pace.lease + 1 if seconds is None else seconds
        if self.world.ahead + step > MOST_AHEAD:
            raise RuntimeError(
                "The trial wants more time than its workers' clocks bear."
            )
        self.world.jump(step)

    def strike(
        self, moments: Mapping[Process, float],
        blow: Callable[[Process], bool] = Process.kill,
    ) -> list[Process]:  # fmt: skip
        """Strike each worker at its moment, unless it ends before; return the struck."""
        struck = []
        living = dict(moments)
        while living:
            watch(living, min(living.values()))
            for process, moment in list(living.items()):
                if process.wait(0) is not None:
                    del living[process]
                elif moment <= time.monotonic():
                    if blow(process):
                        struck.append(process)
                    del living[process]
        return struck

    def await_requests(self, workers: Sequence[Process]) -> None:
        """Wait until a request arrives at Meta, or all of these workers have ended."""
        size = self.world.recorded()
        while self.world.recorded() == size:
            living = [each for each in workers if each.wait(0) is None]
            if not living:
                return
            watch(living, time.monotonic() + 0.002)

    def kill(self, moments: Mapping[Process, float]) -> int:
        """Kill each worker at its moment; remember what it was doing."""
        killed = self.strike(moments)
        self.kills += len(killed)
        self._remember(killed)
        return len(killed)

    def _remember(self, killed: Iterable[Process]) -> None:
        pids = [process.pid for process in killed]
        if not pids:
            return
        at_desk = self.world.sql(_WHERE, self.shop.dataset, pids)
        for _, batches, sending, claimed, splitting, left in at_desk:
            self.where[_doing(batches, sending, claimed, splitting, left)] += 1
        if away := len(pids) - len(at_desk):
            self.where["starting"] += away

    def unsettled(self) -> int:
        """Return how many rows have not yet got where they end."""
        states = self.shop.states()
        unread = len(self.shop.orders) - sum(states.values())
        return unread + states.get("pending", 0) + states.get("claimed", 0)

    def at_desks(self) -> int:
        """Return how many workers have not left, or have left something."""
        return int(self.world.sql(_AT_DESKS, self.shop.dataset)[0][0])

    def recover(self) -> None:
        """Let Airflow do what it does when the faults are over, until nothing is owed."""
        pace = replace(self.pace, **_CALM)
        for round_ in range(1, LEASES + 1):
            self.let_time_pass()
            for name in self.runs:
                worker = self.begin("deliver", name, pace=pace)
                self.expect("deliver", worker.wait(), "done")
                self.quickest = min(self.quickest, worker.seconds)
            name = next(iter(self.runs))
            self.expect("tend", self.begin("tend", name, pace=pace).wait(), "done")
            if self.unsettled() == 0 and not self._resendable():
                self.notes["leases"] = round_
                return
        self.violations.append(
            f"not settled {LEASES} leases after the faults: {self.shop.states()}"
        )

    def _resendable(self) -> int:
        return int(
            self.world.sql(
                "select count(*) from capi.deliveries where dataset_id = %s and state ="
                " 'in_doubt' and reason not in ('doubt.held', 'doubt.window_over')",
                self.shop.dataset,
            )[0][0]
        )

    def close(self) -> Books:
        """Recover, and close the books."""
        self.world.disarm(self.shop.orders)
        self.recover()
        window = self.pace.window
        slack = (
            2 * _CALM["deadline"]
        )  # a request begins inside the window, and takes time
        books = balance(self.shop, window=None if window is None else window + slack)
        books.violations = self.violations + books.violations
        return books


def _doing(
    batches: int, sending: int, claimed: int, splitting: bool, left: bool
) -> str:
    if left:
        return "leaving"
    if not batches:
        return "reading or claiming"
    if splitting:
        return "splitting"
    if sending:
        return "a request in flight"
    return "between requests" if claimed else "all settled"
