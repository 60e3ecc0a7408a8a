"""Are the words true? Whatever README and docs name is looked up, and what can run is run."""

from __future__ import annotations

import ast
import dataclasses
import io
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from tests.ledger import small_world as life
from tests.ledger.small_world import World, small_world

from demo.postgres import Postgres
from meta_capi import spec
from meta_capi.catalogue import CATALOGUE
from meta_capi.cli import main
from meta_capi.desk import COVER_SECONDS, LEASE_SECONDS
from meta_capi.dispatch import Patience
from meta_capi.feed import Feed, Limits, parse
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import EDGES, State
from meta_capi.names import event_id

ROOT = Path(__file__).resolve().parents[2]
_DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = ["README.md", "CHANGELOG.md", *(str(p.relative_to(ROOT)) for p in _DOCS)]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def prose_of(page: str) -> str:
    """Return a page without its blocks of code."""
    return _FENCE.sub("", text_of(page))


def blocks(page: str, language: str) -> list[str]:
    return [code for name, code in _FENCE.findall(text_of(page)) if name == language]


def spans(page: str) -> list[str]:
    return _SPAN.findall(prose_of(page))


def code_of(page: str) -> list[str]:
    """Return everything that is set as code: spans, and the lines of blocks."""
    lines = (
        line for _, code in _FENCE.findall(text_of(page)) for line in code.split("\n")
    )
    return [*spans(page), *lines]  # fmt: skip


def anchors(page: str) -> set[str]:
    """Return the names that a page's headings have on a web page."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = found.count(name)
        found.append(f"{name}-{again}" if again else name)
    return {*found, *re.findall(r'<a id="([^"]+)"></a>', prose_of(page))}


def every(look: Callable[[str], list[str]]) -> list[Any]:
    """Return what `look` finds on each page, as test parameters."""
    return [
        pytest.param(page, found, id=f"{page}: {found}")
        for page in PAGES
        for found in dict.fromkeys(look(page))
    ]


# --- links, files, tests --------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    links = [link for link in _LINK.findall(prose_of(page)) if "://" not in link]
    assert [link for link in links if not _leads_somewhere(page, link)] == []


def _leads_somewhere(page: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target.relative_to(ROOT).as_posix())


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, left = set(), ["README.md"]
    while left:
        page = left.pop()
        if page in reached or not page.endswith(".md"):
            continue
        reached.add(page)
        for link in _LINK.findall(prose_of(page)):
            path = ((ROOT / page).parent / link.partition("#")[0]).resolve()
            if "://" not in link and path.is_file() and path.is_relative_to(ROOT):
                left.append(path.relative_to(ROOT).as_posix())
    assert set(PAGES) - reached == set()


def _paths(page: str) -> list[str]:
    tops = "include|plugins|dags|docs|tests|tools|deploy|benchmarks"
    plain = re.compile(rf"(?:{tops})/[\w./*:-]*")
    return [span for span in spans(page) if plain.fullmatch(span)]


@pytest.mark.parametrize(("page", "path"), every(_paths))
def test_every_file_and_every_test_named_is_there(page: str, path: str) -> None:
    file, *names = path.split("::")
    if file.partition(".")[0].endswith("/store_sales"):
        return  # the reader's own, in docs/your-own-feed.md
    folder = file.rpartition("/")[0] if "*" in file else file
    assert (ROOT / folder).exists(), f"{folder} does not exist"
    body: list[ast.stmt] = ast.parse(text_of(file)).body if names else []
    for name in names:
        found = [
            each
            for each in body
            if isinstance(each, ast.ClassDef | ast.FunctionDef) and each.name == name
        ]
        assert found, f"{file} has no {name}"
        body = found[0].body


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) < 120


# --- commands -------------------------------------------------------------------------


def _targets(page: str) -> list[str]:
    return [
        target
        for line in code_of(page)
        for target in re.findall(r"(?:^|[^\w-])make ([a-z][a-z-]*)", line)
    ]


@pytest.mark.parametrize(("page", "target"), every(_targets))
def test_every_make_target_named_is_one(page: str, target: str) -> None:
    assert re.search(rf"^{target}:", text_of("Makefile"), re.MULTILINE)


def _commands(page: str) -> list[str]:
    return [
        found
        for line in code_of(page)
        for found in re.findall(r"(?:^|[^\w/.-])(meta-capi [a-z][^#]*)", line)
    ]


@pytest.mark.parametrize(("page", "line"), every(_commands))
def test_every_command_named_is_one_with_these_options(
    page: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = line.split()[1:]
    command = words[:2] if words[0] == "feed" else words[:1]
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0
    for option in re.findall(r"--[a-z-]+", line):
        assert option in told
    if state := re.search(r"--list ([a-z_]+)", line):
        assert state[1] in list(State)


# --- words of the code ----------------------------------------------------------------


def _is_part_of_a_feed(path: str) -> bool:
    """Tell whether a dotted name, as `event.time`, is one of a feed file."""
    model: Any = Feed
    for name in path.split("."):
        fields = getattr(model, "model_fields", {})
        if name not in fields:
            return False
        model = _model(fields[name].annotation)
    return True


def _model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = [_model(part) for part in getattr(annotation, "__args__", ())]
    return next(filter(None, parts), None)


def _dotted(page: str) -> list[str]:
    """Return the dotted words that begin as a reason or as a feed's field does."""
    first = {code.partition(".")[0] for code in CATALOGUE} | set(Feed.model_fields)
    return [
        span
        for span in spans(page)
        if re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)+(?<!\.json)", span)
        and span.partition(".")[0] in first
    ]


@pytest.mark.parametrize(("page", "name"), every(_dotted))
def test_every_reason_and_every_field_of_a_feed_named_exists(
    page: str, name: str
) -> None:
    assert name in CATALOGUE or _is_part_of_a_feed(name)


def test_every_feed_shown_is_one() -> None:
    shown = [
        (page, block)
        for page in PAGES
        for block in blocks(page, "yaml")
        if block.startswith("feed:")
    ]
    assert shown
    for page, block in shown:
        parse(block, name=page)


def _rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading or a line of a page."""
    after = text_of(page).partition(heading)[2]
    table = re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)
    assert table, f"{page} has no table after {heading!r}"
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_edges_told_are_those_of_the_code() -> None:
    told = [tuple(row[:2]) for row in _rows("docs/reliability.md", "## The protocol")]
    assert told == [(edge.letter, edge.verb) for edge in EDGES]


def test_the_states_told_are_those_of_the_code() -> None:
    told = [row[0].strip("`") for row in _rows("docs/glossary.md", "## States")]
    assert told == list(State)


def test_the_numbers_of_the_protocol_are_those_of_the_code() -> None:
    page = text_of("docs/reliability.md")
    patience = Patience()
    assert f"a lease of {LEASE_SECONDS:.0f} seconds" in page
    assert f"lasts {COVER_SECONDS:.0f} seconds longer" in page
    assert f"At most {spec.REQUEST_DEADLINE_SECONDS:.0f} seconds" in page
    assert (patience.tries, "four requests in all" in page) == (4, True)
    assert (patience.doubt_pause, "rests a minute" in page) == (60, True)
    assert (patience.longest_wait, "longer than five minutes" in page) == (300, True)
    assert (Limits().in_doubt_resends, "(six) times" in page) == (6, True)
    assert (spec.EVENT_ID_DEDUPLICATION_SECONDS, "48 hours" in page) == (172_800, True)
    assert (spec.OFFLINE_DEDUPLICATION_SECONDS, "7 days" in page) == (604_800, True)


def test_the_sums_of_the_demo_in_the_readme_add_up() -> None:
    shown = text_of("README.md")
    rows = [
        [int(cell.replace(",", "")) for cell in line.split()[1:]]
        for line in re.findall(r"^(?:crm|offline|phone)_\w+ +[\d, ]+$", shown, re.M)
    ]
    assert len(rows) == 3
    for source, *outcomes, total in rows:
        assert source == sum(outcomes) == total
    accepted = f"{sum(row[1] for row in rows):,}"
    assert f"Accepted in the ledger: {accepted}. " in shown
    assert f"Received by the Graph API: {accepted}." in shown


def test_the_id_told_on_the_tour_is_the_conversions() -> None:
    made = event_id("1234567890123456", "Purchase", "S-000000003")
    assert f"`{made}`" in text_of("docs/tour.md")


# --- SQL ------------------------------------------------------------------------------


def _statements(page: str) -> list[str]:
    return [block.strip() for block in blocks(page, "sql")]


STATEMENTS = [
    pytest.param(statement, id=f"{page}: {statement.splitlines()[0]} {place}")
    for page in PAGES
    for place, statement in enumerate(_statements(page))
    if page != "docs/security.md"
]


@pytest.fixture(scope="module")
def empty_ledger(postgres: Postgres) -> Iterator[str]:
    """Yield the address of a ledger in which nothing has happened."""
    postgres.create_database("words")
    engine = sa.create_engine(postgres.url("words"), hide_parameters=True)
    Ledger(engine).migrate()
    engine.dispose()
    yield postgres.dsn("words")
    postgres.drop_database("words")


@pytest.fixture(scope="module")
def world(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Yield a ledger in which one conversion of every fate has happened."""
    with small_world(postgres, tmp_path_factory.mktemp("words")) as made:
        yield made


def test_the_runbook_looks_before_it_acts() -> None:
    assert sum(each.startswith("select") for each in _statements("docs/runbook.md")) > 9


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_statement_runs_on_an_empty_ledger(
    empty_ledger: str, statement: str
) -> None:
    with psycopg.connect(empty_ledger) as connection:
        connection.execute(statement.encode())
        connection.rollback()


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_statement_runs_where_things_have_happened(
    world: World, statement: str
) -> None:
    for feed in ("offline_purchases", "phone_orders"):
        statement = statement.replace(feed, "store_sales")
    dsn = world.url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(dsn) as connection:
        connection.execute(statement.encode())
        connection.rollback()


def _settle(world: World, word: str) -> int:
    """Run the runbook's command that settles a doubt, for one of this world's."""
    (line,) = [
        line
        for line in text_of("docs/runbook.md").splitlines()
        if line.startswith("meta-capi settle")
    ]
    named = line.replace("offline_purchases", "store_sales")
    words = shlex.split(named.replace("S-000000042", "doubtful"))[1:]
    words[words.index("--as") + 1] = word
    return main(words, environ=world.environ, out=io.StringIO())


def _folder(parent: Path, name: str) -> Path:
    """Make a folder; the world's database has its name."""
    (parent / name).mkdir()
    return parent / name


def _standing(world: World) -> tuple[Any, ...]:
    (row,) = world.execute(
        "select state::text, reason, doubt_since from capi.deliveries"
        " where source_key = 'doubtful'"
    )
    return row


def test_a_doubt_is_settled_by_hand_as_accepted(
    postgres: Postgres, tmp_path: Path
) -> None:
    with small_world(postgres, _folder(tmp_path, "accepted")) as world:
        assert _standing(world)[0] == "in_doubt"
        assert _settle(world, "received") == 0
        assert _standing(world) == ("accepted", "person.received", None)


def test_a_doubt_put_back_by_hand_goes_out_again(
    postgres: Postgres, tmp_path: Path
) -> None:
    with small_world(postgres, _folder(tmp_path, "back")) as world:
        assert _settle(world, "not-received") == 0
        assert _standing(world) == ("pending", "person.not_received", None)
        life._deliver(world, "store_sales", "by hand", "doubtful")
        assert _standing(world) == ("accepted", None, None)


@pytest.mark.matrix("X42")
def test_a_role_with_the_grants_told_can_send(
    postgres: Postgres, tmp_path: Path
) -> None:
    (grants,) = _statements("docs/security.md")
    with small_world(postgres, _folder(tmp_path, "role")) as world:
        world.execute(grants)
        world.execute("alter role capi_sender login password 'of-the-tests'")
        world.execute("grant usage on schema shop to capi_sender")
        world.execute("grant select on all tables in schema shop to capi_sender")
        url = sa.make_url(world.url).set(
            username="capi_sender", password="of-the-tests"
        )
        engine = sa.create_engine(url, hide_parameters=True)
        sender = dataclasses.replace(world, engine=engine, ledger=Ledger(engine))
        life._sell(world, "by-role")
        life._deliver(sender, "store_sales", "role", "by-role")
        assert sender.ledger.rescue().workers == 0
        engine.dispose()
        assert world.execute(
            "select state::text from capi.deliveries where source_key = 'by-role'"
        ) == [("accepted",)]
        roles = "capi_reader, capi_sender, capi_viewer"
        world.execute(f"drop owned by {roles}")
        world.execute(f"drop role {roles}")


def _relations(page: str) -> list[str]:
    return re.findall(r"\bcapi\.[a-z_]+", text_of(page))


@pytest.mark.parametrize(("page", "name"), every(_relations))
def test_every_table_and_view_named_is_in_the_schema(
    page: str, name: str, empty_ledger: str
) -> None:
    with psycopg.connect(empty_ledger) as connection:
        row = connection.execute(
            "select to_regclass(%(name)s) is not null or exists ("
            " select from pg_proc where oid::regproc::text = %(name)s)",
            {"name": name},
        ).fetchone()
    assert row == (True,)
