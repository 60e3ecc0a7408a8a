"""Random kills: workers die at any moment of their lives, alone and several at once."""

from __future__ import annotations

import time
from random import Random
from typing import Any, Final

from tests.faults.books import Books
from tests.faults.mortal import Pace
from tests.faults.play import Play
from tests.faults.world import World

# What goes wrong at Meta, beside the deaths.
FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "hang_up_after_reading", "processed": True},
    {"kind": "hang_up_after_reading", "processed": False},
    {"kind": "hang_up_before_reading"},
    {"kind": "hang_up_mid_body", "after_bytes": 900},
    {"kind": "status", "status": 500, "processed": True},
    {"kind": "status", "status": 500, "processed": False},
    {"kind": "status", "status": 503, "processed": True},
    {"kind": "html", "processed": True},
    {"kind": "html", "processed": False},
    {"kind": "empty_body", "processed": True},
    {"kind": "truncated_json"},
    {"kind": "wrong_content_length", "off_by": 9},
    {"kind": "chunked_cut"},
    {"kind": "received_off_by", "off_by": -1},
    {"kind": "received_missing"},
    {"kind": "throttle"},
    {"kind": "token_revoked"},
    {"kind": "hang", "seconds": 0.8, "processed": True},
    {"kind": "close_idle"},
)
_PARTS: Final = (((0, 1),), ((0, 0.7), (0.3, 1)), ((0, 1), (0, 0.6), (0.4, 1)))
_WINDOW: Final = 20  # seconds; the black-outs last longer


class Speed:
    """How long a whole run takes on this machine, in seconds."""

    def __init__(self, world: World) -> None:
        play = Play(world, Random(0))
        play.open(["good"] * 120, events_per_request=10, requests_in_flight=2)
        durations = []
        for _ in range(2):
            process = play.deliver()
            process.wait()
            durations.append(process.seconds)
        self.empty = durations[1]
        """Of a run that has nothing to send."""
        self._request = max(0.002, (durations[0] - durations[1]) / 12)

    def learn(self, empty: float) -> None:
        """Take into account how long a run took that had little to send."""
        self.empty += 0.3 * (empty - self.empty)

    def sending(self, requests: float, latency: float) -> float:
        """Return the seconds that so many requests take."""
        return max(self._request, latency) * requests


def fates(rng: Random, rows: int, bad: int) -> list[str]:
    """Return rows of every fate, in any order."""
    others = ["bad"] * bad + ["withheld", "expired", "quarantined"]
    found = others + ["good"] * (rows - len(others))
    rng.shuffle(found)
    return found


def mixture(rng: Random) -> list[dict[str, Any]]:
    """Choose some faults, each with a share of the requests to strike."""
    return [
        {
            **fault, "count": None, "seed": rng.randrange(2**31),
            "probability": rng.uniform(0.03, 0.12),
        }
        for fault in rng.sample(FAULTS, rng.randint(2, 6))
    ]  # fmt: skip


def black_out(rng: Random) -> list[dict[str, Any]]:
    """Let no answer through: some requests are processed, some are not."""
    lost = {"kind": "hang_up_after_reading", "count": None}
    return [
        {
            **lost, "processed": True, "probability": rng.uniform(0.2, 0.8),
            "seed": rng.randrange(2**31),
        },
        {**lost, "processed": False},
    ]  # fmt: skip


def kills(world: World, rng: Random, speed: Speed) -> tuple[Play, Books]:
    """Play one trial: kill until the work is done, then recover and look."""
    flavour = rng.choices(("calm", "faults", "black-out"), (50, 40, 10))[0]
    play = Play(world, rng)
    if flavour != "calm":
        play.pace = Pace(
            deadline=0.5, window=_WINDOW if flavour == "black-out" else None
        )
    rows, per_request = rng.randint(100, 280), rng.randint(8, 16)
    in_flight = rng.randint(2, 4)
    play.open(
        fates(rng, rows, rng.randint(0, 5)), parts=rng.choice(_PARTS),
        policy=rng.choices(("resend", "hold"), (65, 35))[0],
        events_per_request=per_request, requests_in_flight=in_flight, rows_per_slice=100,
    )  # fmt: skip
    if flavour == "faults":
        world.arm(*mixture(rng))
    elif flavour == "black-out":
        world.arm(*black_out(rng))
    latency = rng.choice((0.0, 0.01, 0.03))
    world.arm({"kind": "delay", "seconds": latency, "count": None})
    play.notes["flavour"] = flavour
    _hunt(play, speed, per_request, latency / in_flight)
    if flavour == "black-out":
        play.let_time_pass(_WINDOW + 5)
    books = play.close()
    speed.learn(play.quickest)
    return play, books


def _hunt(play: Play, speed: Speed, per_request: int, latency: float) -> None:
    """Start workers and kill them, until they get done before their moment."""
    rng = play.rng
    for _ in range(rng.randint(4, 14)):
        left = play.unsettled()
        if not left or play.world.ahead > 150:
            return
        workers = [
            play.begin("deliver", rng.choice(list(play.runs)))
            for _ in range(rng.choices((1, 2, 3), (55, 30, 15))[0])
        ]
        # As a run slows down with each that runs beside it.
        slower = 1 + 0.5 * (len(workers) - 1)
        sending = speed.sending(left / per_request, latency) * slower
        if rng.random() < 0.5:
            # At any moment of a whole life.
            whole = speed.empty * slower + sending
            play.kill({each: each.began + rng.uniform(0, whole) for each in workers})
        else:
            # At any moment of the time in which requests go out.
            play.await_requests(workers)
            now = time.monotonic()
            play.kill({each: now + rng.uniform(0, sending) for each in workers})
        if rng.random() < 0.6:
            play.let_time_pass()
