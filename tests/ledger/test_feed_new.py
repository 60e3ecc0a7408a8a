"""`feed new` on a real PostgreSQL: tables as people have them, and what they get wrong."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from tests.conftest import Database

from meta_capi.cli import main
from meta_capi.draft_lines import marks
from meta_capi.feed import load
from meta_capi.relation import Kind, survey

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = "kanarie@nest.example"  # of a row, so in nothing that is written
TABLES = f"""
create schema vertrieb;
create table vertrieb."KassenBons" (
    "bonNr" text primary key, "verkauftAm" timestamptz, "geaendertAm" timestamptz,
    "kundenEmail" text, "PLZ" text, "betragCHF" numeric, "IP" inet, "Kunden Name" text,
    einwilligung boolean
);
create index on vertrieb."KassenBons" ("geaendertAm");
insert into vertrieb."KassenBons" ("bonNr", "kundenEmail") values ('1', '{SECRET}');
create view vertrieb.anrufe as
    select 1 as id, 'x'::text as email, now() as angerufen, now() as updated_at;
create table vertrieb.leads (
    id int, status text, created_at timestamptz, stage_changed_at timestamptz,
    updated_at timestamptz, email text, opt_in boolean
);
insert into vertrieb.leads (id, status) select n, (array[
    'Closed Won', 'New', 'SQL', 'Lost', 'In review', 'yes'])[n % 6 + 1]
    from generate_series(1, 12) n;
create table vertrieb."Mit Leerzeichen" (id int primary key);
create table vertrieb.parts (a int, b int, c text, d text, unique (a, b));
create unique index on vertrieb.parts (c) where d is null;
"""


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    code: int
    words: str


Run = Callable[..., Done]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "feeds").mkdir()
    return tmp_path


@pytest.fixture
def run(database: Database, home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    with psycopg.connect(database.dsn) as connection:
        connection.execute(TABLES.encode())

    def run(*words: str, **environ: str) -> Done:
        given = {"META_CAPI_WAREHOUSE": database.dsn, "META_CAPI_HOME": str(home)}
        out = io.StringIO()
        code = main(list(words), environ=given | environ, out=out, now=NOW)
        told = " ".join(f"{out.getvalue()} {capsys.readouterr().err}".split())
        assert SECRET not in told
        return Done(code, told)

    return run


def test_a_table_with_german_names_in_capitals_is_a_feed(run: Run, home: Path) -> None:
    done = run("feed", "new", "filialen", "--table", "vertrieb.KassenBons")
    assert (done.code, "MISSING" in done.words) == (0, False)
    path = home / "feeds" / "filialen.yaml"
    feed = load(path)
    assert (feed.source.key, feed.source.cursor.column) == (["bonNr"], "geaendertAm")
    assert feed.user_data.keys() == {"em", "zp"}
    assert SECRET not in path.read_text()
    assert "# IP: client_ip_address? Make it text in a view." in path.read_text()
    checked = run("check", "filialen")
    assert "OK source of filialen" in checked.words
    assert "OK suite of filialen: 3 expectations" in checked.words
    lines = ", ".join(str(mark.line) for mark in marks(path.read_text()))
    assert f"in lines {lines}; take out each comment" in checked.words


def test_a_view_without_consent_is_a_feed_that_withholds(run: Run, home: Path) -> None:
    done = run("feed", "new", "anrufe", "--table", '"vertrieb"."anrufe"')
    assert done.code == 1
    assert "MISSING line" in done.words
    assert "consent: no column says it" in done.words
    assert load(home / "feeds" / "anrufe.yaml").consent.granted == [
        "nobody has said yes"
    ]
    checked = run("check", "anrufe")
    assert "FAULT anrufe.yaml:" in checked.words
    assert "missing: consent: " in checked.words


def test_a_crms_stages_are_guessed_in_the_order_of_the_funnel(
    run: Run, home: Path
) -> None:
    done = run("feed", "new", "leads", "--table", "vertrieb.leads", "--key", "id")
    assert "of 7 columns of vertrieb.leads, and the values of status" in done.words
    path = home / "feeds" / "leads.yaml"
    feed = load(path)
    assert feed.event.stages
    assert list(feed.event.stages.map.items()) == [
        ("New", "Initial Lead"), ("SQL", "Qualified"), ("Closed Won", "Converted"),
    ]  # fmt: skip
    assert feed.event.stages.ignore == ["Lost"]
    assert feed.event.stages.lead_created.column == "created_at"
    assert feed.source.key == ["id", "status"]
    missing = [mark.text for mark in marks(path.read_text()) if mark.is_missing]
    assert [each.partition(": ")[0] for each in missing] == [
        "event.stages", "event.stages", "event.stages.crm",
    ]  # fmt: skip
    assert {'"In review"', '"yes"'} <= {
        w.strip(",") for w in re.findall(r'"[^"]*"', str(missing))
    }
    assert "OK source of leads" in run("check", "leads").words


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([f"Stage {n}" for n in range(16)], "it has more than 15 values"),
        ([SECRET, "new", "won"], "some values are not like the names of stages"),
        (["+41 79 123 45 67", "new", "won"], "some values are not like"),
        (["Anna Huber", "Max Muster"], "its values are no stages that we know"),
    ],
    ids=["many", "e-mail", "phone", "people"],
)
def test_what_may_be_somebodys_is_not_told_as_a_stage(
    run: Run, home: Path, database: Database, values: list[str], why: str
) -> None:
    with psycopg.connect(database.dsn) as connection:
        connection.execute("delete from vertrieb.leads")
        connection.execute(
            "insert into vertrieb.leads (status) select unnest(%s::text[] || %s::text[])",
            [values, values],
        )
    done = run("feed", "new", "leads", "--table", "vertrieb.leads", "--key", "id")
    text = (home / "feeds" / "leads.yaml").read_text()
    assert f"# status may be a CRM's stage, but {why}" in text
    assert values[0] not in text + done.words
    assert load(home / "feeds" / "leads.yaml").event.stages is None


def test_what_one_row_alone_says_is_counted_and_not_told(
    run: Run, home: Path, database: Database
) -> None:
    with psycopg.connect(database.dsn) as connection:
        connection.execute("insert into vertrieb.leads (status) values ('Anna Huber')")
    done = run("feed", "new", "leads", "--table", "vertrieb.leads", "--key", "id")
    text = (home / "feeds" / "leads.yaml").read_text()
    assert "Anna" not in text + done.words
    assert "1 value of one row, not told here" in text


def test_what_the_user_says_is_no_guess(run: Run, home: Path) -> None:
    words = ["--key", "id", "--cursor", "updated_at", "--connection", "lager"]
    run("feed", "new", "calls", "--table", "vertrieb.anrufe", *words)
    feed = load(home / "feeds" / "calls.yaml")
    assert feed.connections.warehouse == "lager"
    text = (home / "feeds" / "calls.yaml").read_text()
    assert "  key: [id]\n" in text
    assert "    column: updated_at\n" in text


def test_a_file_that_is_there_is_kept_unless_it_is_said(run: Run, home: Path) -> None:
    words = ("feed", "new", "own", "--table", "vertrieb.KassenBons")
    path = home / "expectations" / "own.json"
    path.parent.mkdir()
    path.write_text("mine")
    done = run(*words)
    assert (done.code, path.read_text()) == (2, "mine")
    assert "own.json is there already" in done.words
    assert not (home / "feeds" / "own.yaml").exists()
    assert run(*words, "--force").code == 0
    assert path.read_text() != "mine"


def test_another_place_takes_the_suite_too(run: Run, home: Path) -> None:
    place = home / "drafts" / "own.yaml"
    words = ("feed", "new", "own", "--table", "vertrieb.KassenBons", "--to", str(place))
    assert run(*words).code == 0
    assert load(place).feed == "own"
    assert place.with_suffix(".json").exists()
    assert list((home / "feeds").iterdir()) == []


@pytest.mark.parametrize("file", ["own.json", "foo.yaml", "own.yml", "own", ""])
def test_a_file_of_another_name_than_the_feeds_is_not_written(
    run: Run, home: Path, file: str
) -> None:
    words = ("feed", "new", "own", "--table", "vertrieb.KassenBons", "--to")
    done = run(*words, f"{home}/drafts/{file}")
    assert done.code == 2
    assert f"{Path(home, 'drafts', file).parent / 'own.yaml'}." in done.words
    assert not (home / "drafts").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("own --table vertrieb.kassenbons", "did you mean KassenBons?"),
        ("own --table KassenBons", "write it with its schema, as vertrieb.KassenBons."),
        ("own --table vertrieb.Mit_Leerzeichen_", "did you mean Mit Leerzeichen?"),
        ("own --table vertrieb.x;drop", "A feed cannot name the table"),
        ("Own --table vertrieb.KassenBons", "'Own' cannot name a feed"),
        ("own --table vertrieb.KassenBons --key bonnr", "did you mean bonNr?"),
        ("own --table vertrieb.KassenBons --key kundenEmail", "looks personal"),
        ("own --table vertrieb.KassenBons --cursor bonNr", "a cursor is a timestamp"),
        ("own --table vertrieb.KassenBons --to /proc/x/own.yaml", "cannot be written"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_no_file(
    run: Run, home: Path, words: str, told: str
) -> None:
    done = run("feed", "new", *words.split())
    assert done.code == 2
    assert told in done.words
    assert list((home / "feeds").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "No warehouse is named. Set META_CAPI_WAREHOUSE"),
        ("postgresql://u:kana@127.0.0.1:1/d", "no connection was made"),
    ],
)
def test_no_warehouse_is_a_sentence(run: Run, url: str, told: str) -> None:
    words = ("feed", "new", "own", "--table", "vertrieb.KassenBons")
    done = run(*words, META_CAPI_WAREHOUSE=url)
    assert done.code == 2
    assert told in done.words
    assert "kana" not in done.words


def test_a_table_that_may_not_be_read_is_told_by_new_and_by_check(
    run: Run, database: Database
) -> None:
    run("feed", "new", "filialen", "--table", "vertrieb.KassenBons")
    url = sa.make_url(database.url).set(username="fremd", password="of-the-tests")
    with psycopg.connect(database.dsn) as connection:
        connection.execute("create role fremd login password 'of-the-tests'")
        connection.execute("grant usage on schema vertrieb to fremd")
    try:
        place = {"META_CAPI_WAREHOUSE": url.render_as_string(hide_password=False)}
        new = run("feed", "new", "own", "--table", "vertrieb.KassenBons", **place)
        check = run("check", "filialen", **place)
    finally:
        with psycopg.connect(database.dsn) as connection:
            connection.execute("drop owned by fremd; drop role fremd")
    assert new.code == 2
    assert "its role may not read that; grant it select" in new.words
    assert "FAULT source of filialen" in check.words
    assert "its role may not read that; grant it select" in check.words


def test_constraints_and_indexes_are_seen_and_partial_ones_are_none(
    run: Run, database: Database
) -> None:
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        parts = survey(connection, "vertrieb.parts")
        bons = survey(connection, "vertrieb.KassenBons")
    assert parts.keys == (("a", "b"),)
    assert bons.keys == (("bonNr",),)
    assert bons.indexed == {"bonNr", "geaendertAm"}
    assert bons.kinds["IP"] is Kind.OTHER


def test_another_database_is_surveyed_too() -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.connect() as connection:
        connection.execute(
            sa.text("create table t (id text primary key, at timestamp)")
        )
        connection.execute(sa.text("create view v as select id, at from t"))
        assert survey(connection, "t").keys == (("id",),)
        assert survey(connection, "v").keys == ()
        assert survey(connection, "v").kinds["at"] is Kind.LOCAL


@pytest.mark.parametrize(
    "question", ["get_pk_constraint", "get_unique_constraints", "get_indexes"]
)
def test_of_a_database_without_constraints_no_key_is_guessed(
    monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    # What a dialect answers that has nothing to say of it.
    nothing = getattr(sa.engine.Dialect, question).__get__(engine.dialect)
    monkeypatch.setattr(engine.dialect, question, nothing)
    with engine.connect() as connection:
        connection.execute(sa.text("create table t (id text primary key)"))
        table = survey(connection, "t")
    assert table.kinds == {"id": Kind.TEXT}
    assert (table.keys, table.indexed) == ((), frozenset())
