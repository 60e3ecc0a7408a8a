"""Are the pages that are made from the code those of this code?"""

from __future__ import annotations

import pytest
from tools.write_docs import PAGES, ROOT, reasons

from meta_capi.catalogue import REASONS


@pytest.mark.parametrize("path", PAGES)
def test_a_generated_page_is_up_to_date(path: str) -> None:
    written = (ROOT / path).read_text(encoding="utf-8")
    assert written == PAGES[path](), "run `make docs`"


def test_every_reason_is_on_the_page_once() -> None:
    for code in REASONS:
        assert reasons().count(f"| `{code}` |") == 1
