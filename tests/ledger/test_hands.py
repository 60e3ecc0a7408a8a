"""The commands by which a person changes the ledger: what they say, refuse and write down."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from tests.ledger.conftest import FEED, Bench
from tests.ledger.scenes import doubtful

from meta_capi.cli import main

STORE = ("--feed", "store_orders")
WHY = ("--why", "ticket 4711")


@dataclass(frozen=True)
class Done:
    """How a command ended, and all it wrote, as one line."""

    code: int
    words: str


Run = Callable[..., Done]


@pytest.fixture
def run(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on this ledger."""
    (tmp_path / "feeds").mkdir()
    (tmp_path / "feeds" / "store_orders.yaml").write_text(FEED, encoding="utf-8")
    lines = FEED.replace("feed: store_orders", "feed: order_lines")
    lines = lines.replace("key: [order_id]", "key: [order_id, line]")
    (tmp_path / "feeds" / "order_lines.yaml").write_text(lines, encoding="utf-8")
    environ = {"META_CAPI_LEDGER": bench.dsn, "META_CAPI_HOME": str(tmp_path)}

    def run(*arguments: str) -> Done:
        out = io.StringIO()
        code = main(list(arguments), environ=environ, out=out)
        words = " ".join(f"{out.getvalue()} {capsys.readouterr().err}".split())
        assert "Traceback" not in words
        assert "fault of ours" not in words
        return Done(code, words)

    return run


def acts(bench: Bench) -> list[tuple[object, ...]]:
    """Return what is written down."""
    return bench.sql("select kind, deliveries, why from capi.acts order by act_no")


@pytest.mark.matrix("X40")
class TestErase:
    def test_it_says_what_is_gone_and_what_it_cannot_recall(
        self, bench: Bench, run: Run, tmp_path: Path
    ) -> None:
        bench.deliver(bench.rows(1, 2), bench.rows(3, consent=False))
        file = tmp_path / "keys.txt"
        file.write_text("\ufeffo-2\n\n  o-3 \no-99\n", encoding="utf-8")

        done = run("erase", *STORE, "--key", "o-1", "--keys-from", str(file), *WHY)

        assert done.code == 0
        assert "4 keys of store_orders: 3 deliveries erased" in done.words
        assert "2 accepted" in done.words
        assert "1 withheld" in done.words
        assert "Meta has accepted cannot be recalled" in done.words
        assert acts(bench) == [("erase", 3, "ticket 4711")]
        assert bench.deliver(bench.rows(1, 2, 3, 99)).reasons == {"erased": 4}

    def test_explain_knows_an_erased_key_and_nothing_else_of_it(
        self, bench: Bench, run: Run
    ) -> None:
        bench.deliver(bench.rows(1))
        run("erase", *STORE, "--key", "o-1", *WHY)

        done = run("explain", "o-1")

        assert done.words.startswith("o-1 of feed store_orders was erased on 20")
        assert "Accepted" not in done.words
        assert "erased" not in run("explain", "o-2").words

    def test_what_is_on_a_desk_is_waited_for_and_then_named(
        self, bench: Bench, run: Run
    ) -> None:
        bench.deliver(bench.rows(1, 2))
        desk = bench.desk()
        claim = desk.claim(
            bench.builder().build(bench.rows(3), int(bench.started.timestamp())),
            most_events=10,
            most_bytes=100_000,
        )
        keys = ("--key", "o-1", "--key", "o-3")

        done = run("erase", *STORE, *keys, *WHY, "--wait", "1")

        assert done.code == 1
        assert "1 delivery erased" in done.words
        assert "1 delivery is on a worker's desk just now, so not erased" in done.words
        desk.release(claim.batches, reason="worker.released")
        assert run("erase", *STORE, *keys, *WHY).code == 0
        assert bench.sql("select source_key from capi.deliveries") == [("o-2",)]

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ((*STORE, *WHY), "No key is named"),
            (("--feed", "store_order", "--key", "o-1", *WHY), "did you mean store_orders"),
            ((*STORE, "--key", "o-1", "--why", " "), "Say why"),
            ((*STORE, "--key", "o-1", "--why", "a\nb"), "one line"),
            ((*STORE, "--key", "o-1", "--why", "asked by o-1"), "holds one of the keys"),
            ((*STORE, "--key", "o\0", *WHY), "NUL"),
            ((*STORE, "--keys-from", "/nowhere", *WHY), "cannot be read"),
            (("--feed", "order_lines", "--key", "o-1", *WHY), "has 2 parts (order_id, line)"),
        ],
        ids=[
            "no key", "no such feed", "no reason", "two lines", "the key as the reason",
            "NUL", "no file", "parts",
        ],
    )  # fmt: skip
    def test_bad_input_changes_nothing(
        self, bench: Bench, run: Run, arguments: tuple[str, ...], complaint: str
    ) -> None:
        bench.deliver(bench.rows(1))

        done = run("erase", *arguments)

        assert done.code == 2
        assert complaint in done.words
        assert bench.states() == {"accepted": 1}
        assert acts(bench) == []

    def test_a_file_of_another_encoding_is_refused(
        self, bench: Bench, run: Run, tmp_path: Path
    ) -> None:
        file = tmp_path / "keys.txt"
        file.write_bytes(b"o-\xe41\n")
        done = run("erase", *STORE, "--keys-from", str(file), *WHY)
        assert (done.code, acts(bench)) == (2, [])
        assert "not UTF-8" in done.words


class TestSettle:
    @pytest.mark.parametrize(
        ("word", "state", "says"),
        [
            ("received", "accepted", "Accepted is for ever"),
            ("not-received", "pending", "it may count twice"),
            ("give-up", "in_doubt", "is not sent again"),
        ],
    )
    def test_each_word_has_its_consequence_and_is_written_down(
        self, bench: Bench, run: Run, word: str, state: str, says: str
    ) -> None:
        doubtful(bench, 1)

        done = run("settle", *STORE, "--key", "o-1", "--as", word, *WHY)

        assert done.code == 0
        assert f"1 doubt of store_orders settled: {word}." in done.words
        assert says in done.words
        assert bench.states() == {state: 1}
        assert acts(bench) == [("settle", 1, "ticket 4711")]
        assert "Nothing waits for a person" in run("status").words

    def test_what_is_not_in_doubt_is_named_and_left(
        self, bench: Bench, run: Run
    ) -> None:
        doubtful(bench, 1)
        bench.deliver(bench.rows(2))
        keys = ("--key", "o-1", "--key", "o-2", "--key", "o-9")

        done = run("settle", *STORE, *keys, "--as", "not-received", *WHY)

        assert done.code == 1
        assert "1 doubt of store_orders settled" in done.words
        assert "left as they are: 1 accepted" in done.words
        assert "1 key not known" in done.words
        assert bench.states() == {"pending": 1, "accepted": 1}

    def test_where_nothing_is_in_doubt_nothing_is_written_down(
        self, bench: Bench, run: Run
    ) -> None:
        bench.deliver(bench.rows(2))
        done = run("settle", *STORE, "--key", "o-2", "--as", "received", *WHY)
        assert (done.code, acts(bench)) == (1, [])


@pytest.mark.matrix("X39")
class TestRetain:
    def test_a_dry_run_counts_and_removes_nothing(self, bench: Bench, run: Run) -> None:
        bench.deliver(bench.rows(1, 2))
        assert "0 deliveries from before" in run("retain", "--dry-run").words
        bench.sql(
            "update capi.deliveries set cursor_at = cursor_at - interval '800 days',"
            " event_time = event_time - interval '800 days'"
        )

        done = run("retain", "store_orders", "--dry-run")
        assert done.code == 0
        assert "2 deliveries from before" in done.words
        assert "would be removed (2 accepted)" in done.words
        assert bench.states() == {"accepted": 2}

        assert "removed from before" in run("retain").words
        assert bench.states() == {}
        assert "nothing is older" in run("retain", "store_orders").words


@pytest.mark.matrix("P14")
class TestRestored:
    def test_what_waited_is_in_doubt_from_the_time_of_the_copy(
        self, bench: Bench, run: Run
    ) -> None:
        bench.deliver(bench.rows(1), limit=0)
        since = (bench.started - timedelta(hours=2)).isoformat()

        done = run("restored", "--since", since, *WHY)

        assert done.code == 0
        assert "1 delivery is in doubt" in done.words
        assert bench.reasons() == {"ledger.restored": 1}
        assert acts(bench) == [("restored", 1, "ticket 4711")]

    @pytest.mark.parametrize(
        ("since", "complaint"),
        [("yesterday", "--since is not a time"), ("2999-01-01", "is not past")],
    )
    def test_a_time_that_cannot_be_changes_nothing(
        self, bench: Bench, run: Run, since: str, complaint: str
    ) -> None:
        done = run("restored", "--since", since, *WHY)
        assert (done.code, acts(bench)) == (2, [])
        assert complaint in done.words


@pytest.mark.matrix("T10")
def test_migrate_waits_for_nobody_and_overrules_only_when_told(
    bench: Bench, run: Run
) -> None:
    bench.desk()
    assert run("migrate").words == "Nothing to do."
    bench.sql("delete from capi.migrations where version = 3")
    bench.sql(
        "drop view capi.event_status, capi.daily_summary, capi.match_key_coverage,"
        " capi.freshness, capi.reconciliation"
    )
    done = run("migrate")
    assert done.code == 2
    assert "1 worker(s) are delivering just now" in done.words
    assert run("migrate", "--now").code == 0
