"""The page that a new user follows, followed: every command of it, on a table of its own."""

from __future__ import annotations

import io
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from tests.conftest import Database
from tests.docs.own_feed_page import BLOCKS, TEXT, block
from tests.house_rules import ROOT

from graph_simulator import Simulator
from meta_capi.cli import main
from meta_capi.feed import parse

_SPOKEN = re.compile(r"^`(meta-capi feed check [^`]+)`", re.MULTILINE)
_DATASET = "1234567890"


@dataclass
class Reader:
    """Somebody who does what the page says, in its order."""

    database: Database
    environ: dict[str, str]
    folder: Path
    told: str = ""
    commands: list[str] = field(default_factory=list)

    def follow(self, language: str, text: str) -> None:
        """Do what one block says; what it shows must be what is seen."""
        match language:
            case "":
                self.told = ""
                for line in text.splitlines():
                    self.type(line)
            case "text":
                assert [x for x in text.splitlines() if x not in self.told] == []
            case "sql":
                with psycopg.connect(self.database.dsn) as connection:
                    connection.execute(text.encode())
            case "yaml" if text.startswith("feed:"):
                path = self.folder / "include" / "feeds" / "store_sales.yaml"
                path.write_text(text, encoding="utf-8")
            case "yaml":
                path = self.folder / "include" / "feeds" / "store_sales.yaml"
                parse(path.read_text(encoding="utf-8") + text)

    def type(self, line: str) -> None:
        """Type a line into the shell."""
        program, *words = shlex.split(line)
        if program == "export":
            assert words[0].startswith("META_CAPI_WAREHOUSE=")
            self.environ["META_CAPI_WAREHOUSE"] = self.database.dsn
            return
        assert program == "meta-capi", f"nobody tries {line!r}"
        out = io.StringIO()
        code = main(words, environ=self.environ, out=out)
        self.told += out.getvalue()
        assert code == int("MISSING" in out.getvalue()), f"{line}\n{out.getvalue()}"
        self.commands.append(" ".join(words[:2]))


@pytest.fixture
def reader(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reader]:
    """A reader in the demo's place: a ledger, a local Graph API, and the shipped feeds."""
    for name in ("feeds", "expectations"):
        shutil.copytree(ROOT / "include" / name, tmp_path / "include" / name)
    monkeypatch.chdir(tmp_path)
    with Simulator() as graph:
        environ = {
            "META_CAPI_LEDGER": database.dsn, "META_CAPI_DATASET": _DATASET,
            "META_CAPI_TOKEN": "EAABtokenOfTheTests0123456789",
            "META_CAPI_GRAPH_URL": graph.url,
        }  # fmt: skip
        assert main(["migrate"], environ=environ, out=io.StringIO()) == 0
        yield Reader(database, environ, tmp_path)


def test_every_command_of_the_page_does_what_the_page_says(reader: Reader) -> None:
    # The first block is the demo's own; tests/journeys/test_first_hour.py runs it.
    # Steps 6 and 7 are Airflow's; tests/airflow/test_own_feed.py goes them.
    assert BLOCKS[0][1].startswith("make demo\n")
    for language, text in BLOCKS[1:]:
        reader.follow(language, text)
    assert "Meta took it" in reader.told
    for line in _SPOKEN.findall(TEXT):
        reader.type(line)
    assert reader.commands[:5] == [
        "feed new", "check store_sales", "preview store_sales", "plan store_sales",
        "send-test store_sales",
    ]  # fmt: skip
    assert reader.commands[-1] == "feed check"


def test_the_mended_feed_is_the_draft_without_its_marks(reader: Reader) -> None:
    """Only what is marked as missing, or as a guess, is another line on the page."""
    reader.follow("sql", block("create schema"))
    reader.environ["META_CAPI_WAREHOUSE"] = reader.database.dsn
    reader.type(block("meta-capi feed new").strip())
    path = reader.folder / "include" / "feeds" / "store_sales.yaml"
    draft = path.read_text(encoding="utf-8")
    bare = {line.partition("  #")[0].rstrip() for line in draft.splitlines()}
    written = [line for line in block("feed:").splitlines() if line not in bare]
    assert written == [
        "description: Sales in the stores.",
        "start_date: 2026-11-01",
        "    timezone: Europe/Zurich",
        "  ph: {column: telefonNr, default_country: CH}",
    ]
