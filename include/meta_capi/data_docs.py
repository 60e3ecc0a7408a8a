"""The quality gate's pages: static, complete in themselves, without a row's values.

Built from `GateResult`s as plain data, so the ledger's table can be the source and the
folder can be made anew at any time. Great Expectations' own pages hold rows' values and
fetch their styles from the internet (docs/decisions/0006-data-docs.md).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from meta_capi.catalogue import anchor, reason
from meta_capi.gate import Status
from meta_capi.suites import Severity

__all__ = ["page_name", "publish"]

_WORDS: Final = {
    Status.PASSED: "passed",
    Status.FAILED: "failed",
    Status.COULD_NOT_BE_CHECKED: "could not be checked",
}
_PAGE: Final = re.compile(r"validation-[A-Za-z0-9_-]+\.html")


def publish(
    results: Iterable[Mapping[str, Any]],
    folder: Path,
    *,
    reasons_url: str = "../docs/reasons.md",
    latest: int = 50,
) -> Path:
    """Write a page for each validation and an index; return the index.

    Each file changes at once or not at all, the index after its pages, so a reader
    never meets half a page or a dead link. Pages of validations that are not among the
    results are removed.

    Args:
        results: as `GateResult.to_json` gives them.
        folder: where the pages stand; made if it is not there.
        reasons_url: the page of reasons, to which each reason links.
        latest: how many validations of a feed the index lists, newest interval first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        loader=PackageLoader("meta_capi"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = sorted(map(_shown, results), key=lambda result: result["interval_end"])
    feeds: dict[str, list[dict[str, Any]]] = {}
    page = environment.get_template("validation.html")
    for result in reversed(shown):
        feeds.setdefault(result["feed"], []).append(result)
        text = page.render(result=result, reasons_url=reasons_url)
        _write(folder / result["page"], text)
    listed = {feed: feeds[feed][:latest] for feed in sorted(feeds)}
    index = folder / "index.html"
    _write(index, environment.get_template("index.html").render(feeds=listed))
    kept = {result["page"] for result in shown}
    for path in folder.iterdir():
        if _PAGE.fullmatch(path.name) and path.name not in kept:
            path.unlink(missing_ok=True)  # another worker may publish as well
    return index


def page_name(validation_id: str) -> str:
    """Return the file of a validation; ids that differ have files that differ.

    >>> page_name("scheduled__2026-01-01T00:00:00+00:00")
    'validation-scheduled__2026-01-01T00-00-00-00-00-b94d9daf.html'
    """
    readable = re.sub(r"[^A-Za-z0-9_-]", "-", validation_id)[:80]
    digest = hashlib.blake2b(validation_id.encode(), digest_size=4).hexdigest()
    return f"validation-{readable}-{digest}.html"


def _shown(result: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what a page shows, by name: whatever else a result may hold stays out."""
    names = (
        "validation_id", "feed", "suite", "interval_start", "interval_end", "rows",
        "quarantined", "seconds",
    )  # fmt: skip
    outcomes = [_outcome(entry) for entry in result["expectations"]]
    worst = max((outcome["weight"] for outcome in outcomes), default=0)
    return {
        **{name: result[name] for name in names},
        "expectations": outcomes,
        "page": page_name(result["validation_id"]),
        "worst": ("passed", "failed warning", "failed critical", "stopped")[worst],
        "worst_words": (
            "passed", "warnings", "rows in quarantine", "could not be checked",
        )[worst],
    }  # fmt: skip


def _outcome(entry: Mapping[str, Any]) -> dict[str, Any]:
    status, severity = Status(entry["status"]), Severity(entry["severity"])
    words = entry["type"].removeprefix("expect_").replace("_", " ")
    if entry["column"]:
        words = f"{entry['column']}: {words}"
    if entry["mostly"] < 1:
        words = f"{words}, in {entry['mostly']:.0%} of rows"
    code = entry["reason"]
    known = reason(code) if code else None
    return {
        "words": words,
        "notes": entry["notes"],
        "status": status.value,
        "status_words": _WORDS[status],
        "severity": severity.value,
        "unexpected": entry["unexpected"],
        "share": entry["share"],
        "reason": code,
        "anchor": anchor(code) if code else "",
        "meaning": known.meaning if known else "",
        "action": known.action if known else "",
        "weight": _weight(status, severity),
    }


def _weight(status: Status, severity: Severity) -> int:
    match status:
        case Status.PASSED:
            return 0
        case Status.FAILED:
            return 2 if severity is Severity.CRITICAL else 1
        case Status.COULD_NOT_BE_CHECKED:
            return 3


def _write(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
