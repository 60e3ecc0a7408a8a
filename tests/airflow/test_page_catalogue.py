"""The page's catalogue is the whole one, and every link to it leads to an entry."""

from __future__ import annotations

import re

import pytest
from starlette.requests import Request

from capi_airflow.links import catalogue_address
from capi_airflow.page.flow import reasons
from capi_airflow.page.view import _ENVIRONMENT
from meta_capi.catalogue import CATALOGUE, EFFECTS


def shown() -> str:
    """Return the page of reasons."""
    scope = {"type": "http", "method": "GET", "path": "/capi/reasons", "headers": []}
    request = Request(scope | {"root_path": "/capi", "query_string": b""})
    return bytes(reasons(request, who=None).body).decode()  # type: ignore[arg-type]


def test_it_shows_every_entry_once_below_its_own_anchor() -> None:
    page = shown()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(CATALOGUE) <= set(ids)
    assert len(re.findall(r"<section", page)) == len(EFFECTS)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


@pytest.mark.parametrize(
    ("code", "subcode", "entry"),
    [
        (100, 2804009, "meta.100.2804009"), (100, None, "meta.100"),
        (190, 463, "meta.190.463"), (190, 31, "meta.190"), (231, None, "meta.200"),
        (80_009, 7, "meta.80000"), (-3, None, "meta.negative"), (77, 1, "meta.other"),
    ],
)  # fmt: skip
def test_metas_numbers_lead_to_the_entry_that_speaks_of_them(
    code: int, subcode: int | None, entry: str
) -> None:
    parts = _ENVIRONMENT.get_template("parts.html").module
    link = str(parts.metas(7, code, subcode, "/capi"))  # type: ignore[attr-defined]
    assert link == f'<a href="/capi/reasons#{entry}">7</a>'
    assert entry in CATALOGUE
    assert str(parts.metas(None, code, subcode, "/capi")) == "–"  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", [*CATALOGUE, "meta.5", "gone.long_ago"])
def test_a_logs_link_leads_to_an_entry_with_and_without_airflows_address(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert catalogue_address(code).partition("#")[2] in CATALOGUE
    assert catalogue_address(code).startswith("docs/reasons.md#")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://air.example/")
    assert catalogue_address(code).startswith("https://air.example/capi/reasons#")
