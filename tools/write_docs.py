"""Write the pages made from the code: `make docs`. A test compares them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tools.alerts_page import alerts_page
from tools.bench_page import bench_page
from tools.fault_matrix import fault_matrix
from tools.fault_runs import fault_runs
from tools.feed_reference import feeds

from meta_capi.catalogue import REASONS, Effect
from meta_capi.feed import json_schema
from meta_capi.lifecycle import EDGES, MOVES, State, diagram

ROOT: Final = Path(__file__).resolve().parent.parent

_EFFECTS: Final = {
    Effect.ACCEPTED: "Meta has it; by an answer of Meta's there is no reason to give.",
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


def lifecycle() -> str:
    """Return the diagram of a delivery's states, and its edges by their letters."""
    return "\n".join(_lifecycle()) + "\n"


def _lifecycle() -> Iterator[str]:
    yield "# The lifecycle of a delivery"
    yield ""
    yield "Generated from `include/meta_capi/lifecycle.py` by `make docs`."
    yield "The ledger's database refuses every move that is not drawn here."
    yield from ("", "```mermaid", diagram().rstrip(), "```", "")
    yield from ("| edge | verb | from | to |", "| --- | --- | --- | --- |")
    for edge in EDGES:
        starts = ", ".join(
            f"`{start}`" if start else "a new row"
            for start in edge.starts
            if start is not edge.leads
        )
        yield f"| {edge.letter} | {edge.verb} | {starts} | `{edge.leads}` |"
    final = [f"`{each}`" for each in State if each not in {start for start, _ in MOVES}]
    yield from ("", f"No edge leads out of {', '.join(final)}.")


def dags() -> str:
    """Return the catalogue of DAGs, read by an Airflow that is thrown away."""
    program = ROOT / "tools" / "dag_catalogue.py"
    with tempfile.TemporaryDirectory(prefix="capi-docs-") as home:
        kept = {
            name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ
        }
        environment = kept | {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT / "include"), str(ROOT / "plugins")]
            ),
        }
        told = subprocess.run(
            [sys.executable, str(program), str(ROOT / "dags")],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if told.returncode:
        raise RuntimeError(f"The DAG folder cannot be read:\n{told.stderr}")
    return told.stdout


PAGES: Final[dict[str, Callable[[], str]]] = {
    "docs/alerts.md": alerts_page,
    "docs/benchmarks.md": bench_page,
    "docs/dags.md": dags,
    "docs/fault-matrix.md": fault_matrix,
    "docs/fault-runs.md": fault_runs,
    "docs/feeds.md": feeds,
    "docs/lifecycle.md": lifecycle,
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
