"""Meta's own scores, from its Graph API to the page: read if asked for, never in the way."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
import pytest
from starlette.requests import Request
from tests.airflow.listener import Listener, answer
from tests.airflow.test_notify import tend
from tests.airflow.world import DATASET, TOKEN, World

from capi_airflow.hook import MetaCapiHook
from capi_airflow.page.flow import flow, one_feed
from capi_airflow.page.house import House, Ledgers
from capi_airflow.transport import Destination
from graph_simulator import Simulator
from graph_simulator.access import Token
from meta_capi import score_book
from meta_capi.scores import Surface, parse
from meta_capi.verdict import Answer

FEED = "offline_purchases"
SEND = f"send_{FEED}"
WEB = {
    "event_match_quality": {
        "composite_score": 6.2,
        "match_key_feedback": [
            {"identifier": "email", "coverage": {"percentage": 71.3},
             "potential_aly_acr_increase": {"percentage": 12.5}},
            {"identifier": "shoe_size", "coverage": {"percentage": 1}},
        ],
    },
    "event_coverage": {"percentage": 34.1, "goal_percentage": 75},
    "data_freshness": {"upload_frequency": "real_time"},
}  # fmt: skip


@dataclass
class Anyone:
    """Somebody who may read everything."""

    house: House = field(default_factory=lambda: House(Ledgers()))

    @property
    def feeds(self) -> Sequence[str]:
        """All feeds."""
        return self.house.names

    def expect(self, feed: str) -> str:
        """Return the feed's name."""
        return feed


def shown(feed: str | None = None) -> str:
    """Return a feed's page, or the page of all feeds."""
    scope = {"type": "http", "method": "GET", "path": "/capi/", "headers": []}
    request = Request(scope | {"root_path": "/capi", "query_string": b""})
    who = Anyone()
    made = one_feed(request, feed, who, 90) if feed else flow(request, who, 90)  # type: ignore[arg-type]
    return bytes(made.body).decode()


def section(page: str) -> str:
    """Return the page's part about the scores."""
    return page.partition('aria-label="Meta\'s own scores"')[2].partition("</section>")[
        0
    ]


@pytest.fixture
def asked(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose connection asks for scores."""
    world.connect_all(monkeypatch, world.sim.url, quality_scores="web, offline")
    return world


def test_from_what_was_sent_to_metas_score_on_the_page(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run(SEND)["dag"] == "success"
    assert world.run("tend_deliveries", {})["dag"] == "success"
    assert world.sql("select count(*) from capi.score_readings") == [(0,)]
    assert "write <code>web</code>" in section(shown(FEED))
    assert "ads_read" in section(shown(FEED))

    world.connect_all(monkeypatch, world.sim.url, quality_scores="web, offline")
    assert world.run("tend_deliveries", {})["dag"] == "success"

    [(surface, name, score)] = world.sql(
        "select surface, event_name, score from capi.scores"
    )
    assert (surface, name) == ("offline", "Purchase")
    told = f"Meta's own offline scores of dataset {DATASET}: Purchase {score:g} of 10"
    log = capsys.readouterr().out
    assert log.count(told) == 1, "three feeds have one dataset, and it is read once"
    assert TOKEN not in log
    page = section(shown(FEED))
    assert f"<strong>{score:.1f}</strong>" in page
    assert f"match keys {score:g}<br>frequency 10<br>freshness 10" in page
    # The local Graph API counts what came; no browser sends to it. So both agree.
    [(mail,)] = world.sql(
        "select coverage from capi.score_keys where match_key = 'email'"
    )
    cell = f'<td class="num">{mail:.1f}%</td>'
    assert f"<code>email</code></th>{cell}{cell}" in page
    assert f"Purchase <strong>{score:.1f}</strong> (offline" in shown()


def test_a_token_that_may_send_and_not_read_costs_a_line_of_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sender = Token(value=TOKEN, scopes=frozenset({"business_management"}))
    with Simulator(datasets=[DATASET], tokens=[sender]) as sim:
        world.connect_all(monkeypatch, sim.url, quality_scores="offline")
        assert world.run(SEND)["dag"] == "success"
        assert world.run("tend_deliveries", {})["dag"] == "success"
        tend(world)

    log = capsys.readouterr().out
    assert log.count("offline scores of dataset") == 1, "a no stands for a day"
    assert (
        "lacks a permission for this dataset. They are asked for again tomorrow" in log
    )
    assert "docs/reasons.md#meta.10 and docs/reasons.md#warning.scores" in log
    page = section(shown(FEED))
    assert "The offline scores were not read since" in page
    assert "The app lacks the permission." in page
    assert "ads_read" in page


class TestReading:
    @pytest.mark.parametrize(
        "said",
        [
            b"", answer(b"<html>", status=b"502 Bad Gateway"),
            answer(b'{"error":{"code":4}}', status=b"400 Bad Request"),
        ],
        ids=["nothing", "a proxy's page", "to wait"],
    )  # fmt: skip
    def test_what_may_pass_is_a_line_of_the_log_and_tried_again(
        self,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        said: bytes,
    ) -> None:
        def behave(line: socket.socket, _: bytes) -> None:
            line.sendall(said)
            line.close()

        with Listener(behave) as server:
            world.connect_all(monkeypatch, server.url, quality_scores="web")
            tend(world)
        assert "They are asked for again in an hour" in capsys.readouterr().out
        world.connect_all(monkeypatch, world.sim.url, quality_scores="web")
        tend(world, read_scores=True)
        assert world.sql(
            "select trouble, read_at is not null from capi.score_readings"
        ) == [(None, True)]

    def test_nothing_that_breaks_in_it_fails_the_task(
        self, asked: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked.sql("alter table capi.score_readings rename to gone")
        tend(asked)
        assert "WARN" in (log := capsys.readouterr().out).upper()
        assert "Meta's own scores: " in log

    def test_asks_for_one_surface_without_the_token_in_the_address(
        self,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with Listener() as server:
            world.connect_all(monkeypatch, server.url)
            assert MetaCapiHook().scores(Surface.WEB) == []
        [heard] = server.heard
        line = heard.partition(b"\r\n")[0].decode()
        assert "/dataset_quality?" in line
        assert f"dataset_id={DATASET}" in line
        assert "offline" not in line
        assert TOKEN not in line
        assert f"Authorization: Bearer {TOKEN}".encode() in heard
        assert TOKEN not in caplog.text

    def test_who_asks_for_another_surface_is_told_by_the_connection(self) -> None:
        def faults(text: str | None) -> list[str]:
            return Destination.of(
                host=None, port=None, schema=None, login=DATASET, password=TOKEN,
                extra={"quality_scores": text},
            ).faults()  # fmt: skip

        for fine in (None, "", "web", "Offline,web", " web , offline "):
            assert faults(fine) == []
        assert faults("app") == [
            "The connection's quality_scores are not web, offline or both."
        ]


class TestThePage:
    @pytest.fixture
    def sent(self, world: World) -> World:
        assert world.run(SEND)["dag"] == "success"
        return world

    def read(self, world: World, *names: str, days_ago: int = 0) -> None:
        """Keep Meta's answer for events of the web, as if it was read before."""
        name = psycopg.conninfo.conninfo_to_dict(world.dsn)["dbname"]
        world.sql(f"alter database {name} set capi.clock_offset = '-{days_ago} days'")
        ledger = Anyone().house.ledger(FEED)
        body = {"web": [{"event_name": name, **WEB} for name in names]}
        found = parse(Answer(200, {}, json.dumps(body).encode()), Surface.WEB)
        assert score_book.take(ledger, DATASET, Surface.WEB, now=True)
        score_book.keep(ledger, DATASET, Surface.WEB, found)

    def test_shows_metas_count_beside_ours_and_each_day(self, sent: World) -> None:
        self.read(sent, "Purchase", days_ago=1)
        self.read(sent, "Purchase")
        page = section(shown(FEED))
        assert "<strong>6.2</strong>" in page
        assert (
            "covers 34.1 % of the Pixel&#39;s (goal 75 %)<br>arrives real time" in page
        )
        assert (
            '<code>shoe_size</code></th><td class="num">1.0%</td><td class="num">–'
            in page
        )
        assert '<code>email</code></th><td class="num">71.3%</td>' in page
        assert page.count('<td class="num">6.2</td>') == 2, (
            "the chart's days as a table"
        )
        assert "data-chart" in page

    def test_names_no_event_that_is_not_the_feeds(self, sent: World) -> None:
        self.read(sent, "Zaunkönig 4711")
        page = shown(FEED)
        assert "4711" not in page + shown()
        assert "only of 1 other event of the dataset" in section(page)
