"""What people start in Airflow's own dialog, and what the Conversions page then says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, expect
from tests.browser.conftest import FEED, Visitor, Window
from tests.journeys.conftest import Demo, eventually
from tests.journeys.test_again import clean_hour, nothing_sent

from demo.__main__ import DATASET
from meta_capi.names import event_id

pytestmark = pytest.mark.slow

DAG = f"send_{FEED}"


@dataclass
class Dialog:
    """Airflow's dialog for starting a DAG, as a person uses it."""

    window: Window

    def open(self) -> Dialog:
        """Open it on the DAG's page."""
        page = self.window.page
        page.goto(f"{self.window.url}/dags/{DAG}")
        page.get_by_role("button", name="Trigger").click()
        expect(self.field("test_event_code")).to_be_visible()
        return self

    @property
    def box(self) -> Locator:
        """The dialog itself; a calendar is one beside it."""
        return self.window.page.get_by_role("dialog").filter(
            has=self.window.page.get_by_role("heading", level=2)
        )

    def field(self, name: str) -> Locator:
        """Return a field of our form."""
        return self.box.locator(f"input[name=element_{name}]")

    def unfold(self, section: str) -> None:
        """Unfold a part of the form."""
        self.box.get_by_role("button", name=section).click()

    def pick(self, label: str, moment: datetime) -> None:
        """Choose a moment in the calendar that a field opens."""
        page = self.window.page
        group = self.box.get_by_role("group").filter(
            has=page.get_by_text(label, exact=True)
        )
        group.locator("p").click()
        day = page.get_by_placeholder("YYYY/MM/DD")
        day.fill(f"{moment:%Y/%m/%d}")
        page.get_by_placeholder("HH:mm").fill(f"{moment:%H:%M}")
        expect(group.locator("p")).to_have_text(f"{moment:%b %d, %Y %H:%M}")
        page.keyboard.press("Escape")
        expect(day).to_be_hidden()

    def press(self, button: str, path: str) -> Any:
        """Press a button, and return what Airflow answers."""
        with self.window.page.expect_response(
            lambda got: got.request.method == "POST" and got.url.endswith(path)
        ) as answer:
            self.box.get_by_role("button", name=button, exact=True).click()
        return answer.value.json()

    def trigger(self) -> str:
        """Trigger; return the run's id."""
        run_id = str(self.press("Trigger", "/dagRuns")["dag_run_id"])
        expect(self.box).to_be_hidden()
        return run_id

    def backfill(self, first: datetime, last: datetime, which: str, runs: int) -> None:
        """Start a backfill that says that it makes so many runs."""
        self.box.get_by_text("Run this Dag for a range of dates").click()
        self.pick("From", first)
        self.pick("To", last)
        self.box.get_by_text(which, exact=True).click()
        says = f"{runs} run{'s' * (runs > 1)} will be triggered."
        expect(self.box.get_by_text(says)).to_be_visible()
        self.press("Run Backfill", "/backfills")
        expect(self.box).to_be_hidden()


@pytest.fixture
def dialog(visitor: Visitor) -> Iterator[Dialog]:
    """Return the dialog in a window so wide that no notice lies above its buttons."""
    with visitor.window(width=1920) as window:
        yield Dialog(window).open()


@pytest.fixture(scope="module")
def new_orders(demo: Demo) -> dict[str, datetime]:
    """Add three sound orders to a minute that was read before; return the minute."""
    # No clean hour is so long ago.
    minute = demo.until.replace(second=0) - timedelta(days=7)
    for number in range(3):
        demo.plant(
            "shop.offline_purchases",
            "order_id = (select source_key from capi.deliveries where state = 'accepted'"
            f" and feed = '{FEED}' and cursor_at < '{minute}' order by cursor_at desc limit 1)",
            order_id=f"FORM-{number}", loaded_at=minute + timedelta(seconds=30),
        )  # fmt: skip
    return {"From": minute, "Up to": minute + timedelta(minutes=1)}


def outcome(window: Window, run_id: str) -> str:
    """Return what the page says of one of Airflow's runs."""
    path = f"/plugin/conversions/capi/runs/of/{DAG}/{quote(run_id, safe='')}"
    window.go(path)
    return window.frame().locator("main").inner_text()


def test_a_dry_run_is_started_with_the_form_and_sends_nothing(
    demo: Demo, dialog: Dialog, new_orders: dict[str, datetime]
) -> None:
    dialog.field("dry_run").press("Space")
    expect(dialog.field("dry_run")).to_be_checked()
    dialog.unfold("Dates")
    for label, moment in new_orders.items():
        dialog.pick(label, moment)
    with nothing_sent(demo):
        run_id = dialog.trigger()
        assert demo.end_of(DAG, run_id) == "success"
    page = dialog.window.page
    page.get_by_role("link", name="Conversions").click()
    frame = dialog.window.frame()
    frame.get_by_role("link", name=FEED, exact=True).click()
    frame.wait_for_url(f"**/capi/feeds/{FEED}**")
    latest = frame.get_by_role("row").filter(has_text="dry run").first
    latest.get_by_role("link").click()
    frame.wait_for_url("**/capi/runs/**")
    expect(frame.locator("main")).to_contain_text(run_id)
    expect(frame.locator("main")).to_contain_text("Nothing was sent: a dry run")


def test_a_limit_is_kept_and_the_rest_wait_for_a_run_without_one(
    demo: Demo, dialog: Dialog, new_orders: dict[str, datetime]
) -> None:
    wanted = {event_id(DATASET, "Purchase", f"FORM-{number}") for number in range(3)}
    assert not wanted & demo.received().keys()
    for limit, reached, told in (("2", 2, "pending"), ("", 3, "at Meta already")):
        dialog.field("limit").fill(limit)
        dialog.unfold("Dates")
        for label, moment in new_orders.items():
            dialog.pick(label, moment)
        run_id = dialog.trigger()
        assert demo.end_of(DAG, run_id) == "success"
        received = demo.received()
        assert [received.get(name, 0) for name in wanted].count(1) == reached
        assert told in outcome(dialog.window, run_id)
        dialog.open()


def test_what_the_form_does_not_take_starts_nothing_and_says_what_is_expected(
    demo: Demo, dialog: Dialog
) -> None:
    runs = len(demo.runs(DAG))
    dialog.field("test_event_code").fill("no code!")
    with nothing_sent(demo):
        dialog.press("Trigger", "/dagRuns")
        said = dialog.box.get_by_text("Invalid input for param test_event_code")
        expect(said).to_contain_text("a code as TEST12345, of Events Manager")
        assert len(demo.runs(DAG)) == runs


def test_half_an_interval_fails_at_once_says_so_and_sends_nothing(
    demo: Demo, dialog: Dialog, new_orders: dict[str, datetime]
) -> None:
    dialog.unfold("Dates")
    dialog.pick("From", new_orders["From"])
    with nothing_sent(demo):
        run_id = dialog.trigger()
        assert demo.end_of(DAG, run_id) == "failed"
    page = dialog.window.page
    page.goto(f"{dialog.window.url}/dags/{DAG}/runs/{run_id}/tasks/preflight")
    expect(page.get_by_text("only one of the dates").first).to_be_visible()
    assert "and has sent nothing" in outcome(dialog.window, run_id)


def test_a_backfill_over_what_was_sent_sends_nothing_twice(
    demo: Demo, dialog: Dialog
) -> None:
    first = clean_hour(demo, "shop.offline_purchases", "loaded_at", minute=5)
    second = first + timedelta(hours=1)
    before = demo.received()
    with nothing_sent(demo):
        dialog.backfill(first, first, "Missing Runs", 1)
        assert eventually(lambda: backfills_over(demo) == 1)
        # The same interval once more, and the next one.
        dialog.open().backfill(first, second, "All Runs", 2)
        assert eventually(lambda: backfills_over(demo) == 2)
    received = demo.received()
    assert received == before
    assert set(received.values()) == {1}
    assert received.keys() == demo.accepted_ids()
    runs = [run for run in demo.runs(DAG) if run["run_type"] == "backfill"]
    assert [run["state"] for run in runs] == ["success", "success"]
    for run in runs:
        told = outcome(dialog.window, run["dag_run_id"])
        assert "at Meta already, and not sent again" in told
        assert "No request was made" in told


def backfills_over(demo: Demo) -> int:
    """Count the DAG's backfills that have come to their end."""
    found = demo.airflow.ask("GET", f"/backfills?dag_id={DAG}")["backfills"]
    return sum(each["completed_at"] is not None for each in found)
