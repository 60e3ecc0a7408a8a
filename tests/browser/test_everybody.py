"""Every page for everybody: at any width, in any light, by keys, by ear, without a network."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from tests.browser.conftest import FEED, Visitor

pytestmark = pytest.mark.slow

WIDTHS = (375, 1280)
_IS_DRAWN = """
    c => c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some(Boolean)
"""

_TABLES_BESIDE = 'c => c.closest("section").querySelectorAll("table").length'


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_has_a_fault_that_axe_calls_serious(
    visitor: Visitor, theme: str
) -> None:
    faults: dict[str, list[str]] = {}
    for width in WIDTHS:
        with visitor.window(theme=theme, width=width) as window:
            for name, path in visitor.pages.items():
                window.go(path)
                found = Axe().run(window.page).response["violations"]
                faults[f"{name} at {width}"] = [
                    f"{each['id']} ({each['impact']}): {each['nodes'][0]['html']}"
                    for each in found
                    if each["impact"] in ("serious", "critical")
                ]
    assert len(faults) >= 20
    assert {name: each for name, each in faults.items() if each} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(
    visitor: Visitor, theme: str
) -> None:
    with visitor.window(width=375, theme=theme) as window:
        for name, path in visitor.pages.items():
            page = window.go(path)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 375, name


def test_no_page_asks_another_machine_or_breaks_its_own_policy(
    visitor: Visitor,
) -> None:
    with visitor.window() as window:
        for path in visitor.pages.values():
            window.go(path)
        assert {urlsplit(url).netloc for url in window.asked} == {
            urlsplit(window.url).netloc
        }
        assert window.complaints == []


def test_airflows_theme_is_the_pages(visitor: Visitor) -> None:
    with visitor.window(theme="light") as window:
        page = window.go("/capi/")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.evaluate("localStorage.setItem('theme', 'dark')")
        page.reload()
        dark = page.evaluate(ground)
        assert dark != light
        page.evaluate("localStorage.setItem('theme', 'light')")
        page.reload()
        assert page.evaluate(ground) == light


def test_each_chart_is_drawn_and_stands_beside_its_numbers(visitor: Visitor) -> None:
    with visitor.window() as window:
        page = window.go(f"/capi/feeds/{FEED}?days=90")
        charts = page.locator("figure canvas")
        assert charts.count() == 6
        for place in range(charts.count()):
            canvas = charts.nth(place)
            assert canvas.evaluate(_IS_DRAWN)
            assert canvas.evaluate(_TABLES_BESIDE) >= 1


def test_without_scripts_every_number_is_there(visitor: Visitor) -> None:
    context = visitor.browser.new_context(java_script_enabled=False)
    url = visitor.demo.airflow.url
    context.add_cookies([{"name": "_token", "value": visitor.token, "url": url}])
    page = context.new_page()
    page.goto(f"{url}/capi/feeds/{FEED}?days=90")
    (total,) = visitor.demo.sql(
        "select count(*) from capi.deliveries where feed = %s", FEED
    )[0]
    expect(page.locator("main")).to_contain_text(f"{total:,}")
    context.close()


def test_a_keyboard_is_enough(visitor: Visitor) -> None:
    ((key,),) = visitor.demo.sql(
        "select source_key from capi.deliveries where state = 'quarantined'"
        " and feed = %s and reason = 'currency.unknown' limit 1", FEED,
    )  # fmt: skip
    with visitor.window() as window:
        page = window.go("/capi/")
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Skip to the content")
        page.keyboard.press("Enter")
        _tab_to(page, FEED)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/feeds/{FEED}**")
        _tab_to(page, "What is held, and why")
        page.keyboard.press("Enter")
        page.wait_for_url("**/held")
        _tab_to(page, "Find one conversion")
        page.keyboard.press("Enter")
        page.wait_for_url("**/search")
        page.locator("#key").wait_for()
        while page.evaluate("document.activeElement.id") != "key":
            page.keyboard.press("Tab")
        page.keyboard.type(key)
        page.keyboard.press("Enter")
        expect(page.locator("article")).to_contain_text("currency.unknown")
        focused = "getComputedStyle(document.activeElement).outlineStyle"
        _tab_to(page, "Preview its payload, masked")
        assert page.evaluate(focused) != "none"


def _tab_to(page: Page, words: str) -> None:
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip() == words:
            return
    raise AssertionError(f"{words} is not reached by the Tab key")
