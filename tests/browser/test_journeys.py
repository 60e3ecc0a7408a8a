"""What people do with the Conversions page, in Airflow's real UI and a real browser."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import unquote

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import FEED, Visitor
from tests.journeys.conftest import Demo

from demo.__main__ import DATASET
from meta_capi.names import event_id

pytestmark = pytest.mark.slow

DAG = f"send_{FEED}"


def test_somebody_signs_in_and_sees_a_runs_outcome(
    demo: Demo, visitor: Visitor
) -> None:
    ((run_no, outcome),) = demo.sql(
        "select run_no, outcome from capi.runs where feed = %s and state = 'reported'"
        " order by (outcome ->> 'rows')::int desc, run_no desc limit 1", FEED,
    )  # fmt: skip
    user, password = demo.airflow.login
    with visitor.window(signed_in=False) as window:
        page = window.go("/")
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", password)
        page.click("button[type=submit]")
        page.get_by_role("link", name="Conversions").click()
        frame = window.frame()
        frame.get_by_role("link", name=FEED, exact=True).click()
        frame.wait_for_url(f"**/capi/feeds/{FEED}**")
        frame.locator(f"a[href$='/capi/runs/{run_no}']").first.click()
        frame.wait_for_url(f"**/capi/runs/{run_no}")
        # Airflow's own address follows, so that it can be sent to a colleague.
        page.wait_for_url(f"**/plugin/conversions/capi/runs/{run_no}")
        told = frame.locator("main").inner_text()
        for state, count in outcome["outcomes"].items():
            assert re.search(rf"{state.replace('_', ' ')}\s+{count:,}\b", told), state
        assert "Reported: every row has its outcome" in told
        reasons = Counter(outcome["reasons"]).most_common(3)
        assert reasons
        for code, count in reasons:
            assert re.search(rf"{re.escape(code)}\s.*\s{count:,}\b", told), code
        # And from there to Airflow's grid.
        frame.locator("a[data-airflow]").first.click()
        page.wait_for_url(f"**/dags/{DAG}/runs/**")


def test_somebody_finds_why_an_order_was_not_sent(demo: Demo, visitor: Visitor) -> None:
    ((key, email),) = demo.sql(
        "select order_id, email from shop.offline_purchases where email like '%%@%%'"
        " and order_id in (select source_key from capi.deliveries"
        " where feed = %s and state = 'refused') limit 1", FEED,
    )  # fmt: skip
    with visitor.window() as window:
        window.go("/plugin/conversions/capi/search")
        frame = window.frame()
        frame.fill("#key", key)
        frame.get_by_role("button", name="Tell its story").click()
        story = frame.locator("article")
        expect(story).to_contain_text("What now?")
        expect(story).to_contain_text("Refused since")
        expect(story).to_contain_text("subcode 2804019, trace ")
        expect(story).to_contain_text("Correct the row")
        assert not [url for url in window.asked if key in url]
        story.get_by_role("button", name="Preview its payload, masked").click()
        expect(frame.locator("pre")).to_contain_text('"event_name": "Purchase"')
        assert re.search(r'"em": \["[0-9a-f]{4}…"\]', frame.locator("pre").inner_text())
        assert email.strip().lower() not in frame.content().lower()


def test_somebody_replays_what_is_in_quarantine(demo: Demo, visitor: Visitor) -> None:
    ((key,),) = demo.sql(
        "select source_key from capi.deliveries where feed = %s"
        " and state = 'quarantined' and reason = 'currency.unknown'"
        " order by cursor_at desc limit 1", FEED,
    )  # fmt: skip
    before = demo.received()
    demo.sql(
        "update shop.offline_purchases set currency = 'EUR' where order_id = %s", key
    )
    with visitor.window() as window:
        window.go(f"/plugin/conversions/capi/feeds/{FEED}/held")
        frame = window.frame()
        held = frame.get_by_role("article", name="currency.unknown")
        expect(held).to_contain_text("not an ISO 4217 code")
        held.get_by_role("link", name="Replay these").click()
        form = frame.locator("form[data-dag]")
        expect(form).to_contain_text("currency.unknown")
        assert form.get_by_role("checkbox").is_checked()
        form.get_by_role("button").click()
        link = form.locator("output a")
        expect(link).to_contain_text("Planned")
        run_id = unquote(str(link.get_attribute("href")).rsplit("/", 1)[1])
        assert demo.end_of("replay_deliveries", run_id) == "success"
        assert "currency.unknown" in demo.log_of("replay_deliveries", run_id)
        assert demo.received() == before

        form.get_by_role("checkbox").uncheck()
        form.get_by_role("button").click()
        expect(form.locator("output")).to_contain_text("Say why")
        form.get_by_label("Why").fill("the currencies were mended")
        form.get_by_role("button").click()
        expect(link).to_contain_text("Started")
        run_id = unquote(str(link.get_attribute("href")).rsplit("/", 1)[1])
        assert demo.end_of("replay_deliveries", run_id) == "success"
        link.click()
        window.page.wait_for_url("**/dags/replay_deliveries/runs/**")
    ((who, why),) = demo.sql(
        "select who, why from capi.acts where kind = 'replay' order by act_no desc limit 1"
    )
    assert (who, why) == ("airflow:admin", "the currencies were mended")
    # What was mended went out, once; what was not is held again.
    assert demo.received() == before | {event_id(DATASET, "Purchase", key): 1}


def test_metas_own_scores_stand_beside_our_counts(demo: Demo, visitor: Visitor) -> None:
    demo.run("tend_deliveries", read_scores=True)
    ((score, mail),) = demo.sql(
        "select s.score, k.coverage from capi.scores s join capi.score_keys k"
        " using (dataset_id, surface, event_name, day) where k.match_key = 'email'"
    )
    with visitor.window(width=390) as window:
        page = window.go("/capi/")
        card = page.locator("section.card").filter(has_text=FEED)
        expect(card).to_contain_text(
            f"Meta's own scores: Purchase {score:.1f} (offline"
        )
        page.get_by_role("link", name=FEED, exact=True).click()
        scores = page.get_by_role("region", name="Meta's own scores")
        expect(scores.get_by_role("row", name="Purchase")).to_contain_text(
            f"{score:.1f}"
        )
        expect(scores.get_by_role("row", name="email")).to_contain_text(f"{mail:.1f}%")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390


def test_a_task_leads_to_its_runs_page(demo: Demo, visitor: Visitor) -> None:
    *_, run = (run for run in demo.runs(DAG) if run["state"] == "success")
    run_id = run["dag_run_id"]
    path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/report/links"
    ((name, url),) = demo.airflow.ask("GET", path)["extra_links"].items()
    with visitor.window() as window:
        window.go(f"/dags/{DAG}/runs/{run_id}/tasks/report/details")
        button = window.page.get_by_role("link", name=name)
        expect(button).to_have_attribute("href", url)
        window.go(url)
        expect(window.frame().locator("h1")).to_contain_text(f"of {FEED}")
