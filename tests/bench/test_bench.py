"""Each part of the benchmark runs, at a tiny size, with the real programs.

What is fast is never asked here: a busy machine would answer. Airflow's runs need minutes
and belong to `make bench`; the peers' own packages are not here, so a plain sender stands
for them.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from bench.__main__ import PARTS, measure
from bench.lots import short
from bench.machine import machine
from bench.parts import Sizes
from bench.parts.airflow import parsing
from bench.parts.profile import WATCH
from bench.party import ROOT, BenchError, Party
from bench.sampler import WATCHING, sampled, weigh
from bench.targets import TARGETS, Target, figure
from bench.world import World
from tools.bench_page import page

from demo.postgres import Postgres
from meta_capi.match_keys import digested

pytestmark = pytest.mark.slow

ROWS = 600
# Airflow's runs take minutes, and a profile wants a PostgreSQL of its own.
MEASURED = [name for name in PARTS if name not in ("airflow", "profile")]
PLAIN = (sys.executable, "-m", "tests.bench.plain_peer")
SIZES = Sizes(
    rows=[ROWS], peer_rows=ROWS, repeat=1, workers=1, peers={"sdk": PLAIN, "drt": PLAIN}
)


@pytest.fixture(scope="module")
def world(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    shop = f"bench_{uuid.uuid4().hex[:12]}"
    postgres.create_database(shop)
    folder = tmp_path_factory.mktemp("bench")
    with World(postgres, folder, scale=0.04, shop=shop) as world:
        yield world
    postgres.drop_database(shop)


@pytest.fixture(scope="module")
def measured(world: World) -> dict[str, Any]:
    """What every part but Airflow's came to, from the file that is kept."""
    into = world.folder / "measured" / "bench.json"
    for name in MEASURED:
        assert not measure(world, [name], SIZES, into)
    kept: dict[str, Any] = json.loads(into.read_text())
    return kept


@pytest.mark.parametrize("name", MEASURED)
def test_a_part_keeps_its_figures_its_repetitions_and_where_it_ran(
    measured: dict[str, Any], name: str
) -> None:
    part = measured["parts"][name]
    assert part["figures"]
    for key, each in part["figures"].items():
        assert each["target"] == TARGETS[key].bound
        assert each["met"] == TARGETS[key].met(each["value"])
    assert {"at", "load", "commit", "digest_us"} <= set(part["before"])
    assert part["seed"] == 7
    assert part.get("runs") or part["ours"]
    assert measured["machine"]["cores"] >= 1


def test_all_parties_send_the_same_rows_and_their_cpu_time_is_told(
    measured: dict[str, Any],
) -> None:
    part = measured["parts"]["end_to_end"]
    parties = part["same_rows"]
    assert {"ours", "sdk, 16 threads", "drt, set for speed"} <= set(parties)
    assert set(part["server_that_counts"]) == set(parties)
    spent = Counter[str]()
    for (run,) in [*parties.values(), *part["server_that_counts"].values()]:
        assert run["accepted"] == run["rows"] == ROWS
        assert set(run["cpu_seconds"]) == {"client", "postgres", "server"}
        spent.update(run["cpu_seconds"])
    # A party alone may need less than the kernel's tick, of 10 ms.
    assert min(spent["client"], spent["postgres"]) > 0
    (ours,) = part["ours"][short(ROWS)]
    # The sample's dirt is held back, and the gate had its turn.
    assert 0 < ours["accepted"] < ROWS
    assert list(ours["laps"]) == ["plan", "gate", "deliver", "report"]


def test_prebuilt_slices_keep_many_requests_in_flight(
    measured: dict[str, Any],
) -> None:
    (run,) = measured["parts"]["pipelining"]["runs"]["ours"]
    assert run["most_in_flight"] > 1
    assert run["events"] == 10_000


def test_the_page_shows_every_figure_of_every_part(measured: dict[str, Any]) -> None:
    told = page(measured)
    for part in measured["parts"].values():
        for each in part["figures"].values():
            assert f"| {each['name']} |" in told


def test_the_dag_files_are_parsed_one_by_one(world: World) -> None:
    each, sums = parsing(world, SIZES)
    assert set(each) == {path.name for path in (ROOT / "dags").glob("*.py")}
    assert len(sums) == SIZES.repeat


def test_a_profile_tells_where_each_partys_time_goes(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    postgres = Postgres(tmp_path / "postgres", durable=False, settings=WATCH)
    with postgres, World(postgres, tmp_path, scale=0.04, shop="shop") as world:
        postgres.create_database("shop")
        assert not measure(world, ["profile"], SIZES, tmp_path / "bench.json")
    part = json.loads((tmp_path / "bench.json").read_text())["parts"]["profile"]
    assert {"claiming: recording", "settling"} <= set(part["us"]["PostgreSQL"])
    for who, party in {"worker": "client", "PostgreSQL": "postgres"}.items():
        spent = part["run"]["cpu_seconds"][party] / part["run"]["rows"] * 1e6
        assert sum(part["us"][who].values()) == pytest.approx(spent, abs=0.5)
    assert "PostgreSQL: settling" in page(
        {"machine": machine(), "parts": {"profile": part}}
    )


class _Watched(list[str]):
    """Values whose reader is looked at while it reads them."""

    def __init__(self, values: list[str], look: Callable[[FrameType], None]) -> None:
        super().__init__(values)
        self._look = look

    def __iter__(self) -> Iterator[str]:
        self._look(sys._getframe())
        return super().__iter__()


def test_cpu_time_goes_to_the_innermost_stage_of_each_thread() -> None:
    stages: dict[str, float] = {}
    before = {1: 500_000_000}

    def look(number: int, name: str, seconds: int) -> Callable[[FrameType], None]:
        seen = number, name, seconds * 1_000_000_000
        return lambda frame: weigh(stages, before, [(*seen, frame)])

    def at_the_desk(look: Callable[[FrameType], None]) -> None:
        code = compile("list(names)", "/x/include/meta_capi/desk.py", "exec")
        exec(code, {"names": _Watched([], look)})

    digested("em", _Watched(["ada@example.com"], look(1, "MainThread", 2)))
    at_the_desk(look(1, "MainThread", 3))
    at_the_desk(look(2, "capi-send_0", 4))
    look(1, "MainThread", 8)(sys._getframe())
    assert stages == {
        "hashing": 1.5,
        "claiming: the rest": 1,
        "settling": 4,
        "other": 5,
    }


def test_a_thread_at_work_is_looked_at_until_the_sampler_is_left() -> None:
    stages: dict[str, float] = {}
    began = time.process_time()
    with sampled(stages):
        while not sum(stages.values()):
            digested("em", ["ada@example.com"] * 1_000)
    assert 0 < sum(stages.values()) <= time.process_time() - began
    assert WATCHING in stages


def test_a_job_that_fails_ends_the_part_and_says_why(tmp_path: Path) -> None:
    with (
        Party(PLAIN, tmp_path / "log") as party,
        pytest.raises(BenchError, match="graph"),
    ):
        party.ask("send")


@pytest.mark.parametrize(
    ("at_least", "value", "met"),
    [(True, 15, True), (True, 14.9, False), (False, 15, True), (False, 15.1, False)],
)
def test_a_target_is_met_at_its_bound(at_least: bool, value: float, met: bool) -> None:
    assert Target("t", 15, at_least=at_least).met(value) is met


def test_a_figure_holds_its_repetitions_and_their_median() -> None:
    found = figure("build.ratio", 15.5, [14.0, 15.5, 16.0])
    assert (found["runs"], found["median"], found["met"]) == (
        [14.0, 15.5, 16.0],
        15.5,
        True,
    )
