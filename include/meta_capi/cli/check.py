"""`migrate`, `check` and `feed`: is everything in its place, line by line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from meta_capi.channel_names import CHANNELS, VARIABLE, read_channels
from meta_capi.cli.page import Page
from meta_capi.cli.wiring import Wiring
from meta_capi.draft_lines import marks
from meta_capi.errors import CapiError, ConfigurationError, FeedError, LedgerError
from meta_capi.feed import Feed, json_schema, load
from meta_capi.spec import STANDARD_EVENTS
from meta_capi.suites import load_suite
from meta_capi.words import number

__all__ = ["check", "feed_check", "feed_schema", "migrate"]


def migrate(wiring: Wiring, page: Page) -> int:
    """Bring the ledger's schema up to date."""
    try:
        feeds, _ = wiring.feeds()
    except ConfigurationError:
        feeds = []  # a ledger can be made before there is any feed
    made = wiring.ledger(*feeds).migrate(now=wiring.options.now)
    for each in made:
        page.line(f"made   {each}")
    page.say("The ledger's schema is up to date." if made else "Nothing to do.")
    return 0


@dataclass(frozen=True, slots=True)
class _Checker:
    """Writes a line for each thing looked at, and remembers what is wrong."""

    wiring: Wiring
    page: Page
    faults: list[str]

    def look(self, what: str, find: Callable[[Wiring, Feed], str], feed: Feed) -> None:
        """Write what `find` says; each line of an error of ours is a fault."""
        try:
            self.page.item("OK", f"{what}: {find(self.wiring, feed)}")
        except CapiError as error:
            self.note([f"{what}: {fault}" for fault in str(error).splitlines()])

    def note(self, faults: list[str]) -> None:
        """Write down what is wrong."""
        for fault in faults:
            self.page.item("FAULT", fault)
        self.faults.extend(faults)


def check(wiring: Wiring, page: Page) -> int:
    """Look at everything that a run of the feeds needs."""
    checker = _Checker(wiring, page, [])
    wanted = wiring.options.feed
    feeds = list(_feeds(checker, [wanted] if wanted else wiring.feed_names()))
    for name, feed in {each.connections.ledger: each for each in feeds}.items():
        checker.look(f"ledger ({name})", _ledger, feed)
    for name, feed in {each.connections.meta: each for each in feeds}.items():
        checker.look(f"Meta ({name})", _meta, feed)
    _alerts(checker)
    page.line()
    if checker.faults:
        page.say(f"{number(len(checker.faults), 'fault')} to mend before a run.")
        return 1
    page.say("All is well.")
    return 0


def _feeds(checker: _Checker, names: list[str]) -> Iterator[Feed]:
    """Look at the feeds, their sources and their suites; yield those that are right."""
    for name in names:
        feed = _file(checker, f"feed {name}", checker.wiring.feed_file(name))
        if feed is not None:
            checker.look(f"source of {name}", _source, feed)
            checker.look(f"suite of {name}", _suite, feed)
            yield feed


def _file(checker: _Checker, what: str, path: Path) -> Feed | None:
    """Look at a feed file: what it says, and what `feed new` has marked in it."""
    feed, faults = None, []
    try:
        feed = load(path)
    except FeedError as error:
        faults = error.faults
    text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    marked = marks(text)
    guesses = [f"{mark.line}" for mark in marked if not mark.is_missing]
    missing = [mark for mark in marked if mark.is_missing]
    paths = [f": {mark.text.partition(':')[0]}: " for mark in missing]
    # What a mark explains needs no second sentence.
    faults = [each for each in faults if not any(path in each for path in paths)]
    if feed is not None:
        columns = number(len(feed.columns), "column")
        events = ", ".join(feed.event_names)
        checker.page.item("OK", f"{what}: reads {columns}, sends {events}")
        for name, meant in _nearly_standard(feed):
            checker.page.item(
                "LOOK",
                f"{what}: {name!r} is no standard event of Meta's and goes out as a custom "
                f"one, for good; did you mean {meant}?",
            )
    if guesses:
        checker.page.item(
            "LOOK",
            f"{what}: {number(len(guesses), 'guess', 'guesses')} in {_lines(guesses)}; "
            "take out each comment whose guess you have checked",
        )
    for mark in missing:
        faults.append(f"{path.name}:{mark.line}: missing: {mark.text}.")
    checker.note(faults)
    return feed


def _nearly_standard(feed: Feed) -> Iterator[tuple[str, str]]:
    """Yield names of events that are likely misspelt, each with Meta's name."""
    by_folded = {name.lower(): name for name in STANDARD_EVENTS}
    # A CRM's stages have names of their own: Contacted is not a misspelt Contact.
    cutoff = 0.9 if feed.event.stages else 0.8
    for name in feed.event_names:
        if name not in STANDARD_EVENTS:
            close = get_close_matches(name.lower(), by_folded, n=1, cutoff=cutoff)
            yield from ((name, by_folded[each]) for each in close)


def _lines(numbers: list[str]) -> str:
    return f"{'line' if len(numbers) == 1 else 'lines'} {', '.join(numbers)}"


def _source(wiring: Wiring, feed: Feed) -> str:
    source = wiring.source(feed)
    if faults := source.faults():
        raise ConfigurationError("\n".join(faults), code="fault.source")
    return f"{source.name} answers, with columns and types that fit"


def _suite(wiring: Wiring, feed: Feed) -> str:
    suite = load_suite(wiring.home / "expectations" / f"{feed.suite}.json", feed)
    return number(len(suite.rules), "expectation")


def _ledger(wiring: Wiring, feed: Feed) -> str:
    try:
        missing = wiring.ledger(feed).missing_migrations()
    except LedgerError as error:
        raise ConfigurationError(
            f"{error} Look at its address, its login and whether it is up."
        ) from None
    if missing:
        raise ConfigurationError(
            f"its schema lacks {', '.join(missing)}; run `meta-capi migrate`.",
            code="fault.schema",
        )
    return "answers, and its schema is up to date"


def _meta(wiring: Wiring, feed: Feed) -> str:
    line = wiring.line(feed)
    destination = line.destination
    name = f"dataset {destination.dataset_id}"
    if faults := line.dataset_faults(name):
        raise ConfigurationError("\n".join(faults), code="fault.dataset")
    return (
        f"{name} answers on {destination.graph_version} ({destination.environment}), "
        "and takes the token"
    )


def _alerts(checker: _Checker) -> None:
    """Say who is told when something fails, as far as the environment knows it."""
    name = f"AIRFLOW_VAR_{VARIABLE.upper()}"
    text = checker.wiring.environ.get(name, "").strip()
    try:
        named = read_channels(text) if text else {}
    except ConfigurationError as error:
        checker.note([f"alerts: {error}"])
        return
    if told := [each for each in CHANNELS if named.get(each)]:
        checker.page.item("OK", f"alerts: told by {', '.join(told)}")
        return
    checker.page.item(
        "LOOK",
        f"alerts: {name} names no channel. Unless the Variable {VARIABLE} is in Airflow, "
        "nobody is told when a run fails; see docs/alerts.md",
    )


def feed_check(wiring: Wiring, page: Page) -> int:
    """Check one feed file; nothing else is looked at."""
    path = Path(wiring.options.file)
    checker = _Checker(wiring, page, [])
    if feed := _file(checker, path.name, path):
        page.more(f"{feed.dag_id} reads {', '.join(feed.columns)}.")
    return 1 if checker.faults else 0


def feed_schema(wiring: Wiring, page: Page) -> int:
    """Write the JSON schema of feed files."""
    for line in json.dumps(json_schema(), indent=2, ensure_ascii=False).splitlines():
        page.line(line)
    return 0
