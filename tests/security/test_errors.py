"""What goes wrong says what, where and what to do, and never what a row held.

Libraries put values into their messages: each class of them is forced to, inside a task
and on the line to Meta, and what comes out is searched.
"""

from __future__ import annotations

import ast
import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pydantic
import pytest
import requests
import sqlalchemy as sa
import urllib3
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException
from tests.airflow.listener import Listener, answer
from tests.conftest import Database
from tests.house_rules import modules_of_the_house
from tests.security.canaries import Aviary

from capi_airflow.base import FeedOperator
from capi_airflow.ending import TaskEnded, told_plainly
from capi_airflow.stage import Stage
from capi_airflow.transport import Destination, Line
from meta_capi.cli.program import ended
from meta_capi.errors import CapiError, LedgerError, NoAnswerError, SourceError
from meta_capi.ledger import Ledger
from meta_capi.verdict import read
from meta_capi.warehouse import read_only, reading

AVIARY = Aviary.hatched(token="EAABcanaryOfTheErrors0123456789")
EMAIL, TOKEN = AVIARY["email"], AVIARY["token"]


class _Person(pydantic.BaseModel):
    age: int


def _of_great_expectations() -> None:
    from great_expectations.exceptions import GreatExpectationsError

    raise GreatExpectationsError(f"Error: {EMAIL} is not in set")


def _nested() -> None:
    try:
        int(EMAIL)
    except ValueError as error:
        raise RuntimeError(f"while reading {EMAIL}") from error


TALKATIVE: dict[str, Callable[[], Any]] = {
    "int()": lambda: int(EMAIL),
    "KeyError": lambda: {}[EMAIL],
    "pydantic": lambda: _Person(age=EMAIL),  # type: ignore[arg-type]
    "requests": lambda: requests.get(f"http:///{TOKEN}", timeout=1),
    "urllib3": lambda: urllib3.PoolManager().request("GET", f"http://[{TOKEN}", timeout=1),
    "psycopg": lambda: psycopg.connect(f"host=/nowhere dbname={TOKEN} {EMAIL}"),
    "SQLAlchemy": lambda: sa.create_engine(f"{TOKEN}://{EMAIL}"),
    "Great Expectations": _of_great_expectations,
    "a chain": _nested,
}  # fmt: skip


class Clumsy(FeedOperator):
    """A task with a fault that nobody foresaw."""

    def __init__(self, *, library: str, **kwargs: Any) -> None:
        super().__init__(task_id="clumsy", feed="offline_purchases", **kwargs)
        self.library = library

    def step(self, stage: Stage) -> Any:
        """Fail in a library's words."""
        return TALKATIVE[self.library]()


def told(error: BaseException) -> str:
    """Return all that a traceback would print, causes and contexts too."""
    return "".join(traceback.format_exception(error))


@pytest.mark.matrix("X4")
class TestFaultsThatNobodyForesaw:
    """Whatever a library raises inside a task leaves it as ours, without a cause."""

    @pytest.mark.parametrize("library", TALKATIVE)
    def test_the_library_would_have_told_it(self, library: str) -> None:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of every kind
            TALKATIVE[library]()
        assert AVIARY.found_in(told(caught.value))

    @pytest.mark.parametrize("library", TALKATIVE)
    def test_a_task_says_its_kind_and_its_place(
        self, library: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(TaskEnded) as caught:
            Clumsy(library=library).execute({"params": {}, "dag": DAG("clumsy")})
        assert str(caught.value).startswith("This is a fault of ours: ")
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        said = "".join(capfd.readouterr())
        assert "in step" in said
        assert AVIARY.found_in(told(caught.value), said) == set()

    @pytest.mark.parametrize("library", TALKATIVE)
    def test_a_command_says_its_kind_and_its_place(
        self, library: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def command(*_: Any) -> int:
            TALKATIVE[library]()
            return 0

        assert ended(command, None, None) == 2  # type: ignore[arg-type]
        said = "".join(capsys.readouterr())
        assert "This is a fault of ours: " in said
        assert AVIARY.found_in(said) == set()

    def test_airflows_own_exceptions_pass(self) -> None:
        with (
            pytest.raises(AirflowException, match="Airflow's own"),
            told_plainly(logging.getLogger()),
        ):
            raise AirflowException("Airflow's own")


@pytest.mark.matrix("X4")
def test_our_errors_are_raised_without_a_cause() -> None:
    """Inside a handler, only `from None` keeps the library's words out."""
    ours = {"CapiError", *(kind.__name__ for kind in _below(CapiError))}

    def sites(tree: ast.Module) -> Iterator[tuple[int, bool]]:
        for handler in ast.walk(tree):
            if isinstance(handler, ast.ExceptHandler):
                for node in ast.walk(handler):
                    match node:
                        case ast.Raise(
                            exc=ast.Call(func=ast.Name(id=name)), cause=cause
                        ):
                            if name in ours or name.startswith("Airflow"):
                                hidden = isinstance(cause, ast.Constant)
                                yield node.lineno, hidden and cause.value is None

    planted = ast.parse("try: f()\nexcept E as e:\n raise LedgerError('x') from e")
    assert list(sites(planted)) == [(3, False)]
    found = {
        f"{module.path}:{line}": hidden
        for module in modules_of_the_house()
        for line, hidden in sites(module.tree)
    }
    assert len(found) > 15
    assert [site for site, hidden in found.items() if not hidden] == []


def _below(kind: type[BaseException]) -> set[type[BaseException]]:
    return {each for sub in kind.__subclasses__() for each in (sub, *_below(sub))}


# --- the line to Meta -----------------------------------------------------------------


def _shut(line: socket.socket, _: bytes) -> None:
    line.shutdown(socket.SHUT_RDWR)


def _reset(line: socket.socket, _: bytes) -> None:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    line.close()


def _says(data: bytes) -> Callable[[socket.socket, bytes], None]:
    def say(line: socket.socket, _: bytes) -> None:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)

    return say


MIRROR = f"{EMAIL} {TOKEN}".encode()
BROKEN: dict[str, Callable[[socket.socket, bytes], None]] = {
    "closed": _shut,
    "reset": _reset,
    "no HTTP": _says(MIRROR + b"\r\n\r\n"),
    "a status line that mirrors": _says(b"HTTP/1.1 2x0 " + MIRROR + b"\r\n\r\n"),
    "a length that mirrors": _says(answer().replace(b"Length: 2", b"Length: " + MIRROR)),
    "a chunk that mirrors": _says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + MIRROR + b"\r\n"
    ),
    "too short": _says(answer(MIRROR).replace(b"Length: ", b"Length: 9")),
    "packed badly": _says(answer(MIRROR, b"Content-Encoding: gzip")),
    "a header that mirrors": _says(b"HTTP/1.1 200 OK\r\n" + b"X: " + MIRROR * 2000),
    "a redirect to the token": _says(
        answer(MIRROR, b"Location: http://x/?t=" + MIRROR, status=b"302 Found")
    ),
    "a page that mirrors": _says(answer(b"<html>" + MIRROR, status=b"500 Error")),
    "an error that mirrors": _says(
        answer(
            b'{"error": {"message": "' + MIRROR + b'", "code": 100, "error_user_msg": "'
            + MIRROR + b'", "fbtrace_id": "' + MIRROR + b'"}}',
            status=b"400 Bad Request",
        )
    ),
}  # fmt: skip


@pytest.mark.matrix("X2", "X4", "X15")
@pytest.mark.parametrize("kind", BROKEN)
def test_no_broken_answer_brings_a_canary_back(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of requests, urllib3 and http.client, at DEBUG, on every way an answer fails."""
    caplog.set_level(logging.DEBUG)
    for logger in ("urllib3", "requests", "urllib3.connectionpool"):
        caplog.set_level(logging.DEBUG, logger)
    said = ""
    with Listener(BROKEN[kind]) as server:
        line = Line(_destination(server.url), deadline_seconds=5)
        for ask in (lambda: line.post(MIRROR), lambda: line.get("1234567890", "id")):
            try:
                said += repr(read(ask(), events=1))
            except NoAnswerError as error:
                said += told(error)
        said += " ".join(line.dataset_faults("connection 'x'"))
    assert server.heard
    assert AVIARY.found_in(said, caplog.text) == set()


def test_no_connection_that_fails_tells_the_token() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for url in (closed, closed.replace("http", "https"), "http://no.such.host.invalid"):
        with pytest.raises(NoAnswerError) as caught:
            Line(_destination(url)).post(MIRROR)
        assert AVIARY.found_in(told(caught.value)) == set()


def _destination(url: str) -> Destination:
    return Destination(
        dataset_id="1234567890", token=TOKEN, environment="local", base_url=url
    )


# --- the databases ---------------------------------------------------------------------


@pytest.mark.matrix("X5")
class TestDatabases:
    """PostgreSQL's DETAIL and SQLAlchemy's parameters quote rows; we do not."""

    def test_a_unique_violation_in_the_ledger_is_told_without_its_detail(
        self, database: Database
    ) -> None:
        engine = sa.create_engine(database.url, hide_parameters=True)
        ledger = Ledger(engine, patience=0.2)
        ledger.migrate()
        with psycopg.connect(database.dsn) as connection:
            connection.execute("create table taken (email text unique)")
            connection.execute("insert into taken values (%s)", [EMAIL])
            connection.execute(
                "create function take() returns trigger language plpgsql as"
                f" $$ begin insert into taken values ('{EMAIL}'); return new; end $$"
            )
            connection.execute(
                "create trigger take before insert on capi.runs"
                " for each row execute function take()"
            )
        with (
            pytest.raises(psycopg.Error) as bare,
            psycopg.connect(database.dsn) as connection,
        ):
            connection.execute("insert into taken values (%s)", [EMAIL])
        assert AVIARY.found_in(str(bare.value))
        with pytest.raises(LedgerError) as caught:
            ledger.open_run(
                "a run", feed="f", dataset_id="1234567890", mode="send",
                interval=None, plan={"rows": 1},
            )  # fmt: skip
        engine.dispose()
        assert "23505" in str(caught.value)
        assert AVIARY.found_in(told(caught.value)) == set()

    def test_a_ledger_that_is_away_is_told_without_its_password(self) -> None:
        url = f"postgresql+psycopg://someone:{TOKEN}@127.0.0.1:1/nowhere"
        ledger = Ledger(sa.create_engine(url, hide_parameters=True), patience=0.1)
        with pytest.raises(LedgerError) as caught:
            ledger.digest_key()
        assert AVIARY.found_in(told(caught.value)) == set()

    def test_a_failed_cast_in_the_warehouse_is_told_without_the_value(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
        engine = sa.create_engine(database.url, hide_parameters=True)
        cast = sa.select(sa.cast(sa.literal(EMAIL), sa.Integer))
        with (
            pytest.raises(SourceError) as caught,
            reading(engine, "read") as connection,
        ):
            connection.execute(cast)
        engine.dispose()
        assert AVIARY.found_in(told(caught.value), caplog.text) == set()

    @pytest.mark.parametrize(
        "careless", [{}, {"hide_parameters": True, "echo": True}, {"echo": "debug"}]
    )
    def test_an_engine_that_would_show_values_is_refused(
        self, careless: dict[str, Any]
    ) -> None:
        with pytest.raises(CapiError, match="hide_parameters"):
            read_only(sa.create_engine("sqlite://", **careless))

    def test_every_engine_of_the_product_hides_its_parameters(self) -> None:
        made = {
            f"{module.path}:{node.lineno}": "hide_parameters=True" in ast.unparse(node)
            for module in modules_of_the_house()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("create_engine")
        }
        assert len(made) >= 3
        assert [site for site, hidden in made.items() if not hidden] == []
