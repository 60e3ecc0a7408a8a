"""The commands and their options, and how a command ends."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from meta_capi.catalogue import PAGE, anchor
from meta_capi.cli.check import check, feed_check, feed_schema, migrate
from meta_capi.cli.drafting import feed_new
from meta_capi.cli.explain import explain
from meta_capi.cli.hands import erase_keys, restored, retain_feeds, settle_doubts
from meta_capi.cli.page import Page
from meta_capi.cli.preview import preview, send_test
from meta_capi.cli.report import plan, reasons, status
from meta_capi.cli.wiring import Wiring
from meta_capi.errors import CapiError
from meta_capi.feed.parts import Connections
from meta_capi.lifecycle import State
from meta_capi.people import Word

__all__ = ["ended", "main"]

_FOUND: Final = 1
_USAGE: Final = 2
_EPILOG: Final = """\
Databases, dataset and token come from the environment: META_CAPI_WAREHOUSE,
META_CAPI_LEDGER, META_CAPI_DATASET, META_CAPI_TOKEN, META_CAPI_GRAPH_URL,
META_CAPI_ENVIRONMENT, META_CAPI_HOME; else from Airflow's AIRFLOW_CONN_<ID> of the
connections that the feed names. Options win; the token has none, because options can
be read in the list of processes.

Exit codes: 0 all is well, 1 something was found, 2 wrong usage or configuration.
"""

Command = Callable[[Wiring, Page], int]


def main(
    arguments: Sequence[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    out: TextIO | None = None,
    now: datetime | None = None,
) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["simulate"]:
        return _simulate(given[1:])
    options = _parser().parse_args(given)
    stream = out or sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a terminal without • still gets the rest
    page = Page(stream)
    wiring = Wiring(
        options, os.environ if environ is None else environ, now or datetime.now(UTC)
    )
    command: Command = options.run
    return ended(command, wiring, page)


def ended(command: Command, wiring: Wiring, page: Page) -> int:
    """Run a command; end in a sentence, never in a traceback, which may quote a row."""
    errors = Page(sys.stderr)
    try:
        return command(wiring, page)
    except CapiError as error:
        for line in str(error).splitlines():
            errors.say(line)
        errors.say(f"See {PAGE}#{anchor(error.code)}.")
    except BrokenPipeError:
        # `| head` has seen enough; Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        errors.say("Stopped.")
    except Exception as error:
        errors.say(
            f"This is a fault of ours: {type(error).__name__} at {_place(error)}. "
            "Please report it with these words; more of it could quote a row. "
            f"See {PAGE}#{CapiError.code}."
        )
    return _USAGE


def _place(error: Exception) -> str:
    """Return the line where it happened, without what stood in it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _simulate(arguments: Sequence[str]) -> int:
    """Run the local Graph API; it has options of its own."""
    try:
        from graph_simulator.__main__ import main as answer
    except ImportError:
        Page(sys.stderr).say("The package graph_simulator is not installed.")
        return _USAGE
    return answer(arguments)


# --- the commands -------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="meta-capi",
        description="Conversions from the warehouse to Meta: look, ask, explain.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = _shared()

    def command(name: str, run: Command, does: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=does, description=does, parents=[shared], allow_abbrev=False
        )
        made.set_defaults(run=run)
        return made

    made = command("check", check, "look whether a run has all that it needs")
    made.add_argument("feed", nargs="?", metavar="FEED")
    made = command("migrate", migrate, "bring the ledger's schema up to date")
    made.add_argument(
        "--now", action="store_true", help="even while workers are delivering"
    )

    made = command("preview", preview, "show the events of some rows, masked")
    made.add_argument("feed", metavar="FEED")
    chosen = made.add_mutually_exclusive_group()
    chosen.add_argument("--key", help="the row with this key")
    chosen.add_argument("--limit", type=_positive, default=3, help="rows (3)")
    made.add_argument("--exact", action="store_true", help="show whole digests")

    made = command("send-test", send_test, "send some events with a test event code")
    made.add_argument("feed", metavar="FEED")
    made.add_argument("--code", required=True, help="from Events Manager, as TEST12345")
    made.add_argument(
        "--limit", type=_positive, default=5, help="events, 10 at most (5)"
    )

    made = command("explain", explain, "tell the whole story of one conversion")
    made.add_argument("key", metavar="KEY", help="its key, or its event id")
    made.add_argument("--feed", metavar="FEED")

    made = command("plan", plan, "count what a run of an interval would meet")
    made.add_argument("feed", metavar="FEED")
    made.add_argument("--from", dest="start", required=True, metavar="TIME")
    made.add_argument("--to", dest="end", metavar="TIME", help="now, if not said")

    made = command("status", status, "show where the deliveries are")
    made.add_argument("feed", nargs="?", metavar="FEED")
    made.add_argument(
        "--list", choices=[str(state) for state in State], metavar="STATE",
        help="list deliveries of one state",
    )  # fmt: skip

    made = command("reasons", reasons, "show the catalogue of reasons")
    made.add_argument("code", nargs="?", metavar="CODE")

    _add_hands(command)
    _add_feed_commands(commands, shared)
    # Known here for the help alone; main() hands its options on.
    commands.add_parser("simulate", help="run the local Graph API", add_help=False)
    return parser


def _add_hands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what a person does to the ledger; all but `retain` is written down."""
    made = command("settle", settle_doubts, "say what became of events in doubt")
    _add_keys(made)
    made.add_argument(
        "--as", dest="word", required=True, choices=[str(word) for word in Word],
        help="what you found in Events Manager",
    )  # fmt: skip

    made = command("erase", erase_keys, "remove a person's conversions from the ledger")
    _add_keys(made)
    made.add_argument(
        "--wait", type=_positive, default=30, metavar="SECONDS",
        help="for what is on a worker's desk (30)",
    )  # fmt: skip

    made = command("retain", retain_feeds, "remove what is older than it is kept")
    made.add_argument("feed", nargs="?", metavar="FEED")
    made.add_argument("--dry-run", action="store_true", help="count it only")

    made = command("restored", restored, "put a ledger put back from a copy to use")
    made.add_argument("--since", required=True, metavar="TIME", help="of the copy")
    made.add_argument("--why", required=True, metavar="TEXT", help="is written down")


def _add_keys(made: argparse.ArgumentParser) -> None:
    made.add_argument("--feed", required=True, metavar="FEED")
    made.add_argument(
        "--key", action="append", default=[], help="of a conversion; may be repeated"
    )
    made.add_argument("--keys-from", metavar="FILE", help="a key a line")
    made.add_argument("--why", required=True, metavar="TEXT", help="is written down")


def _add_feed_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    shared: argparse.ArgumentParser,
) -> None:
    about = commands.add_parser(
        "feed", help="draft a feed file, check one, show the schema"
    )
    kinds = about.add_subparsers(required=True, metavar="COMMAND")
    does = "draft a feed file and its suite from a table's columns"
    made = kinds.add_parser("new", help=does, description=does, parents=[shared])
    made.add_argument("name", metavar="NAME", help="of the feed")
    made.add_argument(
        "--table", required=True, metavar="SCHEMA.TABLE", help="or a view"
    )
    made.add_argument(
        "--connection", default=Connections().warehouse, metavar="ID",
        help="Airflow's name of the warehouse (%(default)s)",
    )  # fmt: skip
    made.add_argument(
        "--key", action="append", default=[], metavar="COLUMN",
        help="what names a row; may be repeated",
    )  # fmt: skip
    made.add_argument("--cursor", metavar="COLUMN", help="when a row became known")
    made.add_argument(
        "--to", metavar="FILE", help="NAME.yaml; else in feeds/ and expectations/"
    )
    made.add_argument("--force", action="store_true", help="overwrite what is there")
    made.set_defaults(run=feed_new)
    made = kinds.add_parser("check", help="check one feed file", parents=[shared])
    made.add_argument("file", metavar="FILE")
    made.set_defaults(run=feed_check)
    made = kinds.add_parser("schema", help="show the JSON schema", parents=[shared])
    made.set_defaults(run=feed_schema)


def _shared() -> argparse.ArgumentParser:
    """Return the options that every command has."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    group = parser.add_argument_group("where things are")
    group.add_argument("--home", metavar="FOLDER", help="with feeds/ and expectations/")
    group.add_argument("--warehouse", metavar="URL", help="SQLAlchemy URL")
    group.add_argument("--ledger", metavar="URL", help="of a PostgreSQL database")
    group.add_argument("--dataset", metavar="ID", help="Meta's dataset")
    group.add_argument("--graph-url", metavar="URL", help="of a local Graph API")
    group.add_argument("--environment", choices=["production", "test", "local"])
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not (number := int(text)):
        raise argparse.ArgumentTypeError("write a whole number above zero")
    return number
