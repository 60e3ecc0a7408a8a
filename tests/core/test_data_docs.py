"""What the report pages promise: complete, safe to read, never half-written."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from meta_capi.catalogue import reason
from meta_capi.data_docs import page_name, publish
from meta_capi.gate import GateResult, Outcome, Status

SCRIPT = "<script>alert(1)</script>"


def outcome(**changes: Any) -> Outcome:
    usual: dict[str, Any] = {
        "type": "expect_column_values_to_be_unique",
        "column": "order_id",
        "reason": "key.duplicate",
        "severity": "critical",
        "status": Status.FAILED,
        "unexpected": 1234,
        "share": 0.1234,
        "mostly": 1.0,
        "notes": "In the whole interval.",
    }
    return Outcome(**usual | changes)


def result(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "validation_id": "run-1",
        "feed": "offline_purchases",
        "suite": "offline_purchases",
        "interval_start": "2026-03-02T00:00:00+00:00",
        "interval_end": "2026-03-03T00:00:00+00:00",
        "rows": 10_000,
        "quarantined": 1234,
        "seconds": 1.25,
        "expectations": (outcome(),),
    }
    return GateResult(**usual | changes).to_json()


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [str(v) for k, v in attrs if k in ("href", "src") and v]

    def handle_data(self, data: str) -> None:
        self.text += data


def pages(folder: Path) -> list[Path]:
    return sorted(folder.glob("validation-*.html"))


def test_a_page_says_which_expectation_failed_for_how_many_rows_and_why(
    tmp_path: Path,
) -> None:
    publish([result()], tmp_path)
    page = Page(tmp_path / page_name("run-1"))
    known = reason("key.duplicate")
    for words in (
        "offline_purchases",
        "order_id: column values to be unique",
        "In the whole interval.",
        "failed",
        "1,234",
        "12.34 %",
        known.meaning,
        known.action,
    ):
        assert words in page.text
    assert "../docs/reasons.md#key.duplicate" in page.targets


def test_what_could_not_be_checked_is_not_shown_as_a_number(tmp_path: Path) -> None:
    unchecked = outcome(
        status=Status.COULD_NOT_BE_CHECKED, unexpected=None, share=None, reason=None
    )
    index = publish([result(expectations=(unchecked,))], tmp_path)
    assert "could not be checked" in Page(index).text
    assert Page(tmp_path / page_name("run-1")).text.count("–") == 3


def test_the_index_lists_the_latest_of_each_feed_first(tmp_path: Path) -> None:
    days = [
        result(
            validation_id=f"{feed}-{day}",
            feed=feed,
            interval_start=f"2026-03-{day:02}T00:00:00+00:00",
            interval_end=f"2026-03-{day + 1:02}T00:00:00+00:00",
        )
        for feed in ("phone_orders", "crm_leads")
        for day in (5, 7, 6)
    ]
    index = publish(days, tmp_path, latest=2)
    wanted = [
        f"{feed}-{day}" for feed in ("crm_leads", "phone_orders") for day in (7, 6)
    ]
    assert Page(index).targets == [page_name(name) for name in wanted]
    assert len(pages(tmp_path)) == 6


def test_every_link_of_the_pages_leads_somewhere(tmp_path: Path) -> None:
    publish([result(), result(validation_id="run-2")], tmp_path)
    for path in tmp_path.iterdir():
        for target in Page(path).targets:
            assert (
                target.startswith("../docs/reasons.md#") or (tmp_path / target).exists()
            )


def test_no_page_asks_another_machine_for_anything(tmp_path: Path) -> None:
    publish([result()], tmp_path)
    for path in tmp_path.iterdir():
        page = Page(path)
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        assert not re.search(r"https?:|//|@import|url\(", path.read_text())
        assert "default-src 'none'" in path.read_text()
        assert "prefers-color-scheme: dark" in path.read_text()
        assert "width=device-width" in path.read_text()


@pytest.mark.matrix("X25")
def test_whatever_a_result_says_stays_text(tmp_path: Path) -> None:
    hostile = result(
        validation_id=SCRIPT,
        feed=SCRIPT,
        suite=SCRIPT,
        interval_start=SCRIPT,
        expectations=(
            outcome(column=SCRIPT, notes=SCRIPT, type=SCRIPT, reason=SCRIPT),
        ),
    )
    publish([hostile], tmp_path, reasons_url=f'"{SCRIPT}')
    assert len(pages(tmp_path)) == 1
    for path in tmp_path.iterdir():
        assert "script" not in Page(path).tags
        assert SCRIPT not in path.read_text()


@pytest.mark.matrix("X19", "X35")
def test_what_a_result_should_not_hold_is_not_shown(tmp_path: Path) -> None:
    leaky = result()
    leaky["examples"] = ["jane.canary@example.com"]
    leaky["expectations"][0]["unexpected_list"] = ["jane.canary@example.com"]
    publish([leaky], tmp_path)
    assert all("canary" not in path.read_text() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "validation_id", ["../../etc/passwd", "a/b", "..", "", "ü" * 300]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, validation_id: str) -> None:
    folder = tmp_path / "docs"
    publish([result(validation_id=validation_id)], folder)
    assert len(pages(folder)) == 1
    assert sorted(tmp_path.iterdir()) == [folder]


def test_pages_of_forgotten_validations_go_and_nothing_else_does(
    tmp_path: Path,
) -> None:
    (tmp_path / "notes.html").write_text("mine")
    publish([result(), result(validation_id="old")], tmp_path)
    publish([result()], tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"index.html", "notes.html", page_name("run-1")}


def test_a_failed_write_leaves_the_old_pages(tmp_path: Path) -> None:
    publish([result()], tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    broken = result(rows=1)
    broken["expectations"][0]["status"] = "unheard of"
    with pytest.raises(ValueError, match="unheard of"):
        publish([broken], tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_no_validations_make_an_index_that_says_so(tmp_path: Path) -> None:
    assert "No validation has run yet." in Page(publish([], tmp_path)).text
