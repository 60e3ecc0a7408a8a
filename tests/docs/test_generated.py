"""Are the pages that are made from the code those of this code?"""

from __future__ import annotations

import re

import pytest
from tests.faults.matrix import NOT_HERE, ROWS, proofs
from tools.feed_reference import feeds, places
from tools.write_docs import PAGES, ROOT, lifecycle, reasons

from meta_capi.catalogue import CATALOGUE
from meta_capi.feed import Feed, json_schema
from meta_capi.lifecycle import EDGES


@pytest.mark.parametrize("path", PAGES)
def test_a_generated_page_is_up_to_date(path: str) -> None:
    written = (ROOT / path).read_text(encoding="utf-8")
    assert written == PAGES[path](), "run `make docs`"


def test_every_entry_of_the_catalogue_is_on_the_page_once_with_its_anchor() -> None:
    for code in CATALOGUE:
        assert reasons().count(f'| <a id="{code}"></a>`{code}` |') == 1


def test_every_field_of_a_feed_is_in_the_reference_with_its_meaning() -> None:
    base = Feed.__mro__[1]
    told = feeds()
    for model in base.__subclasses__():
        for name, field in model.model_fields.items():
            meaning = " ".join((field.description or "").split())
            assert meaning, f"{model.__name__}.{name} says nothing of itself"
            cell = meaning.replace("|", "\\|")
            assert any(
                line.startswith(f"| `{name}` |") and line.endswith(f"| {cell} |")
                for line in told.splitlines()
            ), f"{model.__name__}.{name}"


def test_every_part_of_a_feed_has_a_place_and_every_link_leads_to_one() -> None:
    assert set(places()) == set(json_schema()["$defs"])
    told = feeds()
    heads = {line.removeprefix("## ") for line in told.splitlines() if line[:2] == "##"}
    for link in re.findall(r"\[(`[^`]+`)\]\(#", told):
        assert link in heads


def test_every_edge_is_in_the_table_of_the_lifecycle() -> None:
    for edge in EDGES:
        assert f"| {edge.letter} | {edge.verb} |" in lifecycle()


def test_every_row_of_the_fault_matrix_has_a_test_or_a_reason() -> None:
    found = set(proofs())
    assert found <= set(ROWS), "a mark names no row"
    assert set(ROWS) - found == set(NOT_HERE)
