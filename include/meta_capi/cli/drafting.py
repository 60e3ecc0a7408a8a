"""`feed new`: a feed file and its suite, drafted from a table's columns."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Final

from meta_capi.cli.page import Page
from meta_capi.cli.wiring import Wiring
from meta_capi.column_names import likeness
from meta_capi.crm import MOST_STAGES, judge, stage_column, with_stages
from meta_capi.draft import draft
from meta_capi.draft_lines import marks
from meta_capi.errors import ConfigurationError
from meta_capi.picking import PERSONAL, Picks, is_usable, pick
from meta_capi.relation import Table, common_values, survey
from meta_capi.warehouse import reading
from meta_capi.words import number

__all__ = ["feed_new"]

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{2,47}")
_QUOTED: Final = re.compile(r'"([^".]*)"')


def feed_new(wiring: Wiring, page: Page) -> int:
    """Draft a feed file and its suite from what the database says of a table."""
    options = wiring.options
    if not _NAME.fullmatch(options.name):
        raise ConfigurationError(
            f"{options.name!r} cannot name a feed; write 3 to 48 small letters, digits "
            "and _, a letter first, as store_sales."
        )
    feed_file, suite_file = _files(wiring)
    name = _table_name(options.table)
    engine = wiring.warehouse(options.connection)
    with reading(engine, f"read {name}") as connection:
        table = survey(connection, name)
    key = [column for each in options.key for column in each.split(",")]
    _refuse_wrong_columns(table, key, options.cursor)
    picks = pick(table, key=key, cursor=options.cursor)
    if stage := stage_column(picks):
        with reading(engine, f"read the stages of {name}") as connection:
            values = common_values(connection, name, stage, MOST_STAGES + 1)
        picks = with_stages(picks, judge(stage, values))
    made = draft(options.name, picks, wiring.now.date(), warehouse=options.connection)
    for path, text in ((feed_file, made.feed), (suite_file, made.suite)):
        _write(path, text)
        page.item("made", str(path))
    return _tell(page, options.name, made.feed, picks)


def _tell(page: Page, name: str, text: str, picks: Picks) -> int:
    found = marks(text)
    missing = [mark for mark in found if mark.is_missing]
    columns = number(len(picks.table.kinds), "column")
    rows = f"the values of {picks.funnel.column}" if picks.funnel else "no row"
    page.item(
        "read", f"the names and types of {columns} of {picks.table.name}, and {rows}"
    )
    for mark in missing:
        page.item("MISSING", f"line {mark.line}: {mark.text}.")
    guesses = number(len(found) - len(missing), "guess", "guesses")
    things = number(len(missing), "thing") if missing else "nothing"
    page.line()
    page.say(
        f"{guesses} to check, {things} missing: each is marked in the file. Then "
        f"`meta-capi check {name}`."
    )
    return 1 if missing else 0


def _files(wiring: Wiring) -> tuple[Path, Path]:
    """Return where the feed and its suite go; nothing that is there is lost."""
    options = wiring.options
    if options.to is not None:
        path, name = Path(options.to), f"{options.name}.yaml"
        if path.name != name:
            raise ConfigurationError(
                f"A feed's file has the feed's name; write --to {path.parent / name}."
            )
        files = path, path.with_suffix(".json")
    else:
        files = (
            wiring.home / "feeds" / f"{options.name}.yaml",
            wiring.home / "expectations" / f"{options.name}.json",
        )
    for path in files:
        if path.exists() and not options.force:
            raise ConfigurationError(
                f"{path} is there already; name another feed, or overwrite it with --force."
            )
    return files


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; name another with --to."
        ) from None


def _table_name(given: str) -> str:
    """Return a table's name as a feed writes it: without quotes."""
    name = _QUOTED.sub(r"\1", given)
    parts = name.split(".")
    if len(parts) <= 3 and all(map(is_usable, parts)):
        return name
    raise ConfigurationError(
        f"A feed cannot name the table {json.dumps(given, ensure_ascii=False)}; write "
        "schema.table in letters, digits, _ and $, or make a view with such a name."
    )


def _refuse_wrong_columns(table: Table, key: list[str], cursor: str | None) -> None:
    faults = []
    for column in [*key, *([cursor] if cursor else [])]:
        if column not in table.kinds:
            close = difflib.get_close_matches(column, table.kinds, n=1)
            meant = f"; did you mean {close[0]}?" if close else "."
            faults.append(f"{table.name} has no column {column}{meant}")
    if len(key) > 4:
        faults.append("A key has four columns at most.")
    personal = [each for each in key if any(likeness(each, role) for role in PERSONAL)]
    faults += [
        f"{column} looks personal, and a key stands in the ledger and in logs; name "
        "another with --key."
        for column in personal
    ]
    kind = table.kinds.get(cursor or "")
    if kind and not kind.is_time:
        faults.append(f"{cursor} holds {kind.value}; a cursor is a timestamp or date.")
    if faults:
        raise ConfigurationError("\n".join(faults))
