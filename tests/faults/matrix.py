"""The fault matrix and the security checklist: every row by its number.

A test that proves a row carries its number: `@pytest.mark.matrix("P1", "H4")`. A row that
cannot be proved here stands in `NOT_HERE` with the reason. `make docs` writes both into
`docs/fault-matrix.md`, and a test of the papers fails on a row that has neither.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import Final

__all__ = ["NOT_HERE", "ROWS", "SECTIONS", "proofs"]

ROOT: Final = Path(__file__).resolve().parents[2]

SECTIONS: Final = {
    "P": "Processes and hosts",
    "H": "HTTP and the network",
    "D": "Databases",
    "C": "Several at once",
    "S": "Hostile rows",
    "T": "Time and operation",
    "X": "Security",
}

ROWS: Final = {
    "P1": "SIGKILL of the delivering process at any moment",
    "P2": "SIGKILL in each window of the protocol, W0 to W13; or an unheard COMMIT (W3, W10), "
    "no line to Meta (W6), no ledger (W13)",
    "P3": "SIGKILL of Airflow's supervisor while the task's process lives on",
    "P4": "A process stopped beyond its lease, which then wakes",
    "P5": "SIGTERM: a worker shut down, a pod evicted",
    "P6": "Airflow's execution timeout during a request",
    "P7": "Out of memory while batches are built",
    "P8": "A full disk: under the ledger, the logs, the Data Docs, the temporary files",
    "P9": "A folder that cannot be written",
    "P10": "The scheduler killed and started again in the middle of a run",
    "P11": "The API server frozen beyond the heartbeat",
    "P12": "The DAG file renamed or removed in the middle of a run",
    "P13": "Airflow's metadata database lost, or restarted in the middle of a run",
    "P14": "The ledger put back from an older copy",
    "P15": "Everything killed at once, as by a power cut, and started again",
    "H1": "The connection dropped after the body was read and processed",
    "H2": "The connection dropped after the body was read, and nothing processed",
    "H3": "The connection reset before the last byte of the body",
    "H4": "HTTP 500 before and after processing",
    "H5": "A black-out longer than the window, everything processed",
    "H6": "Truncated JSON, a wrong Content-Length, a chunk cut short",
    "H7": "HTTP 200 with a page of HTML",
    "H8": "HTTP 200 that counts other events than were sent, or none, or nonsense",
    "H9": "HTTP 200 with messages",
    "H10": "Throttle codes under every HTTP status, with and without wait headers",
    "H11": "Retry-After in every form, sane or not",
    "H12": "Usage headers up to 100 %, malformed or huge",
    "H13": "The token revoked, then replaced",
    "H14": "A dataset that the token does not reach",
    "H15": "Bad events in a batch of 1,000, at every kind of position",
    "H16": "Faults and death while a refused batch is being split",
    "H17": "Meta refuses everything although all of it is valid",
    "H18": "Unknown codes, codes as text, no code, nested or listed errors",
    "H19": "No answer, an answer a byte a second, a reader that does not read",
    "H20": "Refused connections, unknown names, wrong certificates, old TLS",
    "H21": "Redirects, to others and to itself",
    "H22": "A kept connection closed just before it is used again",
    "H23": "An answer without end, a compressed bomb, endless headers",
    "H24": "A proxy that delivers twice",
    "H25": "100-continue, floods of 1xx, an early 413 or 400",
    "H26": "Latency, low bandwidth, sliced bytes, jitter",
    "H27": "Meta does not drop repeated server events",
    "D1": "PostgreSQL restarted at once during claim, intent and settlement",
    "D2": "The ledger's connection killed",
    "D3": "Lock timeout, deadlock, serialisation failure, statement timeout",
    "D4": "The ledger fails over to a read-only copy",
    "D5": "A file database as the ledger: locked, or replaced",
    "D6": "DuckDB as the ledger",
    "D7": "The ledger away after Meta's yes",
    "D8": "A migration half applied; an old worker on a new schema, and the reverse",
    "D9": "The ledger's clock against the worker's",
    "D10": "Ten million finished deliveries in the ledger",
    "D11": "The warehouse away in the middle of reading",
    "D12": "The copy of the ledger in the warehouse cannot be written",
    "C1": "Sixteen workers on one dataset",
    "C2": "Schedule, three backfills and a manual run over one interval",
    "C3": "deliver cleared while it runs; the whole DAG; one mapped shard",
    "C4": "One row recorded by two tasks in the same moment",
    "C5": "A row that changes between claim and request",
    "C6": "A lease shorter than the work",
    "C7": "Two Airflow installations on one ledger",
    "C8": "A million conversions waiting after an outage",
    "S1": "Ten-megabyte text",
    "S2": "NUL, lone surrogates, invalid bytes, invisible characters",
    "S3": "Every script, both directions, every normal form",
    "S4": "NaN, infinities, huge and tiny numbers, foreign decimal marks",
    "S5": "Ids beyond floating point, leading zeros, 1e5 as text",
    "S6": "Times from year 1 to 9999, without zone, in gaps and folds, in the future",
    "S7": "SQL, templates, format strings, markup and escapes as data",
    "S8": "Duplicates: the same, with another amount, in another case",
    "S9": "NULL everywhere, empty columns, missing, renamed or retyped columns",
    "S10": "Values already hashed, twice hashed, hashed by MD5, or hashes of nothing",
    "S11": "0, 1, 999, 1,000, 1,001 rows, and very many",
    "S12": "One event a second too old among 999 fresh ones",
    "S13": "Phones with marks, extensions, letters, foreign digits",
    "S14": "Consent withdrawn between plan and request",
    "S15": "An e-mail address as the source key",
    "T1": "A window that ends while the event waits, flies, or is in doubt",
    "T2": "A token broken for eight days",
    "T3": "A doubt just inside and just outside the window",
    "T4": "Clock steps, leap days, daylight saving",
    "T5": "A row that becomes visible long after its own timestamp",
    "T6": "A dry run opens no connection and writes no delivery",
    "T7": "Test mode on real rows",
    "T8": "A replay of what Meta had accepted",
    "T9": "Retention and erasure while deliveries go on",
    "T10": "An upgrade with deliveries in flight",
    "X1": "The token comes from a connection or secrets backend only",
    "X2": "The token goes in the Authorization header, never in an address",
    "X3": "Our own HTTP client; Meta's SDK is not in the send path",
    "X4": "Exceptions that leave our code are ours, and carry no cause",
    "X5": "SQLAlchemy hides parameters; a database's error text is never stored",
    "X6": "Airflow masks the token and its forms, as a second line",
    "X7": "appsecret_proof, and the app secret masked",
    "X8": "The token is replaced without a restart; only a fingerprint is shown",
    "X9": "No secret on a command line, in a child's environment, in a core dump",
    "X10": "XCom carries small counts and ids",
    "X11": "Returned values are not printed",
    "X12": "Forms take ids, dates and choices; nothing else",
    "X13": "Template fields hold nothing personal",
    "X14": "Log lines cannot be forged by data",
    "X15": "The debug level is as clean as the others",
    "X16": "Run ids, map indices, notes and callbacks hold no source value",
    "X17": "Great Expectations keeps keys and counts, never values",
    "X18": "Expectations that show values are refused",
    "X19": "Validation results and Data Docs hold counts",
    "X20": "Great Expectations' errors and analytics let nothing out",
    "X21": "Identifiers come from feed files, are checked, and quoted",
    "X22": "Values are bound; a feed's own SQL is one reading statement",
    "X23": "No template is rendered over data or forms",
    "X24": "No eval, pickle or unsafe YAML",
    "X25": "Pages show text as text",
    "X26": "Exports escape formulas",
    "X27": "Meta's address is fixed; another is said loudly, and only where allowed",
    "X28": "No redirects, no proxies from the environment, verified TLS 1.2 or newer",
    "X29": "Dataset ids and API versions have one form",
    "X30": "The connection test shows no body",
    "X31": "Every route of a plugin asks who it is and what it may",
    "X32": "A plugin's own documentation pages are off",
    "X33": "A plugin's acting routes are safe against forged requests",
    "X34": "Who may not see a DAG cannot see its deliveries",
    "X35": "Pages show keys, states, codes and counts",
    "X36": "Filters and pages are bounded",
    "X37": "Replay asks for a permission and a reason, and is written down for ever",
    "X38": "No payload at rest",
    "X39": "What is finished is removed when its time is over",
    "X40": "A person's conversions can be erased from the ledger",
    "X41": "Without consent nothing is sent; limited data use is passed on",
    "X42": "Each part needs the least of rights",
    "X43": "No telemetry, no update check",
    "X44": "Pinned and hashed dependencies, a bill of materials, an audit",
}

NOT_HERE: Final = {
    "D12": "nothing is copied into the warehouse yet; what reads the ledger reads its views",
}
"""Rows without a test, each with the reason."""


def proofs() -> dict[str, list[str]]:
    """Return the tests of each row, as `file::class::test`, found by their marks."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        whole = [
            number
            for node in tree.body
            if isinstance(node, ast.Assign)
            and any(
                isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets
            )
            for number in _numbers([node.value])
        ]
        where = path.relative_to(ROOT).as_posix()
        for number in whole:
            found[number].append(where)
        for node in tree.body:
            _walk(node, where, found)
    return dict(found)


def _walk(node: ast.stmt, where: str, found: defaultdict[str, list[str]]) -> None:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        name = f"{where}::{node.name}"
        for number in _numbers(node.decorator_list):
            found[number].append(name)
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                _walk(child, name, found)


def _numbers(marks: list[ast.expr]) -> list[str]:
    return [
        argument.value
        for mark in marks
        for call in ast.walk(mark)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.matrix"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    ]
