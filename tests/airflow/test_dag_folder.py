"""The DAG folder keeps its contract: what is in it, what it says and does not do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, CronDataIntervalTimetable
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from capi_airflow.ending import FinalFault
from capi_airflow.forms import replay_form, send_form
from meta_capi.feed import load

ROOT = Path(__file__).resolve().parents[2]
FEEDS = {path.stem: load(path) for path in (ROOT / "include" / "feeds").glob("*.yaml")}
DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
SENDING = {"deliver", "replay", *(f"tend_{name}" for name in FEEDS)}
STEPS = ["preflight", "plan", "validate", "deliver", "report"]


def read_folder() -> DagBag:
    """Read the DAG folder as the DAG processor does."""
    return DagBag(str(ROOT / "dags"))


@pytest.fixture(scope="module")
def dags() -> dict[str, DAG]:
    bag = read_folder()
    assert bag.import_errors == {}
    return dict(bag.dags)


@pytest.fixture(scope="module", params=sorted(FEEDS))
def feed_dag(request: pytest.FixtureRequest, dags: dict[str, DAG]) -> DAG:
    """The DAG of each shipped feed."""
    return dags[f"send_{request.param}"]


class TestTheFolder:
    def test_there_is_one_dag_per_feed_file_and_two_for_upkeep(
        self, dags: dict[str, DAG]
    ) -> None:
        assert {"offline_purchases", "phone_orders", "crm_leads"} <= set(FEEDS)
        sending = {f"send_{name}" for name in FEEDS}
        assert set(dags) == sending | {"tend_deliveries", "replay_deliveries"}

    @pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.stem)
    def test_a_dag_file_is_a_table_of_contents(self, path: Path) -> None:
        assert len(path.read_text().splitlines()) <= 100

    def test_every_dag_says_what_it_is_and_whose(self, dags: dict[str, DAG]) -> None:
        for dag in dags.values():
            assert dag.description
            assert dag.doc_md
            assert dag.doc_md.lstrip().startswith("### ")
            assert "meta" in dag.tags
            assert len(dag.tags) >= 2
            assert {task.owner for task in dag.tasks}.isdisjoint({"airflow", ""})

    def test_whatever_sends_waits_its_turn_in_the_pool(
        self, dags: dict[str, DAG]
    ) -> None:
        pools = {task.task_id: task.pool for dag in dags.values() for task in dag.tasks}
        assert {name for name, pool in pools.items() if pool == "meta_capi"} == SENDING

    def test_reading_it_opens_no_connection_and_loads_no_heavy_library(self) -> None:
        # In a process of its own: nothing is loaded yet, and no connection defined.
        program = """
import json, socket, sys
def refuse(*_, **__):
    raise SystemExit("a DAG file opened a connection")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
heavy = {"great_expectations", "pandas", "fastapi"} & set(sys.modules)
print("\\n" + json.dumps([sorted(bag.dags), bag.import_errors, sorted(heavy)]))
"""
        done = subprocess.run(
            [sys.executable, "-c", program, str(ROOT / "dags")],
            env={**_environment(), "PYTHONPATH": f"{ROOT}/include:{ROOT}/plugins"},
            capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2_000:]
        found, errors, heavy = json.loads(done.stdout.splitlines()[-1])
        assert len(found) == len(FEEDS) + 2
        assert (errors, heavy) == ({}, [])


class TestAFeedsDag:
    def test_it_runs_once_per_data_interval_and_never_twice_at_a_time(
        self, feed_dag: DAG
    ) -> None:
        feed = FEEDS[feed_dag.dag_id.removeprefix("send_")]
        assert isinstance(feed_dag.timetable, CronDataIntervalTimetable)
        assert feed_dag.timetable.expression == feed.schedule
        assert feed_dag.start_date is not None
        assert feed_dag.start_date.date() == feed.start_date
        assert feed_dag.catchup is False
        assert feed_dag.max_active_runs == 1

    def test_its_steps_follow_one_another(self, feed_dag: DAG) -> None:
        assert [task.task_id for task in feed_dag.topological_sort()] == STEPS
        for first, second in pairwise(STEPS):
            assert second in feed_dag.task_dict[first].downstream_task_ids

    def test_delivering_spreads_over_the_shards(self, feed_dag: DAG) -> None:
        assert isinstance(feed_dag.task_dict["deliver"], MappedOperator)

    def test_its_owner_is_the_feeds_and_passing_faults_are_tried_again(
        self, feed_dag: DAG
    ) -> None:
        feed = FEEDS[feed_dag.dag_id.removeprefix("send_")]
        for task in feed_dag.tasks:
            assert task.owner == feed.owner
            assert task.retries == 3
            # A dead worker's lease has to be over: three minutes.
            assert task.retry_delay >= timedelta(minutes=3)

    def test_its_page_names_the_feed(self, feed_dag: DAG) -> None:
        feed = FEEDS[feed_dag.dag_id.removeprefix("send_")]
        assert feed_dag.description == feed.description
        assert feed.description in str(feed_dag.doc_md)
        assert feed.event.action_source.value in feed_dag.tags

    def test_its_form_asks_what_a_person_may_choose(self, feed_dag: DAG) -> None:
        wanted = {"dry_run", "test_event_code", "limit", "start", "end"}
        assert set(feed_dag.params) == wanted
        assert feed_dag.params["dry_run"] is False


@pytest.mark.matrix("X12")
class TestTheForms:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("dry_run", "yes please"),
            ("test_event_code", "TEST 1"),
            ("test_event_code", "x" * 41),
            ("limit", 0),
            ("limit", "ten"),
            ("start", 20261122),
        ],
    )
    def test_airflow_refuses_what_a_send_form_does_not_allow(
        self, name: str, value: Any
    ) -> None:
        self.assert_refused(ParamsDict(send_form()), name, value)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("feed", "no_such_feed"),
            ("states", ["accepted"]),
            ("reason", "'; drop table"),
            ("keys", ["k" * 201]),
            ("keys", "o-1"),
        ],
    )
    def test_airflow_refuses_what_the_replay_form_does_not_allow(
        self, name: str, value: Any
    ) -> None:
        self.assert_refused(ParamsDict(replay_form(sorted(FEEDS))), name, value)

    def test_untouched_forms_are_fine_and_replaying_begins_with_a_plan(self) -> None:
        assert ParamsDict(send_form()).validate()["dry_run"] is False
        assert ParamsDict(replay_form(sorted(FEEDS))).validate()["dry_run"] is True

    @staticmethod
    def assert_refused(params: ParamsDict, name: str, value: Any) -> None:
        params.validate()
        with pytest.raises(ParamValidationError):
            params[name] = value


class TestTheOtherDags:
    def test_tending_visits_every_feed_every_ten_minutes(
        self, dags: dict[str, DAG]
    ) -> None:
        dag = dags["tend_deliveries"]
        assert set(dag.task_ids) == {f"tend_{name}" for name in FEEDS}
        assert dag.schedule == timedelta(minutes=10)
        assert (dag.catchup, dag.max_active_runs) == (False, 1)
        # One feed that fails leaves the others alone.
        assert not [task for task in dag.tasks if task.upstream_task_ids]

    def test_replaying_is_by_hand_with_a_form_of_the_shipped_feeds(
        self, dags: dict[str, DAG]
    ) -> None:
        dag = dags["replay_deliveries"]
        assert dag.schedule is None
        assert dag.catchup is False
        assert sorted(dag.params.get_param("feed").schema["enum"]) == sorted(FEEDS)


class TestABrokenFeedFile:
    @pytest.fixture
    def bag(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DagBag:
        shutil.copytree(ROOT / "include" / "feeds", tmp_path / "feeds")
        (tmp_path / "feeds" / "web_shop.yaml").write_text(
            'feed: web_shop\nschedule: "every now and then"\nevent: {name: Purchase}\n'
        )
        monkeypatch.setenv("META_CAPI_HOME", str(tmp_path))
        return read_folder()

    def test_its_dag_says_every_fault_and_the_others_stand(self, bag: DagBag) -> None:
        assert bag.import_errors == {}
        assert {f"send_{name}" for name in FEEDS} < set(bag.dags)
        told = str(bag.dags["send_web_shop"].doc_md)
        for part in ("schedule", "source", "description", "action_source"):
            assert part in told

    def test_running_it_fails_with_every_fault_and_no_retry(self, bag: DagBag) -> None:
        (task,) = bag.dags["send_web_shop"].tasks
        with pytest.raises(FinalFault, match="more, see the log"):
            task.execute({})

    def test_whatever_the_file_is_called_the_others_stand_and_its_dag_names_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stems = [
            "phone_orders copy", "phone_orders_copy", "phone_orders-copy", "Größe", "",
            "w" * 240, "w" * 241, "two\nlines",
        ]  # fmt: skip
        shutil.copytree(ROOT / "include" / "feeds", tmp_path / "feeds")
        text = (tmp_path / "feeds" / "phone_orders.yaml").read_text(encoding="utf-8")
        for stem in stems:
            (tmp_path / "feeds" / f"{stem}.yaml").write_text(text, encoding="utf-8")
        monkeypatch.setenv("META_CAPI_HOME", str(tmp_path))
        bag = read_folder()
        assert bag.import_errors == {}
        broken = [dag for dag in bag.dags.values() if "broken feed" in dag.tags]
        told = sorted(str(dag.doc_md).partition("`")[2] for dag in broken)
        shown = sorted(stem.replace("\n", r"\n") for stem in stems)
        for said, stem in zip(told, shown, strict=True):
            assert said.startswith(f"{stem}.yaml:1: feed: is 'phone_orders'")
        names = {dag.dag_id.removeprefix("send_") for dag in broken}
        tending = set(bag.dags["tend_deliveries"].task_ids)
        assert tending == {f"tend_{name}" for name in {*FEEDS, *names}}


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_CONN_")}
