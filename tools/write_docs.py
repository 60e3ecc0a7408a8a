"""Write the pages made from the code: `make docs`. A test compares them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from meta_capi.catalogue import REASONS, Effect
from meta_capi.feed import json_schema

ROOT: Final = Path(__file__).resolve().parent.parent

_EFFECTS: Final = {
    Effect.WITHHELD: "We decided not to send the conversion.",
    Effect.QUARANTINED: "The conversion is held for a person.",
    Effect.EXPIRED: "Meta would no longer take it.",
    Effect.REFUSED: "Meta refused this very event.",
    Effect.IN_DOUBT: "It may have gone out, and nobody knows.",
    Effect.PENDING: "It is owed, and waits.",
    Effect.KEY_DROPPED: "The event goes out without this match key or field.",
}


def reasons() -> str:
    """Return the catalogue of reasons, a table for each effect."""
    return "\n".join(_reasons()) + "\n"


def _reasons() -> Iterator[str]:
    yield "# Reasons"
    yield ""
    yield "Generated from `include/meta_capi/catalogue.py` by `make docs`."
    yield "A code is stable: it stands in the ledger, in logs and on the page."
    for effect, meaning in _EFFECTS.items():
        yield from ("", f"## {effect.value.replace('_', ' ').capitalize()}", "")
        yield from (
            meaning,
            "",
            "| code | meaning | what to do |",
            "| --- | --- | --- |",
        )
        for each in REASONS.values():
            if each.effect is effect:
                cells = (f"`{each.code}`", each.meaning, each.action)
                yield (
                    "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
                )


def feed_schema() -> str:
    """Return the JSON schema by which editors complete feed files."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "docs/reasons.md": reasons,
    "include/feeds/feed.schema.json": feed_schema,
}


def main() -> None:
    """Write every page, and say which have changed."""
    for path, page in PAGES.items():
        file, text = ROOT / path, page()
        old = file.read_text(encoding="utf-8") if file.exists() else ""
        file.write_text(text, encoding="utf-8")
        print(path, "is as it was." if text == old else "is new.")


if __name__ == "__main__":
    main()
