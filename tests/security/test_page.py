"""The Conversions page in Airflow's own API server: who gets in, and what gets out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape

import psycopg
import pytest
import sqlalchemy as sa
from airflow.api_fastapi.app import (
    create_app,
    get_auth_manager,
    purge_cached_app,
)
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi.testclient import TestClient
from httpx import Response
from tests.security.conftest import PURCHASES, Nest
from tests.security.porter import USERS

from capi_airflow.page.app import HEADERS, build
from capi_airflow.page.house import House, Ledgers
from capi_airflow.page.view import STATIC
from demo.postgres import Postgres
from meta_capi.ledger import Ledger

DATASET = "1234567890123456"
MARKUP = (
    '"><script src="//evil.example/x.js"></script><img src=x onerror=alert(1)>{{7*7}}'
)
DAY = (datetime.now(UTC) - timedelta(hours=2)).date()
PURCHASE, LEAD = "offline_purchases", "crm_leads"
FILL = f"""
insert into capi.runs (run_id, feed, dataset_id, mode, state) values
    ('send_offline_purchases/r1', '{PURCHASE}', '{DATASET}', 'send', 'reported'),
    ('send_crm_leads/r1', '{LEAD}', '{DATASET}', 'send', 'reported');
insert into capi.workers (run_no, feed, dataset_id, host, pid, lease_until)
select run_no, feed, dataset_id, 'h', 1, now() from capi.runs;
insert into capi.batches (
    batch_id, root_id, worker_id, run_no, feed, dataset_id, events, bytes, state, settled_at
) select w.worker_id, w.worker_id, w.worker_id, w.run_no, w.feed, w.dataset_id, 1, 99,
    'accepted', now() from capi.workers w;
insert into capi.attempts (batch_id, seq, outcome, started_at, finished_at, http_status)
select batch_id, 1, 'accepted', now() - interval '1 second', now(), 200 from capi.batches;
insert into capi.validations (run_no, feed, suite, rows, quarantined, passed, result)
select run_no, feed, 's', 9, 1, true, '{{}}' from capi.runs;
insert into capi.deliveries (
    dataset_id, feed, source_key, state, reason, cursor_at, run_no, batch_id, not_before
) select r.dataset_id, r.feed, r.feed || '-' || k.name, 'quarantined', 'key.duplicate',
    now() - interval '2 hours', r.run_no, r.run_no, null
from capi.runs r cross join (values ('1'), ('2'), (%s)) k (name);
"""
# Every route, asked as somebody would who knows what is there. Of the feed of purchases.
ASKED = {
    "/": ("GET", "/?days=7", None),
    "/feeds/{feed}": ("GET", f"/feeds/{PURCHASE}?days=90", None),
    "/feeds/{feed}/days/{day}": ("GET", f"/feeds/{PURCHASE}/days/{DAY}", None),
    "/feeds/{feed}/held": (
        "GET",
        f"/feeds/{PURCHASE}/held?state=quarantined&reason=key.duplicate",
        None,
    ),
    "/reasons": ("GET", "/reasons", None),
    "/runs/of/{dag_id}/{run_id}": ("GET", "/runs/of/send_offline_purchases/r1", None),
    "/runs/{run_no}": ("GET", "/runs/1", None),
    "/batches/{batch_id}": ("GET", "/batches/1", None),
    "/gates/{validation_id}": ("GET", "/gates/1", None),
    "/search": ("POST", "/search", {"key": f"{PURCHASE}-1"}),
    "/preview": ("POST", "/preview", {"feed": PURCHASE, "key": f"{PURCHASE}-1"}),
    "/replay": ("GET", f"/replay?feed={PURCHASE}&reason=key.duplicate", None),
    "/static/{name}": ("GET", "/static/page.css", None),
}
# What belongs to nobody in particular: whoever may see any feed may see these.
COMMON = {"/", "/reasons", "/search", "/static/{name}"}


@dataclass
class Site:
    """Airflow's API server with the page in it, and a ledger behind it."""

    client: TestClient
    dsn: str

    def ask(
        self, who: str | None, method: str, path: str,
        form: dict[str, str] | None = None, *, bearer: bool = False,
    ) -> Response:  # fmt: skip
        """Ask for a page of ours as somebody; without a name, as a stranger."""
        headers, self.client.cookies = {}, {}
        if who:
            user = SimpleAuthManagerUser(
                username=who, role="admin" if who == "admin" else "user"
            )
            token = get_auth_manager().generate_jwt(user)
            if bearer:
                headers["Authorization"] = f"Bearer {token}"
            else:
                self.client.cookies.set("_token", token)
        return self.client.request(
            method, f"/capi{path}", data=form, headers=headers, follow_redirects=False
        )


@pytest.fixture(scope="module")
def server(airflow_database: None) -> Iterator[TestClient]:
    """Airflow's API server, made as Airflow makes it, the plugin found by its entry point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "tests.security.porter.Porter")
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", USERS)
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a" * 64)
        purge_cached_app()
        with TestClient(create_app(apps="core")) as client:
            yield client
        purge_cached_app()


@pytest.fixture(scope="module")
def site(
    server: TestClient, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The server with two feeds' deliveries in its ledger."""
    postgres.create_database("page")
    engine = sa.create_engine(postgres.url("page"), hide_parameters=True)
    Ledger(engine).migrate()
    engine.dispose()
    with psycopg.connect(postgres.dsn("page")) as connection:
        for statement in FILL.split(";\n")[:-1]:
            connection.execute(statement, (MARKUP,) if "%s" in statement else None)
    info = psycopg.conninfo.conninfo_to_dict(postgres.dsn("page"))
    database = {
        "conn_type": "postgres", "host": info["host"], "port": int(str(info["port"])),
        "schema": info["dbname"], "login": info["user"], "password": info["password"],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_CAPI_LEDGER", json.dumps(database))
        # Without the Data Docs of tests that ran before.
        patch.setenv("META_CAPI_DATA_DOCS", str(tmp_path_factory.mktemp("no-docs")))
        yield Site(server, postgres.dsn("page"))
    postgres.drop_database("page")


@pytest.mark.matrix("X31", "X32", "X33")
class TestWhoGetsIn:
    def test_the_table_above_has_every_route_and_only_search_and_preview_take_a_post(
        self,
    ) -> None:
        routes = {
            (route.path, method)  # type: ignore[attr-defined]
            for route in _routes()
            for method in route.methods or ()  # type: ignore[attr-defined]
        }
        assert {path for path, _ in routes} == set(ASKED)
        assert {method for _, method in routes} == {"GET", "POST"}
        posts = {path for path, method in routes if method == "POST"}
        assert posts == {"/search", "/preview"}

    def test_it_has_no_documentation_pages(self, site: Site) -> None:
        for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
            assert site.ask("admin", "GET", path).status_code == 404

    @pytest.mark.parametrize("route", ASKED)
    def test_a_stranger_is_asked_to_sign_in(self, site: Site, route: str) -> None:
        answer = site.ask(None, *ASKED[route])
        assert answer.status_code == 401
        assert PURCHASE not in answer.text

    @pytest.mark.parametrize("route", ASKED)
    def test_a_false_token_is_no_token(self, site: Site, route: str) -> None:
        method, path, form = ASKED[route]
        site.client.cookies = {"_token": "eyJhbGciOiJIUzUxMiJ9.e30.nonsense"}
        answer = site.client.request(method, f"/capi{path}", data=form)
        assert answer.status_code in (401, 403)
        assert PURCHASE not in answer.text

    @pytest.mark.parametrize("route", sorted(set(ASKED) - {"/static/{name}"}))
    def test_who_may_read_no_feeds_dag_sees_nothing(
        self, site: Site, route: str
    ) -> None:
        answer = site.ask("outsider", *ASKED[route])
        assert answer.status_code == 403
        assert PURCHASE not in answer.text

    @pytest.mark.parametrize("route", ASKED)
    def test_who_may_read_the_dag_gets_an_answer_by_cookie_and_by_token(
        self, site: Site, route: str
    ) -> None:
        # Neither the gate's Data Docs nor a warehouse are on this machine.
        fine = {"/gates/{validation_id}": 404, "/preview": 503}.get(route, 200)
        for bearer in (False, True):
            answer = site.ask("admin", *ASKED[route], bearer=bearer)
            assert answer.status_code == fine, answer.text


@pytest.mark.matrix("X34")
class TestWhoseDeliveries:
    @pytest.mark.parametrize("route", sorted(set(ASKED) - COMMON))
    def test_who_may_not_read_the_feeds_dag_gets_403(
        self, site: Site, route: str
    ) -> None:
        answer = site.ask("leads", *ASKED[route])
        assert answer.status_code in (403, 404)
        assert f"{PURCHASE}-1" not in answer.text

    def test_the_first_page_and_the_search_show_ones_own_feeds_only(
        self, site: Site
    ) -> None:
        flow = site.ask("leads", "GET", "/").text
        assert LEAD in flow
        assert PURCHASE not in flow
        own = site.ask("leads", "POST", "/search", {"key": f"{LEAD}-1"})
        assert "What now?" in own.text
        others = site.ask("leads", "POST", "/search", {"key": f"{PURCHASE}-1"})
        assert "Nobody knows this key" in others.text
        asked = {"key": f"{PURCHASE}-1", "feed": PURCHASE}
        assert site.ask("leads", "POST", "/search", asked).status_code == 403

    def test_open_alerts_are_shown_to_whom_the_feed_is(self, site: Site) -> None:
        sentence = "12.0% of the rows of today are <in> quarantine."
        with psycopg.connect(site.dsn) as connection:
            connection.execute(
                "insert into capi.alerts (feed, kind, sentence, figure)"
                " values (%s, 'quarantined_share', %s, 0.12)", (PURCHASE, sentence),
            )  # fmt: skip
        for path in ("/", f"/feeds/{PURCHASE}"):
            shown = site.ask("admin", "GET", path).text
            assert escape(sentence) in shown
            assert "then replay." in shown  # what to do about it
        assert escape(sentence) not in site.ask("leads", "GET", "/").text

    def test_the_replay_is_left_to_airflow_which_asks_for_another_right(
        self, site: Site
    ) -> None:
        form = site.ask("leads", "GET", f"/replay?feed={LEAD}").text
        assert "You may not trigger" in form
        assert "<button" not in form
        assert "<button" in site.ask("admin", "GET", f"/replay?feed={LEAD}").text
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            path = f"/replay?feed={LEAD}"
            assert site.ask("admin", method, path, {}).status_code == 405


@pytest.mark.matrix("X25", "X33", "X35")
class TestWhatGetsOut:
    @pytest.mark.parametrize("who", ["admin", "outsider", None])
    @pytest.mark.parametrize("route", ASKED)
    def test_each_answer_has_the_headers(
        self, site: Site, route: str, who: str | None
    ) -> None:
        headers = site.ask(who, *ASKED[route]).headers
        assert {name: headers.get(name) for name in HEADERS} == HEADERS
        policy = headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "http" not in policy

    def test_a_key_that_is_markup_is_shown_as_text(self, site: Site) -> None:
        key = f"{PURCHASE}-{MARKUP}"
        for method, path, form in (
            *ASKED.values(), ("POST", "/search", {"key": key}),
            ("POST", "/search", {"key": MARKUP}),
        ):  # fmt: skip
            text = site.ask("admin", method, path, form).text
            assert 'evil.example/x.js"></script>' not in text
            assert "<img" not in text
        told = site.ask("admin", "POST", "/search", {"key": key}).text
        assert "&lt;script src=" in told
        assert "{{7*7}}" in told

    def test_no_page_has_a_script_or_a_style_of_its_own_or_from_elsewhere(
        self, site: Site
    ) -> None:
        for method, path, form in ASKED.values():
            text = site.ask("admin", method, path, form).text
            assert "<script>" not in text
            assert " style=" not in text
            assert "<style" not in text
            assert "http:" not in text
            assert "https:" not in text

    def test_only_the_pages_own_files_are_served(self, site: Site) -> None:
        for name in ("../app.py", "..%2Fapp.py", "%2e%2e%2fapp.py", "nothing.js", "."):
            answer = site.ask("admin", "GET", f"/static/{name}")
            assert answer.status_code == 404
            assert "FastAPI" not in answer.text
        for name in STATIC:
            assert site.ask("admin", "GET", f"/static/{name}").status_code == 200

    def test_a_fault_of_ours_is_told_by_its_places_alone(
        self,
        site: Site,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        secret = "Zaunkönig 4711"
        # A ledger whose rows no page expects.
        with psycopg.connect(site.dsn, autocommit=True) as connection:
            connection.execute(
                "update capi.runs set plan = to_jsonb(%s::text), outcome = to_jsonb(%s::text)",
                (secret, secret),
            )
            try:
                with caplog.at_level(logging.DEBUG):
                    answer = site.ask("admin", "GET", "/runs/1")
            finally:
                connection.execute("update capi.runs set plan = '{}', outcome = '{}'")
        assert answer.status_code == 500
        for text in (answer.text, caplog.text):
            assert secret not in text
            assert "Traceback" not in text


def test_without_a_ledger_the_first_page_says_what_is_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_CAPI_LEDGER")
    answer = site.ask("admin", "GET", "/")
    assert answer.status_code == 200
    assert "There is no connection" in answer.text
    answer = site.ask("admin", "GET", f"/feeds/{PURCHASE}")
    assert answer.status_code == 503
    assert "There is no connection" in answer.text


@pytest.mark.matrix("X36")
class TestWhatMayBeAsked:
    @pytest.mark.parametrize(
        "path",
        [
            "/?days=9999", "/?days=x", f"/feeds/{PURCHASE}?days=0",
            "/feeds/A%20B", "/feeds/" + "x" * 300, f"/feeds/{PURCHASE}/days/yesterday",
            f"/feeds/{PURCHASE}/days/{DAY}?state=stolen",
            f"/feeds/{PURCHASE}/held?reason=';drop", f"/feeds/{PURCHASE}/held?state=accepted",
            "/runs/x", "/runs/0", "/runs/-1", "/runs/99999999999999999999", "/batches/0",
            "/gates/x", "/runs/of/a b/r1", "/replay", "/replay?feed=A;B",
            f"/replay?feed={PURCHASE}&state=stolen",
        ],
    )  # fmt: skip
    def test_nonsense_is_refused_plainly_and_not_repeated(
        self, site: Site, path: str
    ) -> None:
        answer = site.ask("admin", "GET", path)
        assert answer.status_code in (404, 422)
        assert "Traceback" not in answer.text
        assert "drop" not in answer.text
        assert "stolen" not in answer.text

    @pytest.mark.parametrize(
        "path",
        [
            "/runs/77", "/batches/77", "/gates/77", f"/feeds/{PURCHASE}/days/1066-10-14",
            f"/feeds/{PURCHASE}/days/2999-01-01", "/nothing",
        ],
    )  # fmt: skip
    def test_what_is_not_there_is_404(self, site: Site, path: str) -> None:
        assert site.ask("admin", "GET", path).status_code == 404

    @pytest.mark.parametrize(
        ("form", "status"),
        [
            ({"key": "k" * 401}, 413), ({"key": "k" * 100_000}, 413),
            ({"key": "a\0b"}, 413), ({str(n): "" for n in range(50)}, 400),
            ({}, 200), ({"key": " "}, 200), ({"key": "\udcff"}, 400),
        ],
    )  # fmt: skip
    def test_a_posted_form_is_bounded(
        self, site: Site, form: dict[str, str], status: int
    ) -> None:
        body = "&".join(f"{k}={v}" for k, v in form.items())
        site.ask("admin", "GET", "/search")
        answer = site.client.post(
            "/capi/search", content=body.encode("utf-8", "surrogateescape")
        )
        assert answer.status_code == status

    def test_a_list_has_fifty_lines_however_many_there_are(self, site: Site) -> None:
        with psycopg.connect(site.dsn) as connection:
            connection.execute(
                "insert into capi.deliveries (dataset_id, feed, source_key, state, reason,"
                " cursor_at, run_no, not_before) select %s, %s, 'many-' || n, 'quarantined',"
                " 'time.missing', now() - interval '3 hours', 1, null"
                " from generate_series(1, 200) n", (DATASET, PURCHASE),
            )  # fmt: skip
        path = f"/feeds/{PURCHASE}/held?state=quarantined&reason=time.missing"
        assert (
            site.ask("admin", "GET", path).text.count('name="key" value="many-') == 50
        )

    def test_what_is_searched_for_stands_in_no_log(
        self,
        site: Site,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        key = "Zaunkönig-4711"
        with caplog.at_level(logging.DEBUG):
            for path in ("/search", "/preview"):
                site.ask("admin", "POST", path, {"key": key, "feed": PURCHASE})
        out, err = capfd.readouterr()
        for text in (caplog.text, out, err):
            assert "4711" not in text


@pytest.mark.matrix("X35")
def test_no_page_shows_a_customer(server: TestClient, nest: Nest) -> None:
    """Forty purchases, each with every canary, on every page there is of them."""
    assert nest.world.run(PURCHASES)["dag"] == "success"
    site = Site(server, "")
    ((key,),) = nest.world.sql(
        "select source_key from capi.deliveries where state = 'accepted' limit 1"
    )
    pages = [
        *(each for each in ASKED.values() if each[1] != "/gates/1"),
        ("GET", "/runs/1", None), ("GET", f"/feeds/{PURCHASE}?days=90", None),
        ("POST", "/search", {"key": key}),
        ("POST", "/preview", {"key": key, "feed": PURCHASE}), ("GET", "/gates/1", None),
    ]  # fmt: skip
    shown = [site.ask("admin", *each) for each in pages]
    assert {answer.status_code for answer in shown[-5:]} == {200}
    assert "a•" in shown[-2].text or "•••" in shown[-2].text
    assert nest.aviary.found_in(*(answer.text for answer in shown)) == set()


def _routes() -> list[object]:
    made = build(lambda: House(Ledgers()))
    found: list[object] = []
    for route in made.routes:
        found += list(getattr(route, "routes", None) or [route])
    return found
