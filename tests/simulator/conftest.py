"""Simulators whose clock stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.simulator.simulator_client import DATASET, NOW, TOKEN

from graph_simulator import Profile, Simulator


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A Meta that takes its pages at their word, an hour after the golden events."""
    with Simulator(
        tokens=[TOKEN], datasets=[DATASET], now=lambda: NOW, keep_events=True
    ) as simulator:
        yield simulator


@pytest.fixture
def observed() -> Iterator[Simulator]:
    """A Meta as live calls found it."""
    with Simulator(
        profile=Profile.OBSERVED,
        tokens=[TOKEN],
        datasets=[DATASET],
        now=lambda: NOW,
    ) as simulator:
        yield simulator
