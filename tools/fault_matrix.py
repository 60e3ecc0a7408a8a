"""The page of the fault matrix: every row, and the tests that prove it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.matrix import NOT_HERE, ROWS, SECTIONS, proofs

__all__ = ["fault_matrix"]

_HEAD = """\
# The fault matrix

Generated from `tests/faults/matrix.py` and the tests' marks by `make docs`.
A test that carries `@pytest.mark.matrix("P1")` proves row P1; a test of the papers fails
on a row that nothing proves and no reason excuses.
What is promised is told in [reliability](reliability.md), what is kept secret and how in
[security](security.md)."""


def fault_matrix() -> str:
    """Return the matrix, a table for each kind of fault."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from _HEAD.splitlines()
    found = proofs()
    for letter, title in SECTIONS.items():
        yield from (
            "",
            f"## {title}",
            "",
            "| # | fault | proved by |",
            "| --- | --- | --- |",
        )
        for number, fault in ROWS.items():
            if number[0] == letter:
                yield f"| {number} | {fault} | {_proof(number, found)} |"


def _proof(number: str, found: dict[str, list[str]]) -> str:
    tests = "<br>".join(f"`{test}`" for test in found.get(number, ()))
    excuse = NOT_HERE.get(number)
    if excuse:
        return f"{tests}<br>not here: {excuse}" if tests else f"not here: {excuse}"
    return tests or "**nothing**"
