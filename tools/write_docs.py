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

from meta_capi.catalogue import CATALOGUE, EFFECTS, section_title
from meta_capi.feed import json_schema
from meta_capi.lifecycle import EDGES, MOVES, State, diagram

ROOT: Final = Path(__file__).resolve().parent.parent


def reasons() -> str:
    """Return the catalogue, a table for each effect; each entry has its code's anchor."""
    return "\n".join(_reasons()) + "\n"


def _reasons() -> Iterator[str]:
    yield "# Reasons, Meta's codes and faults"
    yield ""
    yield "Generated from `include/meta_capi/catalogue/` by `make docs`."
    yield (
        "A code is stable: it stands in the ledger, in logs and on the page, and it is its "
        "entry's anchor. The page *Reasons* of the Conversions page shows the same, and "
        "`meta-capi reasons CODE` tells one."
    )
    yield (
        "Meta's codes begin with `meta`: the code, then the subcode. A subcode that is not "
        "here has the entry of its code."
    )
    sections = [(effect, section_title(effect)) for effect in EFFECTS]
    yield ""
    yield " · ".join(f"[{title}](#{_slug(title)})" for _, title in sections)
    for effect, title in sections:
        yield from ("", f"## {title}", "", EFFECTS[effect], "")
        yield from ("| code | meaning | what to do |", "| --- | --- | --- |")
        for each in CATALOGUE.values():
            if each.effect is effect:
                code = f'<a id="{each.code}"></a>`{each.code}`'
                cells = (code, each.meaning, each.action)
                yield (
                    "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
                )


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")


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
