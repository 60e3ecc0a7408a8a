"""Real workers die at random and at named points; the books are closed afterwards.

A short run of the kill harness, as `make faults` plays it: real processes of the real
operators, a real PostgreSQL, a real HTTP server whose record is the truth.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.faults.shard import lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
SHARDS = 2
ORDER = (
    "--seed=1", "--kills=200", "--failpoints=2", "--restarts=6", "--sleeps=6",
    "--naive=4", "--others=4", f"--shards={SHARDS}",
)  # fmt: skip


@dataclass(frozen=True)
class Harness:
    """A run of the harness that has ended."""

    folder: Path
    code: int
    said: str

    def trials(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the trials of some kinds."""
        return [t for t in self.all_trials() if t["kind"] in kinds]

    def all_trials(self) -> list[dict[str, Any]]:
        """Return every trial."""
        paths = [self.folder / f"shard-{number}.jsonl" for number in range(SHARDS)]
        return [trial for path in paths for trial in lines(path)]


def play(folder: Path) -> Harness:
    """Run the harness, as `make faults` does."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *ORDER, f"--folder={folder}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Harness(folder, done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return play(tmp_path_factory.mktemp("kills"))


def broken(trials: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return what was broken, by the trial that plays it again."""
    assert trials, "no such trial was played"
    return {t["trial"]: t["violations"] for t in trials if t["violations"]}


def total(trials: list[dict[str, Any]], name: str) -> int:
    """Add up one figure."""
    return sum(trial.get(name, 0) for trial in trials)


class TestRandomDeaths:
    @pytest.mark.matrix("P1", "C2")
    def test_two_hundred_deaths_lose_nothing_and_double_nothing_unexplained(
        self, harness: Harness
    ) -> None:
        trials = harness.trials("kills")
        assert broken(trials) == {}
        assert total(trials, "kills") >= 200
        assert total(trials, "lost") == 0
        assert total(trials, "unexplained") == 0

    @pytest.mark.matrix("P1")
    def test_the_deaths_meet_workers_in_every_part_of_their_work(
        self, harness: Harness
    ) -> None:
        met: defaultdict[str, int] = defaultdict(int)
        for trial in harness.trials("kills"):
            for where, count in trial["where"].items():
                met[where] += count
        assert {"reading or claiming", "a request in flight", "splitting"} <= met.keys()

    def test_a_feed_that_holds_doubles_nothing_at_all(self, harness: Harness) -> None:
        trials = [t for t in harness.trials("kills") if t["policy"] == "hold"]
        assert broken(trials) == {}
        assert total(trials, "doubled") == 0
        assert total(trials, "held") > 0

    @pytest.mark.matrix("H5")
    def test_after_a_black_out_longer_than_the_window_doubts_stay(
        self, harness: Harness
    ) -> None:
        trials = [t for t in harness.trials("kills") if t["flavour"] == "black-out"]
        assert broken(trials) == {}
        # Some had arrived and some had not: either guess would be wrong.
        in_doubt, arrived = (
            total(trials, "in_doubt"),
            total(trials, "in_doubt_received"),
        )
        assert 0 < arrived < in_doubt

    @pytest.mark.matrix("P2")
    @pytest.mark.parametrize("window", [f"W{number}" for number in range(14)])
    def test_in_each_window_the_ledger_says_what_the_papers_say(
        self, harness: Harness, window: str
    ) -> None:
        trials = harness.trials(window)
        assert broken(trials) == {}
        assert len(trials) == 2

    def test_a_naive_sender_loses_and_doubles(self, harness: Harness) -> None:
        trials = harness.trials("naive")
        assert total(trials, "lost") > 0
        assert total(trials, "unexplained") > 0


class TestOtherEnds:
    @pytest.mark.matrix("P4")
    def test_a_sleeper_that_wakes_begins_and_settles_nothing(
        self, harness: Harness
    ) -> None:
        trials = harness.trials("sleep")
        assert broken(trials) == {}
        assert total(trials, "woke without a desk") > 0

    @pytest.mark.matrix("P5")
    def test_a_worker_that_is_told_to_end_leaves_no_doubt(
        self, harness: Harness
    ) -> None:
        trials = harness.trials("sigterm")
        assert broken(trials) == {}
        assert total(trials, "told") > 0

    @pytest.mark.matrix("P15")
    def test_a_power_cut_loses_nothing(self, harness: Harness) -> None:
        trials = harness.trials("power cut")
        assert broken(trials) == {}
        assert total(trials, "kills") > 0

    @pytest.mark.matrix("D1")
    def test_workers_outlive_an_immediate_restart_of_the_ledger(
        self, harness: Harness
    ) -> None:
        trials = harness.trials("restart")
        assert broken(trials) == {}
        # On a busy machine a worker may be done before the strike.
        assert total(trials, "in the middle") > 0

    @pytest.mark.matrix("D2")
    def test_a_commit_whose_answer_is_lost_is_made_once(self, harness: Harness) -> None:
        assert broken(harness.trials("W3", "W10")) == {}

    @pytest.mark.matrix("D7")
    def test_an_answer_outlasts_a_ledger_that_is_away(self, harness: Harness) -> None:
        assert broken(harness.trials("W13")) == {}

    @pytest.mark.matrix("C6")
    def test_a_lease_shorter_than_the_work_loses_nothing(
        self, harness: Harness
    ) -> None:
        trials = harness.trials("short lease")
        assert broken(trials) == {}
        assert total(trials, "over before the work") > 0

    @pytest.mark.matrix("H27")
    def test_repeats_that_meta_counts_are_counted_here_and_none_where_a_feed_holds(
        self, harness: Harness
    ) -> None:
        trials = harness.trials("repeats")
        assert broken(trials) == {}
        held = [trial for trial in trials if trial["policy"] == "hold"]
        assert held
        assert total(held, "exposed") == 0
        assert total(trials, "exposed") > 0


class TestTheHarness:
    def test_it_says_so_when_nothing_is_broken(self, harness: Harness) -> None:
        found = json.loads((harness.folder / "summary.json").read_text("utf-8"))
        assert (harness.code, found["violations"]) == (0, []), harness.said

    def test_it_goes_on_where_it_stopped(self, harness: Harness) -> None:
        before = harness.all_trials()
        again = play(harness.folder)
        assert (again.code, again.all_trials()) == (0, before)
