"""Every kind of trial, by its name: what the harness can play."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from random import Random
from typing import Any, Final

from tests.faults import disasters
from tests.faults.books import Books, figures
from tests.faults.kills import Speed, kills
from tests.faults.naive import naive
from tests.faults.play import Play
from tests.faults.windows import WINDOWS, failpoint
from tests.faults.world import World


class Stage:
    """What the trials of a shard share."""

    def __init__(self, world: World) -> None:
        self.world = world

    @cached_property
    def speed(self) -> Speed:
        """How fast workers are here, measured once."""
        return Speed(self.world)


Played = Callable[[World, Random, Speed], tuple[Play, Books]]
Kind = Callable[[Stage, Random], dict[str, Any]]


def _line(play: Play, books: Books) -> dict[str, Any]:
    return {
        "policy": play.shop.policy,
        "kills": play.kills,
        "runs": play.attempts,
        "where": dict(play.where),
        **play.notes,
        **figures(books),
    }


def _failpoint(name: str, stage: Stage, rng: Random) -> dict[str, Any]:
    return _line(*failpoint(stage.world, rng, name))


_DISASTERS: Final = {
    "kills": kills,
    "restart": disasters.restart,
    "sleep": disasters.sleep,
    "sigterm": disasters.sigterm,
    "power cut": disasters.power_cut,
    "short lease": disasters.short_lease,
    "repeats": disasters.repeats,
    "naive": naive,
}


def _disaster(played: Played, stage: Stage, rng: Random) -> dict[str, Any]:
    return _line(*played(stage.world, rng, stage.speed))


KINDS: Final[Mapping[str, Kind]] = {
    **{name: partial(_failpoint, name) for name in WINDOWS},
    **{name: partial(_disaster, played) for name, played in _DISASTERS.items()},
}
