"""The command line in a world in which a conversion of every fate has happened.

Whatever a command writes is searched for the canaries that every row of it carries.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import make_url
from tests.conftest import Database
from tests.house_rules import ROOT
from tests.ledger.small_world import CANARIES, DATASET, TOKEN, World, small_world

from demo.postgres import Postgres
from graph_simulator import Fault, FaultKind
from meta_capi import insight
from meta_capi.catalogue import PAGE, anchor, reason
from meta_capi.cli import main
from meta_capi.lifecycle import State
from meta_capi.names import event_id
from meta_capi.sql import migrations

SALES = "store_sales"


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    complaint: str

    @property
    def words(self) -> str:
        """All it wrote, as one line."""
        return " ".join(f"{self.out} {self.complaint}".split())

    @property
    def event(self) -> dict[str, object]:
        """The first event shown."""
        found = re.search(r"^  \{$.*?^  \}$", self.out, re.MULTILINE | re.DOTALL)
        assert found
        return dict(json.loads(found[0]))


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def world(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One world for all; the commands write nothing that another would see."""
    with small_world(postgres, tmp_path_factory.mktemp("cli")) as made:
        yield made


@pytest.fixture
def run(world: World, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in the world; a variable that is None is not set."""

    def run(*arguments: str, **changes: str | None) -> Done:
        merged = world.environ | changes
        environ = {name: text for name, text in merged.items() if text is not None}
        out = io.StringIO()
        code = main(list(arguments), environ=environ, out=out, now=world.now)
        done = Done(code, out.getvalue(), capsys.readouterr().err)
        digests = 64 if "--exact" in arguments else 0
        found = [
            each for each in CANARIES if each in done.words and len(each) != digests
        ]
        assert not found, "a customer's data was shown"
        assert "Traceback" not in done.words
        json_lines = re.compile(r'^ +["{}\[\]]')
        lines = [line for line in done.out.splitlines() if not json_lines.match(line)]
        assert max(map(len, lines), default=0) <= 100
        return done

    return run


class TestExplain:
    @pytest.mark.parametrize(
        ("key", "state", "code"),
        [
            ("refused", "Refused", "meta.100.2804019"),
            ("negative", "Quarantined", "value.negative"),
            ("unconsented", "Withheld", "consent.not_given"),
            ("broad", "Withheld", "match_keys.too_broad"),
            ("ancient", "Expired", "window.over"),
            ("waiting", "Pending", "limit"),
            ("gated", "Quarantined", "gate.failed"),
        ],
    )
    def test_a_conversion_that_is_not_at_meta_has_its_reason_and_what_to_do(
        self, run: Run, key: str, state: str, code: str
    ) -> None:
        done = run("explain", key)
        assert done.code == 1
        assert f"Ledger {state} since" in done.words
        assert f"{code}: {reason(code).meaning}" in done.words
        assert f"Next {' '.join(reason(code).action.split())}" in done.words
        assert done.words.endswith(f"Page {PAGE}#{anchor(code)}")

    def test_an_accepted_conversion_needs_nothing(self, run: Run) -> None:
        done = run("explain", "ok-1")
        assert done.code == 0
        assert "Accepted since" in done.words
        assert "accepted, HTTP 200, Meta counted" in done.words
        assert done.words.endswith("Nothing: Meta has it.")

    def test_a_doubt_that_the_feed_holds_is_a_persons(self, run: Run) -> None:
        done = run("explain", "doubtful")
        assert done.code == 1
        assert "In doubt since" in done.words
        assert "unknown" in done.words
        assert reason("doubt.held").action in done.words
        assert done.words.rpartition(" ")[2].startswith(f"{PAGE}#answer.")

    def test_the_way_of_a_refused_event_is_told_from_the_first_batch(
        self, run: Run, world: World
    ) -> None:
        done = run("explain", "refused")
        [story] = insight.explain(world.ledger, ["refused"])
        places = [done.words.index(f"#{step.batch_id}") for step in story.lineage]
        assert places == sorted(places)
        for step in story.lineage:
            for attempt in step.attempts:
                assert f"trace {attempt.fbtrace_id}" in done.words
        assert "code 100, subcode 2804019" in done.words

    def test_a_gate_is_named_with_the_expectation_that_failed(self, run: Run) -> None:
        done = run("explain", "gated")
        assert "Held by the gate store_sales" in done.words
        assert "expect_column_values_to_be_between" in done.words

    def test_a_row_changed_after_acceptance_is_told_as_such(self, run: Run) -> None:
        done = run("explain", "changed")
        assert done.code == 0
        assert "changed after Meta had accepted" in done.words
        assert "Nothing is sent again" in done.words

    def test_a_mended_row_is_promised_to_the_next_run(
        self, run: Run, world: World
    ) -> None:
        change = "update shop.sales set amount = %s where order_id = 'negative'"
        world.execute(change, "5")
        try:
            done = run("explain", "negative")
        finally:
            world.execute(change, "-5")
        assert "Ledger Quarantined" in done.words
        assert "By today's rules the event would be sent" in done.words

    def test_no_match_key_is_told_of_a_customer_without_consent(self, run: Run) -> None:
        assert "email" not in run("explain", "unconsented").out
        assert "email" in run("explain", "negative").out

    def test_a_dropped_match_key_is_told_with_its_reason(self, run: Run) -> None:
        done = run("explain", "nophone")
        assert done.code == 0
        assert "ph is left out: ph.not_a_number." in done.words

    def test_an_event_id_is_as_good_as_a_key(self, run: Run) -> None:
        done = run("explain", event_id(DATASET, "Purchase", "ok-2"))
        assert done.code == 0
        assert done.out.startswith("ok-2 · feed store_sales")

    def test_a_row_that_no_run_has_read_is_looked_up_in_the_source(
        self, run: Run
    ) -> None:
        done = run("explain", "unread")
        assert done.code == 1
        assert "no run has read the row" in done.words
        assert "send_store_sales reads it with the interval" in done.words

    def test_rows_with_one_key_are_told_to_be_several(self, run: Run) -> None:
        done = run("explain", "twin")
        assert done.code == 1
        assert "2 rows of shop.sales have this key" in done.words
        assert "key.duplicate" in done.words

    def test_a_key_of_several_columns_is_found(self, run: Run) -> None:
        done = run("explain", "L%7C1|won")
        assert done.code == 0
        assert "Accepted since" in done.words

    def test_an_unknown_key_is_known_nowhere(self, run: Run) -> None:
        done = run("explain", "nobody")
        assert done.code == 1
        assert "Neither the ledger nor a source knows the key 'nobody'" in done.words

    def test_a_key_is_looked_for_in_the_named_feed_only(self, run: Run) -> None:
        assert run("explain", "ok-1", "--feed", SALES).code == 0
        done = run("explain", "ok-1", "--feed", "lead_stages")
        assert done.code == 1
        assert "Neither the ledger" in done.words

    @pytest.mark.parametrize(
        "url", [None, "postgresql://nobody:wrong@127.0.0.1:1/nothing"]
    )
    def test_the_ledgers_part_is_told_without_a_warehouse(
        self, run: Run, url: str | None
    ) -> None:
        done = run("explain", "ok-1", META_CAPI_WAREHOUSE=url)
        assert done.code == 0
        assert "shop.sales was not read." in done.words
        assert "Accepted since" in done.words
        assert "wrong" not in done.words
        lost = run("explain", "nobody", META_CAPI_WAREHOUSE=url)
        assert lost.code == 1
        assert "not looked up" in lost.words

    def test_a_row_that_is_gone_still_has_its_story(
        self, run: Run, world: World
    ) -> None:
        world.execute("update shop.sales set order_id = 'away' where order_id = 'ok-9'")
        try:
            done = run("explain", "ok-9")
        finally:
            world.execute(
                "update shop.sales set order_id = 'ok-9' where order_id = 'away'"
            )
        assert done.code == 0
        assert "No row of shop.sales has this key (any more)." in done.words

    def test_a_delivery_whose_feed_file_is_gone_still_has_its_story(
        self, run: Run, world: World, tmp_path: Path
    ) -> None:
        (tmp_path / "feeds").mkdir()
        name = "feeds/lead_stages.yaml"
        (tmp_path / name).write_text((world.home / name).read_text())
        done = run("explain", "ok-1", META_CAPI_HOME=str(tmp_path))
        assert done.code == 0
        assert "The feed's file is gone" in done.words


class TestPreview:
    def test_it_shows_the_event_that_the_run_sent(self, run: Run) -> None:
        done = run("preview", SALES, "--key", "ok-1")
        assert done.code == 0
        assert done.event["event_id"] == event_id(DATASET, "Purchase", "ok-1")
        assert done.event["custom_data"] == {
            "value": 12.5, "currency": "USD", "order_id": "ok-1",
            "content_name": "Z••• (9 characters)",
            "contents": [
                {"id": "sku-1", "quantity": 1, "title": "Z••• (9 characters)"}
            ],
        }  # fmt: skip

    def test_digests_are_shortened_unless_asked_for(self, run: Run) -> None:
        short = run("preview", SALES, "--key", "ok-1").event["user_data"]
        whole = run("preview", SALES, "--key", "ok-1", "--exact").event["user_data"]
        assert isinstance(short, dict)
        assert isinstance(whole, dict)
        assert CANARIES[-2:] == (whole["em"][0], whole["ph"][0])
        assert short["em"] == [f"{whole['em'][0][:4]}…"]
        assert short["client_ip_address"] == whole["client_ip_address"]

    def test_a_held_row_has_no_event_but_a_reason(self, run: Run) -> None:
        done = run("preview", SALES, "--key", "negative")
        assert done.code == 0
        assert "would be quarantined: value.negative." in done.words
        assert "event_name" not in done.out
        assert "1 row read, 0 would be sent." in done.words

    def test_it_writes_nothing_and_sends_nothing(self, run: Run, world: World) -> None:
        before = _ledger_rows(world), world.sim.counts(DATASET)
        run("preview", SALES, "--limit", "30")
        assert (_ledger_rows(world), world.sim.counts(DATASET)) == before

    def test_the_limit_is_the_number_of_rows(self, run: Run) -> None:
        assert "(row 2 of 2)" in run("preview", SALES, "--limit", "2").out

    def test_without_a_dataset_it_says_what_is_not_true_of_the_event(
        self, run: Run
    ) -> None:
        done = run("preview", SALES, "--limit", "1", META_CAPI_DATASET=None)
        assert done.code == 0
        assert "the event_id shown is not the one that will be sent" in done.words

    def test_an_unknown_key_is_one_thing_found(self, run: Run) -> None:
        done = run("preview", SALES, "--key", "nobody")
        assert done.code == 1
        assert "No row of shop.sales has this key." in done.words


class TestSendTest:
    def test_some_events_go_out_with_the_code_and_the_ledger_is_not_told(
        self, run: Run, world: World
    ) -> None:
        before = _ledger_rows(world), world.sim.counts(DATASET).received
        done = run("send-test", SALES, "--code", "TEST12345", "--limit", "3")
        assert done.code == 0
        assert "WARNING" in done.out
        assert "The ledger is not told" in done.out
        assert "3 events: Meta took it" in done.words
        assert _ledger_rows(world) == before[0]
        assert world.sim.counts(DATASET).received == before[1] + 3

    @pytest.mark.parametrize("code", ["", " "])
    def test_an_empty_code_sends_nothing(
        self, run: Run, world: World, code: str
    ) -> None:
        """As of a shell's variable that is not set: without a code it would count."""
        before = world.sim.counts(DATASET).arrived
        done = run("send-test", SALES, "--code", code)
        assert done.code == 2
        assert "The test event code is empty" in done.words
        assert world.sim.counts(DATASET).arrived == before

    def test_production_is_never_sent_a_test(self, run: Run, world: World) -> None:
        before = world.sim.counts(DATASET).arrived
        done = run(
            "send-test", SALES, "--code", "TEST12345",
            META_CAPI_GRAPH_URL=None, META_CAPI_ENVIRONMENT=None,
        )  # fmt: skip
        assert done.code == 2
        assert "counts as production" in done.words
        assert world.sim.counts(DATASET).arrived == before

    def test_more_than_ten_are_refused(self, run: Run, world: World) -> None:
        before = world.sim.counts(DATASET).arrived
        done = run("send-test", SALES, "--code", "TEST12345", "--limit", "11")
        assert done.code == 2
        assert "1 to 10 events" in done.words
        assert world.sim.counts(DATASET).arrived == before

    def test_of_a_refused_request_each_event_is_asked_about_alone(
        self, run: Run, world: World
    ) -> None:
        guilty = event_id(DATASET, "Purchase", "ok-1")
        fault = Fault(kind=FaultKind.REFUSE_IF, count=2, event_ids=frozenset({guilty}))
        world.sim.faults.add(fault)
        done = run("send-test", SALES, "--code", "TEST12345", "--limit", "3")
        assert done.code == 1
        assert "ok-0: Meta took it" in done.words
        assert "ok-1: refused (HTTP 400, code 100, subcode 2804019" in done.words

    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            (FaultKind.THROTTLE, "Meta asks to wait"),
            (FaultKind.TOKEN_REVOKED, "the access token is missing, invalid"),
            (FaultKind.HANG_UP_AFTER_READING, "nobody knows"),
            (FaultKind.STATUS, "nobody knows"),
        ],
    )
    def test_every_other_answer_is_a_sentence_too(
        self, run: Run, world: World, fault: FaultKind, words: str
    ) -> None:
        world.sim.faults.add(Fault(kind=fault))
        done = run("send-test", SALES, "--code", "TEST12345", "--limit", "1")
        assert done.code == 1
        assert words in done.words

    def test_where_nobody_answers_it_says_that_nothing_was_sent(self, run: Run) -> None:
        done = run(
            "send-test", SALES, "--code", "TEST12345",
            META_CAPI_GRAPH_URL="http://127.0.0.1:1",
        )  # fmt: skip
        assert done.code == 1
        assert "did not reach Meta" in done.words


class TestCheck:
    def test_a_whole_world_is_well(self, run: Run) -> None:
        done = run("check")
        assert done.code == 0
        assert "FAULT" not in done.out
        assert done.words.endswith("All is well.")

    @pytest.mark.parametrize(
        ("channels", "told"),
        [
            (None, "LOOK alerts: AIRFLOW_VAR_META_CAPI_ALERTS names no channel."),
            ('{"to": "kana@example.com"}', "LOOK alerts:"),
            ('{"slack": "kana", "webhook": "x"}', "OK alerts: told by slack, webhook"),
            ('{"slak": "kana"}', "FAULT alerts: The Airflow Variable"),
            (
                '{"email": "kana"}',
                "FAULT alerts: The Airflow Variable 'meta_capi_alerts' names no recip",
            ),
            ('{"email": "x", "to": "kana@example.com"}', "OK alerts: told by email"),
        ],
    )
    def test_it_says_who_is_told_of_failures(
        self, run: Run, channels: str | None, told: str
    ) -> None:
        done = run("check", SALES, AIRFLOW_VAR_META_CAPI_ALERTS=channels)
        assert told in done.words
        assert done.code == int("FAULT" in told)
        assert "kana" not in done.words

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"META_CAPI_TOKEN": None}, "No access token: set META_CAPI_TOKEN"),
            ({"META_CAPI_TOKEN": "EAABother0123456789"}, "invalid, expired or revoked"),
            ({"META_CAPI_DATASET": "999999999"}, "the dataset does not exist"),
            ({"META_CAPI_GRAPH_URL": "http://127.0.0.1:1"}, "Check the network"),
            ({"META_CAPI_LEDGER": None}, "No ledger is named"),
            ({"META_CAPI_LEDGER": "postgresql://u:kana@127.0.0.1:1/d"}, "The ledger's"),
        ],
    )
    def test_what_is_missing_is_one_fault(
        self, run: Run, changes: dict[str, str | None], fault: str
    ) -> None:
        done = run("check", SALES, **changes)
        assert done.code == 1
        assert fault in done.words
        assert done.words.endswith("1 fault to mend before a run.")
        assert "kana" not in done.words

    def test_an_empty_database_lacks_the_schema_and_the_table(
        self, run: Run, database: Database
    ) -> None:
        url = database.dsn
        done = run("check", SALES, META_CAPI_LEDGER=url, META_CAPI_WAREHOUSE=url)
        assert done.code == 1
        assert "run `meta-capi migrate`" in done.words
        assert "The warehouse has no table shop.sales" in done.words

    def test_a_missing_suite_and_a_missing_column_are_told_together(
        self, run: Run, world: World, tmp_path: Path
    ) -> None:
        (tmp_path / "feeds").mkdir()
        path = Path("feeds", f"{SALES}.yaml")
        text = (world.home / path).read_text().replace("em: email", "em: e_mail")
        (tmp_path / path).write_text(text)
        done = run("check", META_CAPI_HOME=str(tmp_path))
        assert done.code == 1
        assert "has no column e_mail; did you mean email?" in done.words
        assert f"{SALES}.json: does not exist" in done.words

    def test_a_broken_feed_does_not_hide_the_others(
        self, run: Run, world: World, tmp_path: Path
    ) -> None:
        for folder in ("feeds", "expectations"):
            (tmp_path / folder).mkdir()
            for path in (world.home / folder).iterdir():
                (tmp_path / folder / path.name).write_text(path.read_text())
        (tmp_path / "feeds" / "broken.yaml").write_text("feed: broken\n")
        done = run("check", META_CAPI_HOME=str(tmp_path))
        assert done.code == 1
        assert "FAULT broken.yaml:1: " in done.words
        assert f"OK feed {SALES}" in done.words
        assert "OK Meta" in done.words

    def test_an_unknown_feed_is_a_wrong_usage(self, run: Run) -> None:
        done = run("check", "stor_sales")
        assert done.code == 2
        assert "did you mean store_sales?" in done.words


class TestMigrate:
    def test_it_says_what_it_made_and_then_that_nothing_is_left(
        self, run: Run, database: Database
    ) -> None:
        first = run("migrate", META_CAPI_LEDGER=database.dsn)
        assert first.code == 0
        for step in migrations():
            assert f"made {step.name}" in first.words
        again = run("migrate", META_CAPI_LEDGER=database.dsn)
        assert (again.code, again.words) == (0, "Nothing to do.")
        assert run("status", META_CAPI_LEDGER=database.dsn).code == 0

    def test_without_a_schema_the_other_commands_say_to_migrate(
        self, run: Run, database: Database
    ) -> None:
        for command in (["status"], ["explain", "ok-1"]):
            done = run(*command, META_CAPI_LEDGER=database.dsn)
            assert done.code == 2
            assert "run `meta-capi migrate`" in done.words


def test_the_longest_retention_that_a_feed_may_say_can_be_kept(
    run: Run, world: World, tmp_path: Path
) -> None:
    shutil.copytree(world.home, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "feeds" / f"{SALES}.yaml"
    path.write_text(path.read_text() + "retention: 36525d\n")
    for command in ("retain", "status"):
        assert run(command, SALES, META_CAPI_HOME=str(tmp_path)).code < 2


class TestABrokenFeedFile:
    @pytest.fixture
    def home(self, world: World, tmp_path: Path) -> str:
        """Feeds as they are, and one whose file is wrong."""
        shutil.copytree(world.home, tmp_path, dirs_exist_ok=True)
        (tmp_path / "feeds" / "broken.yaml").write_text("feed: broken\n")
        return str(tmp_path)

    @pytest.mark.parametrize(
        ("command", "code", "said"),
        [
            (["status"], 1, "LOOK broken: its file is wrong, so it does not run."),
            (["explain", "ok-1"], 0, "Accepted since"),
            (["explain", "nobody's"], 1, "broken: not looked up. Its file is wrong."),
            (["retain", "--dry-run"], 1, "store_sales: 0 deliveries from before"),
        ],
    )
    def test_it_is_told_of_and_does_not_keep_the_others_from_being_looked_at(
        self, run: Run, home: str, command: list[str], code: int, said: str
    ) -> None:
        done = run(*command, META_CAPI_HOME=home)
        assert done.code == code
        assert said in done.words
        [line] = done.complaint.splitlines()
        assert line.startswith("broken is left out: its file has 7 faults; see ")

    def test_a_ledger_is_made_and_put_to_use_without_it(
        self, run: Run, home: str, database: Database
    ) -> None:
        where = {"META_CAPI_HOME": home, "META_CAPI_LEDGER": database.dsn}
        assert run("migrate", **where).code == 0
        done = run("restored", "--since", "2026-11-01", "--why", "a test", **where)
        assert done.code == 0
        assert "0 deliveries are in doubt" in done.words

    def test_it_is_not_left_out_where_it_is_named(self, run: Run, home: str) -> None:
        done = run("status", "broken", META_CAPI_HOME=home)
        assert done.code == 2
        assert "broken.yaml:1: description: is missing" in done.words

    @pytest.mark.parametrize(
        ("command", "advice"),
        [
            ("status", "name a feed, or the ledger with --ledger"),
            ("explain ok-1", "name a feed, or the ledger with --ledger"),
            ("migrate", "; name the ledger with --ledger"),
            (
                "restored --since 2026-11-01 --why why",
                "; name the ledger with --ledger",
            ),
        ],
    )
    def test_of_several_ledgers_a_command_asks_for_one_in_a_way_that_it_takes(
        self, run: Run, home: str, command: str, advice: str
    ) -> None:
        path = Path(home, "feeds", f"{SALES}.yaml")
        path.write_text(path.read_text() + "connections: {ledger: other_ledger}\n")
        done = run(*command.split(), META_CAPI_HOME=home, META_CAPI_LEDGER=None)
        assert done.code == 2
        assert advice in done.words


class TestPlanAndStatus:
    def test_a_plan_counts_the_source_and_the_ledger(
        self, run: Run, world: World
    ) -> None:
        start = f"{world.now - timedelta(days=1):%Y-%m-%dT%H:%M}"
        done = run("plan", SALES, "--from", start)
        assert done.code == 0
        [[rows]] = world.execute("select count(*) from shop.sales")
        [standing] = insight.status(world.ledger, SALES)
        assert f"all {rows}" in done.words
        assert "without consent 1" in done.words
        assert "too old for Meta 1" in done.words
        assert f"accepted {standing.accepted}" in done.words
        assert "1 shard" in done.words

    @pytest.mark.parametrize(
        ("times", "complaint"),
        [
            (["--from", "yesterday"], "--from is not a time"),
            (["--from", "2026-01-02", "--to", "x"], "--to is not a time"),
            (["--from", "2026-01-02", "--to", "2026-01-01"], "ends before it begins"),
            (
                ["--from", "2026-01-02", "--to", "9999-12-31T23:59:59-05:00"],
                "--to is not a time",
            ),
            (["--from", "0001-01-01T00:00:00+05:00"], "--from is not a time"),
        ],
    )
    def test_times_that_are_none_are_refused(
        self, run: Run, times: list[str], complaint: str
    ) -> None:
        done = run("plan", SALES, *times)
        assert done.code == 2
        assert complaint in done.words

    def test_the_status_finds_the_doubt(self, run: Run) -> None:
        done = run("status", SALES)
        assert done.code == 1
        assert "store_sales: 1 event in doubt" in done.words
        for code in ("meta.100.2804019", "window.over", "gate.failed"):
            assert code in done.out
        assert "150.00 USD" in done.out
        assert re.search(r"^ph +11 +91\.7%$", done.out, re.MULTILINE)

    def test_a_feed_without_worries_ends_with_zero(self, run: Run) -> None:
        done = run("status", "lead_stages")
        assert done.code == 0
        assert "Nothing waits for a person." in done.words

    def test_what_expires_soon_is_a_worry(self, run: Run, world: World) -> None:
        change = (
            "update capi.deliveries set event_time = %s where source_key = 'waiting'"
        )
        world.execute(change, world.now - timedelta(days=61))
        try:
            done = run("status")
        finally:
            world.execute(change, world.now - timedelta(minutes=90))
        assert done.code == 1
        assert "store_sales: 1 event pending, too old for Meta within" in done.words

    def test_deliveries_of_a_state_are_listed(self, run: Run) -> None:
        for state in (State.REFUSED, State.WITHHELD, State.CLAIMED):
            done = run("status", SALES, "--list", state)
            assert done.code == 0
        assert "refused" in run("status", SALES, "--list", "refused").out
        assert run("status", "--list", "refused").code == 2


class TestEnvironment:
    def test_airflows_variables_serve_as_well(self, run: Run, world: World) -> None:
        url = make_url(world.url)
        database = json.dumps({
            "conn_type": "postgres", "host": url.host, "port": url.port,
            "login": url.username, "password": url.password, "schema": url.database,
        })  # fmt: skip
        meta = (
            f"meta-capi://:{TOKEN}@{quote(world.sim.url, '')}/"
            f"?dataset_id={DATASET}&environment=local"
        )
        done = run(
            "check",
            AIRFLOW_CONN_CAPI_WAREHOUSE=database,
            AIRFLOW_CONN_CAPI_LEDGER=database,
            AIRFLOW_CONN_META_CAPI_DEFAULT=meta,
            **dict.fromkeys(set(world.environ) - {"META_CAPI_HOME"}),
        )
        assert done.code == 0
        assert f"dataset {DATASET} answers" in done.words

    def test_an_option_goes_before_a_variable(self, run: Run, world: World) -> None:
        done = run(
            "status", "--ledger", world.environ["META_CAPI_LEDGER"],
            META_CAPI_LEDGER="postgresql://u@127.0.0.1:1/d",
        )  # fmt: skip
        assert done.code == 1
        done = run("check", SALES, "--dataset", "999999999")
        assert "the dataset does not exist" in done.words

    def test_it_is_a_program(self, world: World) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "meta_capi", "explain", "refused"],
            env=world.environ
            | {"PYTHONPATH": os.pathsep.join([f"{ROOT}/include", f"{ROOT}/plugins"])}
            | {"PYTHONIOENCODING": "ascii"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr == ""
        assert "Ledger     Refused since" in done.stdout
        assert not [each for each in CANARIES if each in done.stdout]


def _ledger_rows(world: World) -> list[tuple[object, ...]]:
    return world.execute(
        "select (select count(*) from capi.deliveries),"
        " (select count(*) from capi.runs), (select count(*) from capi.batches),"
        " (select count(*) from capi.attempts),"
        " (select count(*) from capi.workers)"
    )
