"""The demo's Airflow, and a real browser in front of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Frame, Page, expect, sync_playwright
from tests.journeys.conftest import Demo
from tools.browser import ADVICE, found

from demo.processes import free_port

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FEED = "offline_purchases"
PATIENCE = 60_000.0  # milliseconds; the machine may be busy


@dataclass
class Window:
    """One browser window, what it asked for, and what it complained of."""

    page: Page
    url: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        """Open an address, and wait until all of it is there."""
        self.page.goto(f"{self.url}{path}")
        self.page.wait_for_load_state("networkidle")
        return self.page

    def frame(self) -> Frame:
        """Return the frame in which Airflow shows the page."""
        self.page.wait_for_selector("iframe[title=Conversions]")
        handle = self.page.query_selector("iframe[title=Conversions]")
        frame = handle.content_frame() if handle else None
        assert frame
        frame.wait_for_selector("main h1, main h2")
        return frame


@dataclass
class Visitor:
    """Somebody with a browser, signed in or not."""

    demo: Demo
    browser: Browser
    token: str

    @contextmanager
    def window(
        self, *, width: int = 1280, theme: str = "light", signed_in: bool = True
    ) -> Iterator[Window]:
        """Open a window."""
        url = self.demo.airflow.url
        context = self.browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,  # type: ignore[arg-type]
        )
        context.set_default_timeout(PATIENCE)
        if signed_in:
            context.add_cookies([{"name": "_token", "value": self.token, "url": url}])
        page = context.new_page()
        window = Window(page, url)
        page.on("request", lambda request: window.asked.append(request.url))
        page.on("pageerror", lambda error: window.complaints.append(str(error)))
        page.on("console", lambda said: _hear(window, said))
        try:
            yield window
        finally:
            context.close()

    @property
    def pages(self) -> dict[str, str]:
        """Every page, by what it is."""
        ((run_no,),) = self.demo.sql(
            "select max(run_no) from capi.batches where state = 'refused'"
        )
        ((batch,),) = self.demo.sql(
            "select max(batch_id) from capi.batches where state = 'refused'"
        )
        ((day,),) = self.demo.sql(
            "select max((cursor_at at time zone 'UTC')::date) from capi.deliveries"
            " where state = 'quarantined'"
        )
        return {
            "all feeds": "/capi/?days=90",
            "a feed": f"/capi/feeds/{FEED}?days=90",
            "a feed without rows": "/capi/feeds/crm_leads?days=1",
            "a day": f"/capi/feeds/{FEED}/days/{day}",
            "what is held": f"/capi/feeds/{FEED}/held",
            "a reason": f"/capi/feeds/{FEED}/held?state=quarantined&reason=currency.unknown",
            "a run": f"/capi/runs/{run_no}",
            "a batch": f"/capi/batches/{batch}",
            "the search": "/capi/search",
            "the replay": f"/capi/replay?feed={FEED}&reason=currency.unknown",
            "the reasons": "/capi/reasons",
            "nothing": "/capi/nothing",
        }


def _hear(window: Window, said: Any) -> None:
    if said.type == "error" and "404" not in said.text:
        window.complaints.append(said.text)


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    """A demo of these tests' own, after its first `up`."""
    with tempfile.TemporaryDirectory(prefix="capi-browser-") as name:
        folder = Path(name)
        # Else only root could enter it, and PostgreSQL does not run as root.
        folder.chmod(0o755)
        ports = {"ui": free_port(), "graph": free_port(), "db": free_port()}
        demo = Demo(folder / "demo", ports)
        try:
            demo.first = demo.command("up")
            assert demo.first.returncode == 0, demo.first.stderr
            yield demo
        finally:
            demo.command("down")


@pytest.fixture(scope="session")
def visitor(demo: Demo) -> Iterator[Visitor]:
    """Somebody with a Chromium."""
    path = found()
    assert path, ADVICE
    demo.airflow.ask("GET", "/version")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield Visitor(demo, browser, demo.airflow._token)
        browser.close()
