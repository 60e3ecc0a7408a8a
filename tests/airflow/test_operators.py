"""The tasks of the DAGs, run in this process against PostgreSQL and the Graph API."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.airflow.listener import Listener
from tests.airflow.world import DATASET, TABLES, World, tune

from capi_airflow.ending import FinalFault, TaskEnded, told_plainly
from capi_airflow.operators import (
    DeliverOperator,
    PlanOperator,
    PreflightOperator,
    ReportOperator,
)
from graph_simulator import Fault, FaultKind
from meta_capi import errors
from meta_capi.names import event_id
from meta_capi.words import moment

STEPS = ("preflight", "plan", "validate", "deliver", "report")
ALL_SUCCESS = {**dict.fromkeys(STEPS, "success"), "dag": "success"}
PURCHASES = "send_offline_purchases"


def refusal(operator: Any, context: dict[str, Any]) -> str:
    """Run a task that must fail for good; return its one sentence."""
    with pytest.raises(FinalFault) as caught:
        operator.execute(context)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value)


def sound_orders(world: World, number: int) -> list[str]:
    """Return keys of purchases that nobody has spoilt."""
    found = world.sql(
        "select order_id from shop.offline_purchases where order_id not in"
        " (select row_key from shop.sample_faults) order by order_id limit %s",
        number,
    )
    return [key for (key,) in found]


def test_a_plan_after_an_outage_says_what_it_makes_up_for(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    end = world.until.replace(minute=0, second=0) - timedelta(days=1)
    hour, nothing = timedelta(hours=1), {"start": None, "end": None}
    for run_id, late in (("scheduled__1", 0 * hour), ("scheduled__2", 30 * hour)):
        context = world.context(PURCHASES, run_id, **nothing) | {
            "dag_run": SimpleNamespace(run_type="scheduled"),
            "data_interval_start": end + late - hour,
            "data_interval_end": end + late,
        }
        PlanOperator(task_id="plan", feed="offline_purchases").execute(context)

    said = capsys.readouterr().out
    # The feed looks two intervals back, from wherever it begins.
    told = moment(end - 2 * hour), moment(end + 27 * hour)
    assert "reads from {} on, instead of from {}.".format(*told) in said
    assert said.count("Runs are missing") == 1
    assert world.sql("select interval_start, interval_end from capi.runs") == [
        (end - 3 * hour, end),
        (end - 2 * hour, end + 30 * hour),
    ]


class TestAWholeRun:
    @pytest.mark.parametrize("feed", TABLES)
    def test_every_source_row_has_one_outcome_and_meta_has_what_was_accepted(
        self, world: World, feed: str
    ) -> None:
        assert world.run(f"send_{feed}") == ALL_SUCCESS
        states = world.states(feed)
        assert states.total() == world.rows(feed)
        assert states.keys() <= {
            "accepted", "refused", "quarantined", "withheld", "expired",
        }  # fmt: skip
        assert len(world.sim.received(DATASET)) == states["accepted"] > 0
        assert world.sql("select state, (outcome ->> 'rows')::int from capi.runs") == [
            ("reported", world.rows(feed))
        ]

    def test_running_it_again_sends_nothing(self, world: World) -> None:
        world.run(PURCHASES)
        before, ledger = world.requests, world.states()
        assert world.run(PURCHASES) == ALL_SUCCESS
        assert world.requests == before
        assert world.states() == ledger
        assert world.sql(
            "select outcome ->> 'accepted_now' from capi.runs order by run_no"
        ) == [(str(ledger["accepted"]),), ("0",)]

    def test_several_shards_deliver_every_row_once(
        self, world: World, own_feeds: Path
    ) -> None:
        tune(own_feeds, "limits: {rows_per_shard: 1000, rows_per_slice: 100}")
        world.sql(
            "insert into shop.offline_purchases select * from shop.offline_purchases"
        )
        world.sql(
            "update shop.offline_purchases set order_id = order_id || '-' || ctid::text"
        )
        assert world.run(PURCHASES) == ALL_SUCCESS
        shards = world.sql("select count(*) from capi.workers")[0][0]
        assert shards >= 2
        assert world.states().total() == world.rows("offline_purchases")
        assert world.processed_twice() == []

    def test_an_empty_interval_is_a_run_with_nothing_in_it(self, world: World) -> None:
        early = {"start": "2026-01-02T00:00:00Z", "end": "2026-01-03T00:00:00Z"}
        assert world.run(PURCHASES, early) == ALL_SUCCESS
        assert world.states().total() == 0
        assert world.requests == 0


class TestADryRun:
    @pytest.mark.matrix("T6")
    def test_it_opens_no_socket_to_meta_and_changes_no_delivery(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.run(PURCHASES, {**world.whole, "limit": 100})
        before = world.fingerprint()
        with Listener() as meta:
            world.connect_all(monkeypatch, meta.url)
            assert world.run(PURCHASES, {**world.whole, "dry_run": True}) == ALL_SUCCESS
        assert meta.connections == 0
        assert world.fingerprint() == before
        assert world.sql("select mode from capi.runs order by run_no desc limit 1") == [
            ("dry_run",)
        ]

    def test_it_tells_what_the_run_then_does(self, world: World) -> None:
        world.run("send_crm_leads", {**world.whole, "dry_run": True})
        assert world.states().total() == 0
        assert world.requests == 0
        would = world.sql("select outcome -> 'outcomes' from capi.runs")[0][0]
        world.run("send_crm_leads")
        did = world.states()
        assert would.pop("would be sent") == did.pop("accepted")
        # The gate's finds stay out of a dry run's ledger; the builder finds its own.
        assert set(would) <= set(did)


class TestTheForm:
    def test_a_limit_sends_so_many_and_leaves_the_rest_pending(
        self, world: World
    ) -> None:
        assert world.run(PURCHASES, {**world.whole, "limit": 7}) == ALL_SUCCESS
        states = world.states()
        assert states["accepted"] == 7
        assert world.sql(
            "select reason, count(*) from capi.deliveries where state = 'pending'"
            " group by 1"
        ) == [("limit", states["pending"])]
        assert states.total() == world.rows("offline_purchases")
        world.run(PURCHASES)
        assert world.states()["pending"] == 0
        assert world.processed_twice() == []

    def test_a_limit_holds_over_the_tries_of_a_task(
        self, world: World, own_feeds: Path
    ) -> None:
        tune(
            own_feeds,
            "limits: {rows_per_shard: 1000, events_per_request: 5, requests_in_flight: 1}",
        )
        world.sim.faults.add(Fault(kind=FaultKind.THROTTLE, nth=2, wait_minutes=60))
        context = world.context(PURCHASES, "manual__1", limit=12)
        plan = PlanOperator(task_id="plan", feed="offline_purchases")
        [shard] = plan.execute(context)
        deliver = DeliverOperator(
            task_id="deliver", feed="offline_purchases", shard=shard
        )
        deliver.execute(context)
        assert world.states()["accepted"] == 5
        world.sql("update capi.deliveries set not_before = now() where state='pending'")
        deliver.execute(context)
        assert world.states()["accepted"] == 12
        deliver.execute(context)
        assert world.states()["accepted"] == 12

    def test_its_dates_take_the_place_of_the_interval(self, world: World) -> None:
        start, end = world.until - timedelta(days=20), world.until - timedelta(days=10)
        world.run(PURCHASES, {"start": start.isoformat(), "end": end.isoformat()})
        inside = world.sql(
            "select count(*) from shop.offline_purchases"
            " where loaded_at >= %s and loaded_at < %s",
            start, end,
        )  # fmt: skip
        assert world.states().total() == inside[0][0] > 0

    @pytest.mark.parametrize(
        ("form", "told"),
        [
            ({"start": None, "end": None}, "no data interval. Trigger it with *From*"),
            ({"end": None}, "only one of the dates *From* and *Up to*"),
            ({"start": "2026-01-01T00:00:00"}, "need a zone"),
            ({"start": "last tuesday"}, "are written as"),
            (
                {"start": "2026-02-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
                "ends before it begins",
            ),
        ],
    )
    def test_an_interval_that_cannot_be_is_said_in_one_sentence(
        self, world: World, form: dict[str, Any], told: str
    ) -> None:
        operator = PreflightOperator(task_id="preflight", feed="offline_purchases")
        sentence = refusal(operator, world.context(PURCHASES, "by_hand", **form))
        assert told in sentence
        assert "tuesday" not in sentence

    def test_a_run_without_an_interval_fails_at_once_with_nothing_done(
        self, world: World
    ) -> None:
        states = world.run(PURCHASES, {})
        assert states.pop("preflight") == "failed"
        assert set(states.values()) == {"upstream_failed", "failed"}
        assert world.requests == 0
        assert world.sql("select count(*) from capi.runs") == [(0,)]

    @pytest.mark.matrix("T7")
    def test_a_test_event_code_is_refused_on_a_production_connection(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.connect_all(monkeypatch, "", environment="production")
        context = world.context(PURCHASES, "coded", test_event_code="TEST12345")
        plan = PlanOperator(task_id="plan", feed="offline_purchases")
        (shard,) = plan.execute(context)
        monkeypatch.setattr(socket, "create_connection", _refuse)
        dry = {**context, "params": {**context["params"], "dry_run": True}}
        preflight = PreflightOperator(task_id="preflight", feed="offline_purchases")
        assert "test event code is refused" in refusal(preflight, dry)
        deliver = DeliverOperator(
            task_id="deliver", feed="offline_purchases", shard=shard
        )
        assert "test event code is refused" in refusal(deliver, context)
        assert world.states().total() == 0

    def test_a_test_event_code_goes_out_on_another_connection(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        coded = {**world.whole, "test_event_code": "TEST12345", "limit": 3}
        assert world.run(PURCHASES, coded) == ALL_SUCCESS
        assert world.sql("select mode from capi.runs") == [("test",)]


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("a socket was opened")


class TestTheGate:
    def test_above_its_threshold_nothing_is_sent_and_nobody_tries_again(
        self, world: World
    ) -> None:
        world.sql(
            "update shop.offline_purchases set amount = null"
            " where right(order_id, 1) in ('1', '2')"
        )
        states = world.run(PURCHASES)
        assert states["validate"] == "failed"
        assert states["deliver"] == states["report"] == "upstream_failed"
        assert world.requests == 0
        assert set(world.states()) <= {"quarantined"}
        assert world.sql("select passed from capi.validations") == [(False,)]

    @pytest.mark.matrix("X1")
    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            pytest.param("jane.canary@example.com", "key.personal", id="an address"),
            # 5,700 bytes: an index of PostgreSQL has no room for it.
            pytest.param(
                "".join(map(chr, range(0x4E00, 0x4E00 + 1_900))), "key.too_long",
                id="a long one",
            ),
        ],
    )  # fmt: skip
    def test_a_key_that_names_no_row_stays_out_of_the_ledger(
        self, world: World, key: str, reason: str
    ) -> None:
        [order] = sound_orders(world, 1)
        world.sql("drop index if exists shop.offline_purchases_by_order_id")
        world.sql(
            "update shop.offline_purchases set order_id = %s, amount = null"
            " where order_id = %s",
            key, order,
        )  # fmt: skip
        assert world.run(PURCHASES) == ALL_SUCCESS
        assert world.states().total() == world.rows("offline_purchases")
        held = world.sql(
            "select source_key from capi.deliveries where reason = %s", reason
        )
        assert len(held) == 1
        assert not world.sql("select 1 from capi.deliveries where source_key = %s", key)

    def test_it_tells_the_share_and_the_threshold(
        self, world: World, capfd: pytest.CaptureFixture[str]
    ) -> None:
        world.sql("update shop.offline_purchases set amount = null")
        world.run(PURCHASES)
        log = capfd.readouterr().out
        assert "The quality gate stopped the run; nothing was sent." in log
        assert "offline_purchases allows 10.0% (quality.max_quarantined_share)" in log
        assert "Traceback" not in log.split("The quality gate stopped")[0]


class TestMetaSaysStop:
    def test_a_token_revoked_midway_fails_the_task_and_leaves_rows_pending(
        self, world: World, own_feeds: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        tune(own_feeds, "limits: {events_per_request: 50, requests_in_flight: 1}")
        world.sim.faults.add(Fault(kind=FaultKind.TOKEN_REVOKED, nth=3, count=None))
        states = world.run(PURCHASES)
        # Not up_for_retry: a person has to act first.
        assert (states["deliver"], states["report"]) == ("failed", "upstream_failed")
        log = capfd.readouterr().out
        assert "Meta stopped the run: the access token is missing, invalid" in log
        assert "code 190, subcode 463" in log
        assert "all rows stay pending" in log
        stopped = world.states()
        assert stopped["accepted"] == 100
        assert stopped["pending"] > 100
        assert set(stopped) <= {
            "accepted", "pending", "quarantined", "withheld", "expired",
        }  # fmt: skip
        # Mended, the next run sends what is left and nothing twice.
        world.sim.faults.clear()
        assert world.run(PURCHASES) == ALL_SUCCESS
        assert world.states()["pending"] == 0
        assert world.processed_twice() == []

    def test_refused_events_are_found_and_the_others_go_out(self, world: World) -> None:
        guilty = [event_id(DATASET, "Purchase", key) for key in sound_orders(world, 2)]
        world.sim.faults.add(
            Fault(kind=FaultKind.REFUSE_IF, event_ids=frozenset(guilty), count=None)
        )
        assert world.run(PURCHASES) == ALL_SUCCESS
        refused = world.sql(
            "select event_id from capi.deliveries where state = 'refused'"
        )
        assert {key for (key,) in refused} == set(guilty)


class TestPreflight:
    def test_all_that_is_wrong_is_said_at_once(
        self, world: World, capfd: pytest.CaptureFixture[str]
    ) -> None:
        world.sql("alter table shop.offline_purchases drop column currency")
        world.sql("drop schema capi cascade")
        world.sim.faults.add(Fault(kind=FaultKind.TOKEN_REVOKED, edge="dataset"))
        operator = PreflightOperator(task_id="preflight", feed="offline_purchases")
        context = world.context(PURCHASES, "first", start=None, end=None)
        sentence = refusal(operator, context)
        assert "more, see the log" in sentence
        log = capfd.readouterr().out
        for part in (
            "currency", "Run `meta-capi migrate`", "access token", "no data interval",
        ):  # fmt: skip
            assert part in log

    def test_every_missing_connection_has_its_sentence(
        self, world: World, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        for name in ("CAPI_WAREHOUSE", "CAPI_LEDGER", "META_CAPI_DEFAULT"):
            monkeypatch.delenv(f"AIRFLOW_CONN_{name}")
        operator = PreflightOperator(task_id="preflight", feed="offline_purchases")
        refusal(operator, world.context(PURCHASES, "first"))
        log = capfd.readouterr().out
        for name in ("capi_warehouse", "capi_ledger", "meta_capi_default"):
            assert f"There is no connection '{name}'" in log


class TestTheReport:
    def test_a_row_without_an_outcome_fails_it(self, world: World) -> None:
        context = world.context(PURCHASES, "gap")
        PlanOperator(task_id="plan", feed="offline_purchases").execute(context)
        counts = context["ti"].pushed["counts"]
        tally = {
            "rows": counts["rows"], "outcomes": {"accepted": counts["rows"] - 1},
            "reasons": {}, "flaws": {}, "requests": 1, "accepted_now": 1,
        }  # fmt: skip
        report = ReportOperator(
            task_id="report", feed="offline_purchases", counts=counts, tallies=[tally]
        )
        sentence = refusal(report, context)
        rows = f"{counts['rows']:,}"
        assert f"{rows} rows planned" in sentence
        assert f"{counts['rows'] - 1:,} with an outcome" in sentence
        assert world.sql("select state from capi.runs") == [("gap",)]

    def test_a_shard_that_read_too_few_rows_fails_it(self, world: World) -> None:
        context = world.context(PURCHASES, "gap")
        PlanOperator(task_id="plan", feed="offline_purchases").execute(context)
        counts = context["ti"].pushed["counts"]
        tally = {
            "rows": counts["rows"] - 5, "outcomes": {"accepted": counts["rows"] - 5},
            "reasons": {}, "flaws": {}, "requests": 1, "accepted_now": 1,
        }  # fmt: skip
        report = ReportOperator(
            task_id="report", feed="offline_purchases", counts=counts, tallies=[tally]
        )
        assert "do not add up" in refusal(report, context)


class TestReplayAndTend:
    def test_a_corrected_row_is_replayed_and_no_other(self, world: World) -> None:
        set_currency = (
            "update shop.offline_purchases set currency = %s where order_id = any(%s)"
        )
        keys = sound_orders(world, 3)
        world.sql(set_currency, "ZZZ", keys)
        world.run(PURCHASES)
        before = {each.event_id for each in world.sim.received(DATASET)}
        key = keys[1]
        world.sql(set_currency, "EUR", [key])
        form = {"feed": "offline_purchases", "reason": "currency.unknown"}
        planned = world.fingerprint()
        assert world.run("replay_deliveries", form)["replay"] == "success"
        assert world.fingerprint() == planned, "planning changed a delivery"
        words = {**form, "dry_run": False}
        assert world.run("replay_deliveries", words)["replay"] == "failed"
        assert world.fingerprint() == planned, "nobody said why"
        states = world.run("replay_deliveries", {**words, "why": "the bank's mistake"})
        assert states["replay"] == "success"
        assert world.sql("select kind, who, why, deliveries from capi.acts") == [
            ("replay", "airflow:dag_test", "the bank's mistake", len(keys))
        ]
        after = {each.event_id for each in world.sim.received(DATASET)}
        assert after - before == {event_id(DATASET, "Purchase", key)}
        assert world.sql(
            "select state::text from capi.deliveries where source_key = %s", key
        ) == [("accepted",)]

    def test_tending_sends_what_is_pending(self, world: World) -> None:
        world.sim.faults.add(Fault(kind=FaultKind.THROTTLE, count=9, wait_minutes=60))
        world.run(PURCHASES)
        assert world.states()["pending"] > 0
        world.sim.faults.clear()
        before = world.requests
        assert world.run("tend_deliveries", {})["dag"] == "success"
        assert world.requests == before, "Meta's wait is not over"
        world.sql(
            "update capi.deliveries set not_before = now() where state = 'pending'"
        )
        assert world.run("tend_deliveries", {})["dag"] == "success"
        assert world.states()["pending"] == 0
        assert world.processed_twice() == []

    @pytest.mark.parametrize("blank", [" ", "\t ", "\N{NO-BREAK SPACE}"])
    def test_a_pending_row_is_found_by_its_key_whatever_blanks_stand_around_it(
        self, world: World, blank: str
    ) -> None:
        world.sql("update shop.offline_purchases set order_id = order_id || %s", blank)
        world.sim.faults.add(Fault(kind=FaultKind.THROTTLE, count=9, wait_minutes=60))
        world.run(PURCHASES)
        assert world.states()["pending"] > 0
        world.sim.faults.clear()
        world.sql(
            "update capi.deliveries set not_before = now() where state = 'pending'"
        )
        assert world.run("tend_deliveries", {})["dag"] == "success"
        assert world.states()["pending"] == 0
        assert world.states()["accepted"] > 0
        assert world.processed_twice() == []

    def test_tending_what_is_tended_sends_nothing(self, world: World) -> None:
        world.run(PURCHASES)
        before = world.requests
        assert world.run("tend_deliveries", {})["dag"] == "success"
        assert world.requests == before


class TestFaultsAreToldPlainly:
    """An expected fault ends a task in a sentence; passing ones are tried again."""

    FINAL = (
        errors.ConfigurationError, errors.FeedError, errors.GateError,
        errors.ReconciliationError, errors.StoppedError,
    )  # fmt: skip
    PASSING = (
        errors.SourceError, errors.LedgerError, errors.SchemaError, errors.LeaseLostError,
    )  # fmt: skip

    @pytest.mark.parametrize("kind", [*FINAL, *PASSING])
    def test_each_kind_ends_as_it_should(self, kind: type[errors.CapiError]) -> None:
        error = kind(["It is so."]) if kind is errors.FeedError else kind("It is so.")
        with pytest.raises(TaskEnded) as caught, told_plainly(_Silent()):
            raise error
        assert str(caught.value) == "It is so."
        assert isinstance(caught.value, FinalFault) == (kind in self.FINAL)
        assert caught.value.__suppress_context__

    def test_every_kind_of_error_was_asked(self) -> None:
        def below(kind: type[errors.CapiError]) -> set[type[errors.CapiError]]:
            return {kind}.union(*(below(each) for each in kind.__subclasses__()))

        inner = {errors.CapiError, errors.NoAnswerError}  # neither leaves the core
        assert below(errors.CapiError) - inner == {*self.FINAL, *self.PASSING}


class _Silent:
    def error(self, *_: object) -> None:
        """Say nothing."""
