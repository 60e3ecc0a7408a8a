"""Other ends and stops: frozen workers, polite ends, lost servers, a power cut."""

from __future__ import annotations

import signal
from random import Random
from typing import Final

from tests.faults.books import Books
from tests.faults.kills import Speed, fates, mixture
from tests.faults.mortal import Deed, Pace, Point
from tests.faults.play import Play
from tests.faults.worker import Process
from tests.faults.world import World

# How long others are let work beside a frozen worker that may hold a lock they want.
_PATIENCE: Final = 5.0
_OWN: Final = """
select worker_id, ended_how, (
    select count(*) from capi.attempts a join capi.batches b using (batch_id)
    where b.worker_id = w.worker_id
), (
    select count(*) from capi.batches b
    where b.worker_id = w.worker_id and b.state in ('refused', 'split', 'released')
)
from capi.workers w where dataset_id = %s and pid = %s
"""


def _open(
    play: Play, *, rows: int = 160, policy: str | None = None,
    action_source: str = "physical_store", most_bad: int = 3,
) -> None:  # fmt: skip
    rng = play.rng
    play.open(
        fates(rng, rows, rng.randint(0, most_bad)),
        policy=policy or rng.choices(("resend", "hold"), (65, 35))[0],
        action_source=action_source,
        events_per_request=10, requests_in_flight=rng.randint(1, 3), rows_per_slice=100,
    )  # fmt: skip
    latency = rng.choice((0.01, 0.03))
    play.world.arm({"kind": "delay", "seconds": latency, "count": None})


def _moment(play: Play, speed: Speed, worker: Process) -> float:
    """Return a moment of a whole run, after its start."""
    whole = speed.empty + speed.sending(16, 0.02)
    return worker.began + play.rng.uniform(0.5 * speed.empty, whole)


def restart(world: World, rng: Random, speed: Speed) -> tuple[Play, Books]:
    """PostgreSQL stops at once and starts again, in the middle of a run (D1)."""
    play = Play(world, rng)
    _open(play)
    worker = play.deliver()
    struck = play.strike({worker: _moment(play, speed, worker)}, lambda _: True)
    world.strike_database()
    world.restore_database()
    play.notes["restarts"] = 1
    # The stream of rows is broken, so the task may fail; it never breaks.
    play.expect("ends", worker.wait() in ("done", "failed"), True)
    play.notes["in the middle"] = len(struck)
    play.expect("left at its desk", play.at_desks(), 0)
    return play, play.close()


def sleep(world: World, rng: Random, speed: Speed) -> tuple[Play, Books]:
    """A worker stands still beyond its lease, and wakes when others have its rows (P4)."""
    play = Play(world, rng)
    _open(play)
    name = rng.choice((None, None, "after_claim", "after_begin", "after_answer"))
    point = None if name is None else Point(name, rng.randint(1, 2), Deed.STOP)
    worker = play.deliver(point)
    if point is None:
        moment = _moment(play, speed, worker)
        play.strike({worker: moment}, lambda each: each.send(signal.SIGSTOP) is None)
    stopped = worker.wait_for_stop()
    play.notes["asleep"] = int(stopped)
    if stopped:
        play.let_time_pass()
        other = play.deliver()
        # It may wait for a lock that the sleeper holds: then the sleeper wakes first.
        other.wait(_PATIENCE)
        before = world.sql(_OWN, play.shop.dataset, worker.pid)
        worker.go_on()
        worker.wait()
        other.wait()
        _expect_nothing_of(play, worker, before)
    return play, play.close()


def _expect_nothing_of(
    play: Play, worker: Process, before: list[tuple[int, ...]]
) -> None:
    """Expect that a worker which was rescued in its sleep began and settled nothing."""
    if not before or before[0][1] != "lost":
        return  # it slept before it sat down, or where nobody could clear its desk
    after = play.world.sql(_OWN, play.shop.dataset, worker.pid)
    play.notes["woke without a desk"] = 1
    play.expect("begun by a sleeper", after[0][2], before[0][2])
    # Meta's yes may still be written down: evidence goes before a lease.
    play.expect("settled by a sleeper", after[0][3], before[0][3])


def sigterm(world: World, rng: Random, speed: Speed) -> tuple[Play, Books]:
    """A worker is told to end, and ends in order (P5)."""
    play = Play(world, rng)
    _open(play)
    worker = play.deliver()
    told = play.strike(
        {worker: _moment(play, speed, worker)},
        lambda each: each.send(signal.SIGTERM) is None,
    )
    play.expect("ends", worker.wait() in ("ended", "done"), True)
    play.notes["told"] = len(told)
    play.expect("left at its desk", play.at_desks(), 0)
    # Nothing was unheard: what had begun was waited for.
    play.expect("in doubt", play.shop.states().get("in_doubt", 0), 0)
    return play, play.close()


def power_cut(world: World, rng: Random, speed: Speed) -> tuple[Play, Books]:
    """Workers, PostgreSQL and Meta all stop at once, and start again (P15)."""
    play = Play(world, rng)
    _open(play)
    workers = [play.deliver() for _ in range(rng.randint(1, 3))]
    moment = _moment(play, speed, workers[-1])
    play.strike(dict.fromkeys(workers[:1], moment), lambda _: True)
    world.strike_database()
    play.kills += sum(worker.kill() for worker in workers)
    world.kill_meta()
    world.start_meta()
    world.restore_database()
    return play, play.close()


def short_lease(world: World, rng: Random, _: Speed) -> tuple[Play, Books]:
    """A lease is over while its worker works, and nobody renews it in time (C6)."""
    play = Play(world, rng)
    _open(play, rows=100)
    world.arm({"kind": "delay", "seconds": rng.uniform(0.1, 0.4), "count": None})
    slow = Pace(deadline=1.5, lease=rng.uniform(0.3, 0.7), cover=0.1, renewed_every=60)
    workers = []
    for _ in range(3):
        workers.append(play.deliver(pace=slow))
        workers[-1].wait(rng.uniform(0.3, 0.9))
    ends = [worker.wait() for worker in workers]
    play.expect("ends", set(ends) <= {"done", "failed"}, True)
    # Whether a rescue or the worker itself saw first that its lease was over.
    play.notes["over before the work"] = ends.count("failed")
    return play, play.close()


def repeats(world: World, rng: Random, speed: Speed) -> tuple[Play, Books]:
    """Meta counts every repeat of a server event (H27): with `hold`, there is none."""
    world.kill_meta()
    world.start_meta(counts_repeats=True)
    play = Play(world, rng)
    try:
        # Store events are known by their order, whatever the switch.
        _open(
            play,
            policy=rng.choice(("resend", "hold")),
            action_source="phone_call",
            most_bad=0,
        )
        # One death with Meta's yes in hand: where a feed resends, that is a repeat.
        worker = play.deliver(Point("after_answer", rng.randint(1, 4)))
        play.expect("death", worker.wait(), "killed")
        play.kills += 1
        play.let_time_pass()
        world.arm(*mixture(rng))
        for _ in range(2):
            worker = play.deliver()
            play.kill({worker: _moment(play, speed, worker)})
            play.let_time_pass()
        books = play.close()
        counted = world.counted(play.shop.dataset)
    finally:
        world.kill_meta()
        world.start_meta()
    receipts = play.shop.receipts().values()
    exposed = sum(max(0, sum(r.processed for r in each) - 1) for each in receipts)
    distinct = sum(any(r.processed for r in each) for each in receipts)
    play.notes["exposed"] = exposed
    if counted - distinct != exposed:
        books.violations.append(f"Meta counts {counted}, of {distinct} and {exposed}")
    return play, books
