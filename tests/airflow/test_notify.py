"""Alerts from inside Airflow, to a real mail server and real web servers."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.log import redact
from tests.airflow.people import MailServer, Web
from tests.airflow.world import DATASET, TOKEN, Messages, World

from capi_airflow import notify
from capi_airflow.channels import channels
from capi_airflow.ending import FinalFault
from capi_airflow.notify import TellFailure
from capi_airflow.postbox import UndeliveredError, post_json
from capi_airflow.stage import Stage
from capi_airflow.tending import TendOperator
from graph_simulator import Fault, FaultKind
from meta_capi.alerts import Kind
from meta_capi.channel_names import VARIABLE
from meta_capi.errors import ConfigurationError

FEED, TEND = "offline_purchases", "tend_deliveries"
SECRET = "T00/B00/canaryOfTheWebhook"
PASSWORD = "canaryOfTheBearer"
READER = "canary.reader@shop.example"
BASE = "https://airflow.example"
PAGE = f"{BASE}/plugin/conversions/capi/feeds/{FEED}"


@dataclass
class People:
    """The three channels, and those at their other ends."""

    world: World
    patch: pytest.MonkeyPatch
    slack: Web
    webhook: Web
    mail: MailServer
    named: dict[str, str] = field(default_factory=dict)

    def name(self, *channels: str) -> None:
        """Configure channels, and no others."""
        known = {
            "slack": {"slack": "alerts_slack"},
            "email": {"email": "alerts_mail", "to": f"{READER}, oncall@shop.example"},
            "webhook": {"webhook": "alerts_hook"},
        }
        self.named = {k: v for each in channels for k, v in known[each].items()}
        self.patch.setenv(f"AIRFLOW_VAR_{VARIABLE.upper()}", json.dumps(self.named))
        connect = self.world.connect
        connect(
            self.patch, "alerts_slack", conn_type="http",
            host=f"{self.slack.url}/services", password=SECRET,
        )  # fmt: skip
        connect(
            self.patch, "alerts_hook", conn_type="http", host=f"{self.webhook.url}/in",
            password=PASSWORD,
        )  # fmt: skip
        connect(
            self.patch, "alerts_mail", conn_type="smtp", host="127.0.0.1",
            port=self.mail.port,
            extra={
                "from_email": "capi@shop.example", "disable_ssl": True,
                "disable_tls": True,
            },
        )  # fmt: skip

    @property
    def opened(self) -> int:
        """How often anybody came to them."""
        return self.slack.opened + self.webhook.opened + self.mail.opened

    @property
    def heard(self) -> list[tuple[str, str]]:
        """What the webhook was told: kinds and states."""
        return [(body["kind"], body["state"]) for body in self.webhook.bodies]


@pytest.fixture
def people(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", BASE)
    with Web().open() as slack, Web().open() as webhook, MailServer().open() as mail:
        yield People(world, monkeypatch, slack, webhook, mail)


def tend(world: World, **params: Any) -> Any:
    """Tend the feed, as the task does."""
    form = {"try_alerts": False, **params}
    return TendOperator(task_id="tend", feed=FEED).execute(
        {
            "params": form, "dag": SimpleNamespace(dag_id=TEND, params=form),
            "run_id": "scheduled__1", "ti": Messages(),
        }
    )  # fmt: skip


def doubt(world: World, rows: int) -> None:
    """Put so many events in doubt, long ago."""
    world.sql(
        "insert into capi.runs (run_id, feed, dataset_id, mode)"
        " values ('old', %s, %s, 'send') on conflict do nothing",
        FEED, DATASET,
    )  # fmt: skip
    world.sql(
        "insert into capi.deliveries (dataset_id, feed, source_key, state, reason,"
        " cursor_at, run_no, doubt_since, not_before)"
        " select %s, %s, 'canary-key-' || n, 'in_doubt', 'doubt.given_up', now(),"
        " (select max(run_no) from capi.runs), now() - interval '9 days', 'epoch'"
        " from generate_series(1, %s) as n on conflict do nothing",
        DATASET, FEED, rows,
    )  # fmt: skip


class TestNothingConfigured:
    @pytest.mark.parametrize("text", [None, "", "{}"])
    def test_nothing_is_opened_and_the_ledger_knows_all_the_same(
        self, people: People, monkeypatch: pytest.MonkeyPatch, text: str | None
    ) -> None:
        if text is not None:
            monkeypatch.setenv(f"AIRFLOW_VAR_{VARIABLE.upper()}", text)
        doubt(people.world, 2)
        tend(people.world, try_alerts=True)
        assert people.opened == 0
        assert people.world.sql("select kind, closed_at from capi.alerts") == [
            ("in_doubt", None)
        ]
        assert people.world.sql("select count(*) from capi.alert_tellings") == [(0,)]


class TestEveryChannel:
    def test_all_three_are_told_once_and_once_that_it_is_over(
        self, people: People
    ) -> None:
        people.name("slack", "email", "webhook")
        doubt(people.world, 2)
        for _ in range(3):
            tend(people.world)

        [(path, _, said)] = people.slack.requests
        assert path == f"/services/{SECRET}"
        assert said["text"].splitlines()[:2] == [
            f"*[critical] {FEED}: in doubt*",
            "2 events in doubt: Meta may have them, and nobody knows.",
        ]
        assert said["text"].endswith(f"<{PAGE}|Conversions of {FEED}>")
        [letter] = people.mail.letters
        assert letter.to == [READER, "oncall@shop.example"]
        assert letter.sender == "capi@shop.example"
        assert letter.subject == f"[critical] {FEED}: in doubt"
        assert PAGE in letter.html
        [(path, head, body)] = people.webhook.requests
        assert (path, head["Authorization"]) == ("/in", f"Bearer {PASSWORD}")
        assert (body["kind"], body["state"], body["link"]) == ("in_doubt", "new", PAGE)

        people.world.sql("delete from capi.deliveries")
        tend(people.world)
        people.world.sql(
            "update capi.alerts set fine_since = fine_since - interval '2 hours'"
        )
        for _ in range(2):
            tend(people.world)
        assert people.heard == [("in_doubt", "new"), ("in_doubt", "over")]
        assert people.webhook.bodies[1]["key"] == body["key"]
        assert len(people.slack.requests) == len(people.mail.letters) == 2

    def test_a_test_message_goes_by_each_and_is_not_remembered(
        self, people: People
    ) -> None:
        people.name("slack", "email", "webhook")
        tend(people.world, try_alerts=True)
        assert "This is a test" in people.slack.bodies[0]["text"]
        assert "This is a test" in people.mail.letters[0].html
        assert "This is a test" in people.webhook.bodies[0]["text"]
        assert people.world.sql("select count(*) from capi.alerts") == [(0,)]

    def test_nothing_of_a_row_and_no_secret_is_in_a_message_or_in_the_log(
        self,
        people: People,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        caplog.set_level(logging.DEBUG)
        people.name("slack", "email", "webhook")
        people.slack.status, people.mail.refuses = 500, True
        doubt(people.world, 2)
        tend(people.world)
        told = json.dumps(people.webhook.bodies) + json.dumps(people.slack.bodies)
        told += "".join(letter.html + letter.subject for letter in people.mail.letters)
        # What urllib3 says of addresses at DEBUG, Airflow masks.
        debug = str(redact([record.getMessage() for record in caplog.records]))
        log = capsys.readouterr().out + debug
        assert "slack could not be told of in_doubt: HTTP 500." in log
        assert "email could not be told of in_doubt: SMTPRecipientsRefused." in log
        for secret in (TOKEN, SECRET, PASSWORD, READER, "canary"):
            assert secret not in told
            assert secret not in log
        shown = repr(channels())
        assert "canary" not in shown


class TestAChannelThatIsAway:
    @pytest.mark.parametrize("status", [302, 404, 429, 500])
    def test_one_that_refuses_is_tried_again_and_the_others_are_not_told_twice(
        self, people: People, status: int
    ) -> None:
        people.name("slack", "webhook")
        people.slack.status = status
        people.slack.location = people.webhook.url
        doubt(people.world, 1)
        tend(people.world)
        tend(people.world)
        assert len(people.slack.requests) == 2
        assert people.heard == [("in_doubt", "new")]
        people.slack.status, people.slack.location = 200, None
        tend(people.world)
        tend(people.world)
        assert len(people.slack.requests) == 3
        assert people.heard == [("in_doubt", "new")]

    def test_one_that_is_dead_does_not_fail_the_task(self, people: People) -> None:
        people.name("slack", "email", "webhook")
        with socket.create_server(("127.0.0.1", 0)) as gone:
            people.mail.port = gone.getsockname()[1]
        people.name("email", "webhook")
        doubt(people.world, 1)
        assert tend(people.world)["due"] == 0
        assert people.heard == [("in_doubt", "new")]

    def test_one_that_never_answers_holds_nobody_for_long(self) -> None:
        with Web(silent=True).open() as web:
            before = time.monotonic()
            with pytest.raises(UndeliveredError, match="no answer"):
                post_json(f"{web.url}/{SECRET}", {}, {}, seconds=0.5)
            assert time.monotonic() - before < 10
            assert web.opened == 1

    def test_a_mail_server_that_says_nothing_holds_nobody_for_long(
        self, people: People, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("capi_airflow.channels.SECONDS", 0.5)
        with socket.create_server(("127.0.0.1", 0)) as mute:
            people.mail.port = mute.getsockname()[1]
            people.name("email")
            [mail] = channels()
            before = time.monotonic()
            with pytest.raises(UndeliveredError, match="not taken within"):
                mail.send(TEST_MESSAGE)
            assert time.monotonic() - before < 10


def test_a_feed_file_that_is_broken_is_told_once_and_so_is_its_mending(
    own_feeds: Path, people: People
) -> None:
    people.name("webhook")
    path = own_feeds / "feeds" / "web_shop.yaml"
    good = (own_feeds / "feeds" / f"{FEED}.yaml").read_text()
    good = good.replace(f"feed: {FEED}", "feed: web_shop")
    path.write_text(f"{good}\nalerts: {{failures: off}}\nnonsense: 1\n")

    for _ in range(2):
        states = people.world.run(TEND, {})
        assert states["tend_web_shop"] == "failed"
        assert states[f"tend_{FEED}"] == "success"
    [told] = people.webhook.bodies
    assert (told["feed"], told["kind"], told["state"]) == (
        "web_shop", "tending_failed", "new",
    )  # fmt: skip
    assert "nonsense" in told["text"]

    path.write_text(good)
    assert people.world.run(TEND, {})["tend_web_shop"] == "success"
    assert people.heard[1:] == [("tending_failed", "over")]


TEST_MESSAGE = notify.alert_book.message(
    FEED,
    notify.News(
        alert_id=0, kind=Kind.IN_DOUBT, sentence="A test.", figure=0,
        raised_at=datetime.now(UTC),
    ),
    None,
)  # fmt: skip


class TestAWrongConfiguration:
    @pytest.mark.parametrize(
        "text",
        [
            "slack", "[]", '{"slak": "x"}', '{"slack": 1}', '{"email": "alerts_mail"}',
            '{"email": "alerts_mail", "to": "nobody"}', '{"slack": "no_such"}',
            '{"email": "alerts_hook", "to": "a@b.example"}', '{"webhook": "clear"}',
            '{"slack": "bare"}', '{"webhook": "bare"}', '{"webhook": "odd"}',
        ],
    )  # fmt: skip
    def test_it_is_said_and_fails_no_task(
        self, people: People, caplog: pytest.LogCaptureFixture, text: str
    ) -> None:
        people.name()
        connect, patch = people.world.connect, people.patch
        connect(
            patch, "clear", conn_type="http", host="http://hooks.example/in",
            password=PASSWORD,
        )  # fmt: skip
        connect(patch, "bare", conn_type="http")
        connect(patch, "odd", conn_type="http", host=f"ftp://x@{SECRET}")
        patch.setenv(f"AIRFLOW_VAR_{VARIABLE.upper()}", text)
        with pytest.raises(ConfigurationError) as error:
            channels()
        assert "canary" not in str(error.value)
        notify.try_out(logging.getLogger("alerts"), Stage(FEED, {}))
        assert str(error.value) in caplog.text
        assert people.opened == 0


class TestAFailure:
    def test_a_failed_run_is_told_once_and_the_next_good_one_ends_it(
        self, people: People
    ) -> None:
        people.name("webhook")
        world = people.world
        conf = {**world.whole, "start": (world.until - timedelta(days=2)).isoformat()}
        revoked = Fault(kind=FaultKind.TOKEN_REVOKED, count=None)
        world.sim.faults.add(revoked)
        for _ in range(2):
            assert world.run(f"send_{FEED}", conf)["dag"] == "failed"
        [body] = people.webhook.bodies
        assert (body["kind"], body["state"]) == ("run_failed", "new")
        assert body["text"].startswith(
            f"Task deliver of send_{FEED} failed. Meta stopped the run: "
        )
        world.sim.faults.clear()
        assert world.run(f"send_{FEED}", conf)["dag"] == "success"
        assert ("run_failed", "over") in people.heard

    def context(self, error: BaseException, previous: str | None) -> dict[str, Any]:
        """Return what Airflow gives to a callback."""
        state = SimpleNamespace(state=previous) if previous else None
        return {
            "params": {"dry_run": False}, "exception": error,
            "dag": SimpleNamespace(dag_id=f"send_{FEED}"), "run_id": "manual__canary",
            "task": SimpleNamespace(task_id="deliver", feed=FEED),
            "ti": SimpleNamespace(get_previous_ti=lambda: state),
        }  # fmt: skip

    def test_words_that_are_not_ours_are_not_quoted(self, people: People) -> None:
        people.name("webhook")
        TellFailure().notify(self.context(ValueError(f"row of {READER}"), None))
        [body] = people.webhook.bodies
        assert body["text"] == f"Task deliver of send_{FEED} failed."
        people.world.sql("delete from capi.alerts")
        ours = FinalFault("Meta stopped the run.", "meta.190")
        TellFailure().notify(self.context(ours, None))
        assert people.webhook.bodies[1]["text"].endswith(
            "failed. Meta stopped the run."
        )

    def test_a_dry_run_is_not_told_of(self, people: People) -> None:
        people.name("webhook")
        context = self.context(ValueError(), None)
        TellFailure().notify({**context, "params": {"dry_run": True}})
        assert people.opened == 0

    @pytest.mark.parametrize(
        ("previous", "told"), [(None, 1), ("success", 1), ("failed", 0)]
    )
    def test_a_ledger_that_is_away_is_told_of_with_the_first_failure(
        self, people: People, previous: str | None, told: int
    ) -> None:
        people.name("webhook")
        people.world.connect(people.patch, "capi_ledger", conn_type="sqlite", host="/x")
        TellFailure().notify(self.context(ValueError(), previous))
        assert people.heard == [("run_failed", "new")] * told
