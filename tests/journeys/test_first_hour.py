"""The first of the two commands: everything runs, and what it prints is true."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import requests
from tests.journeys.conftest import ROOT, TABLES, Demo

pytestmark = pytest.mark.slow


def printed_rows(demo: Demo) -> dict[str, list[int]]:
    """Return the summary's numbers by feed: source rows, each outcome, their sum."""
    found = re.findall(
        r"^(\w+) {2,}((?:[\d,]+\s*){9})$", demo.first.stdout, re.MULTILINE
    )
    return {
        feed: [int(number.replace(",", "")) for number in numbers.split()]
        for feed, numbers in found
    }


class TestTheCommand:
    def test_it_succeeds(self, demo: Demo) -> None:
        assert demo.first.returncode == 0, demo.first.stdout + demo.first.stderr

    def test_its_sums_add_up(self, demo: Demo) -> None:
        rows = printed_rows(demo)
        assert rows.keys() == TABLES.keys()
        for source, *outcomes, total in rows.values():
            assert source == sum(outcomes) == total > 0

    def test_it_tells_what_meta_received(self, demo: Demo) -> None:
        told = re.search(
            r"Accepted in the ledger: ([\d,]+)\. Received by the Graph API: ([\d,]+)\.",
            demo.first.stdout,
        )
        assert told
        accepted = sum(outcomes[1] for outcomes in printed_rows(demo).values())
        assert [int(n.replace(",", "")) for n in told.groups()] == [accepted, accepted]

    def test_it_names_three_rows_and_their_fate(self, demo: Demo) -> None:
        told = re.findall(r"^  (\w+) (\S+): (\w+)", demo.first.stdout, re.MULTILINE)
        assert {fate for _, _, fate in told} == {"accepted", "quarantined", "refused"}
        for feed, key, fate in told:
            assert demo.sql(
                "select state::text from capi.deliveries"
                " where feed = %s and source_key = %s",
                feed, key,
            ) == [(fate,)]  # fmt: skip

    def test_its_login_opens_the_address_it_names(self, demo: Demo) -> None:
        told = re.search(
            r"^Airflow +(\S+) +user (\S+) +password (\S+)",
            demo.first.stdout,
            re.MULTILINE,
        )
        assert told
        url, user, password = told.groups()
        answer = requests.post(
            f"{url}/auth/token",
            json={"username": user, "password": password},
            timeout=30,
        )
        assert answer.ok
        assert requests.get(url, timeout=30).ok

    def test_its_data_docs_are_where_it_says(self, demo: Demo) -> None:
        told = re.search(r"^Data Docs (\S+)", demo.first.stdout, re.MULTILINE)
        assert told
        with open(told[1]) as page:
            assert "offline_purchases" in page.read()

    def test_a_taken_port_is_named_with_the_way_out(self, demo: Demo) -> None:
        port = demo.ports["ui"]
        done = demo.command("up", folder=demo.folder.parent / "other")
        assert done.returncode == 1
        assert f"port {port} is taken; choose another, as DEMO_UI_PORT=" in done.stderr
        assert "Traceback" not in done.stderr


class TestTheLedger:
    @pytest.mark.parametrize("feed", TABLES)
    def test_every_source_row_has_one_outcome(self, demo: Demo, feed: str) -> None:
        source = demo.sql(f"select count(*) from {TABLES[feed]}")[0][0]
        states = demo.states(feed)
        assert sum(states.values()) == source
        assert not states.keys() & {"claimed", "pending", "in_doubt"}
        assert states["accepted"] > 0

    def test_meta_took_the_accepted_events_and_no_other(self, demo: Demo) -> None:
        received = demo.received()
        assert received.keys() == demo.accepted_ids()
        assert set(received.values()) == {1}

    def test_every_run_was_reported_without_a_gap(self, demo: Demo) -> None:
        # The schedule's own runs may be on their way at this moment.
        runs = demo.sql("select state from capi.runs where run_id ~ '/manual__'")
        assert runs == [("reported",)] * len(TABLES)


class TestAirflow:
    def test_no_task_needed_a_second_try(self, demo: Demo) -> None:
        for dag_id in (f"send_{feed}" for feed in TABLES):
            # The demo's own, which was the first.
            run_id = min(
                run["dag_run_id"]
                for run in demo.runs(dag_id)
                if run["run_type"] == "manual"
            )
            path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
            tasks = demo.airflow.ask("GET", path)["task_instances"]
            assert [task["try_number"] for task in tasks] == [1] * 5

    def test_a_feeds_own_schedule_ran_too(self, demo: Demo) -> None:
        kinds = {run["run_type"] for run in demo.runs("send_offline_purchases")}
        assert kinds == {"manual", "scheduled"}

    def test_the_log_of_a_delivery_tells_its_story(self, demo: Demo) -> None:
        run = next(
            run["dag_run_id"]
            for run in demo.runs("send_offline_purchases")
            if run["run_type"] == "manual"
        )
        log = demo.log_of("send_offline_purchases", run, "deliver")
        assert "rows read in" in log
        assert "accepted now, in" in log

    def test_the_connection_type_has_its_form_and_its_test_says_yes(
        self, demo: Demo
    ) -> None:
        kinds = demo.airflow.ask("GET", "/connections/meta_capi_default")
        assert kinds["conn_type"] == "meta_capi"
        assert kinds["password"] in (None, "***")
        body = {**kinds, "password": (demo.folder / "token.secret").read_text()}
        answer = demo.airflow.ask("POST", "/connections/test", body)
        assert answer["status"] is True
        assert "answers on v" in answer["message"]


class TestYourOwnFeed:
    """docs/your-own-feed.md; tests/docs/test_own_feed.py follows the rest of it."""

    def shell(self, demo: Demo, *lines: str) -> subprocess.CompletedProcess[str]:
        """Type lines into a shell that has sourced what the demo has written for it."""
        script = "\n".join([f". {demo.folder / 'env'}", *lines])
        kept = {k: v for k, v in os.environ.items() if not k.startswith("META_CAPI")}
        path = f"{ROOT / 'include'}:{ROOT / 'plugins'}"
        return subprocess.run(
            ["sh", "-c", script], cwd=ROOT, env={**kept, "PYTHONPATH": path},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def test_a_shell_finds_all_of_the_demo(self, demo: Demo) -> None:
        text = (ROOT / "docs" / "your-own-feed.md").read_text(encoding="utf-8")
        make, source, *lines = (
            text.partition("```\n")[2].partition("```")[0].split("\n")
        )
        assert (make, source) == ("make demo", ". .demo/env")
        assert lines[0] == "meta-capi check"
        assert self.shell(demo, lines[0]).stdout.endswith("All is well.\n")
        done = self.shell(demo, *lines)
        assert done.stderr == ""
        assert "All is well." in done.stdout
        assert "S-000000003 · feed offline_purchases" in done.stdout
        assert (demo.folder / "env").stat().st_mode & 0o077 == 0
