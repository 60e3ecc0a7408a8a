"""The quality gate: a suite judged in the warehouse, on exactly the interval's rows.

Great Expectations lives in this room alone, and is imported where it is used: that
costs five seconds. It names the condition that each expectation's bad rows meet, and
it says yes or no; in between one statement of ours looks at every row once (`sweep`).
Left to itself it reads the interval again for each expectation that failed. No value
of a column that is no key leaves the warehouse: not in results, logs or errors.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress, repeat
from typing import Any, Final

import sqlalchemy as sa

from meta_capi.conditions import Condition, Interval
from meta_capi.errors import GateError, SourceError
from meta_capi.gate import BadRow, GateResult, Outcome, Status, verdict
from meta_capi.relation import Relation
from meta_capi.source import Source
from meta_capi.suites import CUSTOM_SQL, NOT_NULL, UNIQUE, Rule, Severity, Suite
from meta_capi.sweep import Key, Sweep, repeated
from meta_capi.warehouse import read_only, reading

__all__ = ["BadRow", "GateResult", "check", "verdict"]

_FORMAT: Final = {"result_format": "BOOLEAN_ONLY"}
_UNEXPECTED: Final = ".unexpected_count"
# Keys of custom SQL that are held to count no row twice; beyond, the warehouse counts.
_MOST_NAMED: Final = 100_000

Record = Callable[[Iterable[BadRow]], None]


def check(
    source: Source,
    interval: Interval,
    suite: Suite,
    *,
    record_bad_rows: Record,
    validation_id: str,
    timer: Callable[[], float],
) -> GateResult:
    """Judge the interval's rows, and record the bad ones.

    Args:
        source: the feed's rows.
        interval: which of them.
        suite: the expectations.
        record_bad_rows: called a few times, each time with bad rows as a stream. A row
            that fails two expectations comes twice, and each of n rows with one key
            comes.
        validation_id: the caller's name for this validation.
        timer: seconds, as `time.perf_counter`.

    Raises:
        GateError: Great Expectations refuses the suite's arguments.
        SourceError: the warehouse cannot be read.
    """
    started = timer()
    with reading(source.engine, f"describe {source.name}") as connection:
        relation = source.relation(connection)
    sweep = Sweep(source, relation, interval)
    gate = _Gate(sweep, suite, source.feed.source.key, record_bad_rows)
    if sweep.any_rows():
        outcomes = gate.judge(_Judge(source.engine, relation, sweep.batch))
    else:  # nothing is wrong with nothing, and the import is saved
        outcomes = [_outcome(rule, Status.PASSED, 0, 0) for rule in suite.rules]
    return GateResult(
        validation_id=validation_id,
        feed=source.feed.feed,
        suite=suite.name,
        interval_start=interval.start.isoformat(),
        interval_end=interval.end.isoformat(),
        rows=gate.rows,
        quarantined=gate.quarantined(),
        seconds=round(timer() - started, 3),
        expectations=tuple(outcomes),
    )


@dataclass(frozen=True, slots=True)
class _Test:
    """An expectation, and the counts by which Great Expectations judges it."""

    rule: Rule
    expectation: Any
    asked: Mapping[Hashable, Condition]
    """Great Expectations' name of each count, and which rows are counted."""
    failing: Hashable
    """The count of the rows that do not meet it."""


class _Gate:
    """One validation: what is found of each rule, and which rows are bad."""

    def __init__(
        self, sweep: Sweep, suite: Suite, key: Sequence[str], record: Record
    ) -> None:
        self._sweep, self._rules, self._record = sweep, suite.rules, record
        self.rows = 0
        self._bad_rows = 0
        self._bad: list[Condition] = []
        self._queries: list[sa.Select[Any]] = []
        # Keys of custom SQL that no other rule blamed; None: the warehouse must count.
        self._named: set[Key] | None = set() if _parts_keys(suite, key) else None

    def judge(self, judge: _Judge) -> list[Outcome]:
        """Return what became of each rule; one that breaks spoils no other."""
        custom = [rule.type == CUSTOM_SQL for rule in self._rules]
        tests = [
            None if query else judge.test(rule)
            for rule, query in zip(self._rules, custom, strict=True)
        ]
        found = [
            self._query(rule) if query else (Status.COULD_NOT_BE_CHECKED, None)
            for rule, query in zip(self._rules, custom, strict=True)
        ]
        counts = self._count([test for test in tests if test])
        for place, test in enumerate(tests):
            if test and test.failing in counts:
                found[place] = judge.status(test, counts), counts[test.failing]
        return [
            _outcome(rule, status, unexpected, self.rows)
            for rule, (status, unexpected) in zip(self._rules, found, strict=True)
        ]

    def quarantined(self) -> int:
        """Count the rows whose key failed a critical expectation, each row once."""
        if self._named is not None:
            return self._bad_rows + len(self._named)
        if self._bad or self._queries:
            return self._sweep.rows_with_key(self._bad, self._queries)
        return 0

    def _query(self, rule: Rule) -> tuple[Status, int | None]:
        """Judge custom SQL by our own statement.

        Great Expectations takes a colon in it for a parameter, doubles the percent
        signs of the feed's own query, and fetches the rows.
        """
        statement = self._sweep.named(rule.kwargs["unexpected_rows_query"])
        try:
            if rule.severity is Severity.CRITICAL:
                rows = self._blame(statement, str(rule.reason))
            else:
                rows = self._sweep.count(statement)
        except SourceError:
            return Status.COULD_NOT_BE_CHECKED, None
        return (Status.FAILED if rows else Status.PASSED), rows

    def _blame(self, statement: sa.Select[Any], reason: str) -> int:
        rows = 0

        def bad_rows() -> Iterator[BadRow]:
            nonlocal rows
            for key in self._sweep.keys(statement):
                rows += 1
                if self._named is not None:
                    self._named.add(key)
                    if len(self._named) > _MOST_NAMED:
                        self._named = None
                yield BadRow(key, reason)

        self._hand_over(bad_rows())
        if rows:
            self._queries.append(statement)
        return rows

    def _count(self, tests: Sequence[_Test]) -> Mapping[Hashable, int]:
        try:
            return self._pass(tests)
        except SourceError:
            self._named = None
            self.rows = self._sweep.count(self._sweep.batch)
        found: dict[Hashable, int] = {}
        for test in tests:
            with suppress(SourceError):
                found |= self._pass([test])
        return found

    def _pass(self, tests: Sequence[_Test]) -> Mapping[Hashable, int]:
        """Look at the rows once for all tests; return their counts."""
        asked = {name: rows for test in tests for name, rows in test.asked.items()}
        critical = [test for test in tests if test.rule.severity is Severity.CRITICAL]
        conditions = [test.asked[test.failing] for test in critical]
        others = asked.keys() - {test.failing for test in critical}
        counted = {name: asked[name] for name in asked if name in others}
        counts = Counter[Hashable](dict.fromkeys(asked, 0))
        rows = 0

        def bad_rows() -> Iterator[BadRow]:
            nonlocal rows
            for group in self._sweep.groups(conditions, list(counted.values())):
                rows += group.rows
                counts.update(dict(zip(counted, group.counts, strict=True)))
                failed = list(compress(critical, group.marks))
                if failed:
                    self._bad_rows += group.rows
                    if self._named is not None:
                        self._named.discard(group.key)
                counts.update({test.failing: group.rows for test in failed})
                for test in failed:
                    bad = BadRow(group.key, str(test.rule.reason))
                    yield from repeat(bad, group.rows)

        self._hand_over(bad_rows())
        self.rows = rows
        self._bad += [
            test.asked[test.failing] for test in critical if counts[test.failing]
        ]
        return counts

    def _hand_over(self, rows: Iterator[BadRow]) -> None:
        self._record(rows)
        for _ in rows:
            """What the recorder left is counted all the same."""


def _parts_keys(suite: Suite, key: Sequence[str]) -> bool:
    """Tell whether the suite blames every row that shares its key, or lacks a part.

    Then no good row has a bad row's key, and bad rows can be counted as they come.
    """
    said = {
        (rule.type == NOT_NULL, *sorted(rule.columns))
        for rule in suite.rules
        if rule.severity is Severity.CRITICAL
        and rule.type in (NOT_NULL, *UNIQUE)
        and "row_condition" not in rule.kwargs
    }
    return said >= {(False, *sorted(key)), *((True, name) for name in key)}


class _Columns:
    """Answers questions on the batch's columns without asking the database.

    Left alone, Great Expectations looks for a table, and then runs the batch.
    """

    def __init__(self, dialect: sa.Dialect, relation: Relation) -> None:
        self.dialect = dialect
        self._columns = [{"name": n, "type": t} for n, t in relation.types.items()]

    def get_columns(self, table_name: str, schema: str | None = None) -> list[Any]:
        """Return every column's name and type."""
        return self._columns

    def get_pk_constraint(
        self, table_name: str, schema: str | None = None
    ) -> Mapping[str, Sequence[str]]:
        """Return none: a query has no primary key."""
        return {"constrained_columns": []}


class _Judge:
    """Great Expectations: forms the conditions, and judges by what they count.

    It is never asked to read. Its query assets fetch the whole query to learn its
    columns, and the index queries that it writes for one do not parse (1.24.1).
    """

    def __init__(
        self, engine: sa.Engine, relation: Relation, batch: sa.Select[Any]
    ) -> None:
        # It logs what it catches, rows' values included; so it does not speak at all.
        logging.getLogger("great_expectations").setLevel(logging.CRITICAL + 1)
        from great_expectations.execution_engine import SqlAlchemyExecutionEngine
        from great_expectations.execution_engine.sqlalchemy_batch_data import (
            SqlAlchemyBatchData,
        )
        from great_expectations.validator.metrics_calculator import MetricsCalculator

        class Engine(SqlAlchemyExecutionEngine):  # type: ignore[misc]
            def get_inspector(self) -> Any:
                return _Columns(engine.dialect, relation)

            def resolve_metric_bundle(self, metric_fn_bundle: Any) -> Any:
                # The number of rows, which every condition asks for and none uses.
                return {entry.metric_configuration.id: 0 for entry in metric_fn_bundle}

        self._engine = Engine(engine=read_only(engine), create_temp_table=False)
        self._engine.load_batch_data(
            "rows",
            SqlAlchemyBatchData(
                self._engine, selectable=batch, create_temp_table=False
            ),
        )
        self._calculator = MetricsCalculator(self._engine)

    def test(self, rule: Rule) -> _Test | None:
        """Return a rule's test; None if it cannot be formed.

        Raises:
            GateError: Great Expectations refuses the rule's arguments.
        """
        from great_expectations.exceptions import GreatExpectationsError

        expectation = self._expectation(rule)
        wanted = expectation.get_validation_dependencies(
            execution_engine=self._engine,
            runtime_configuration={"result_format": _FORMAT},
        ).metric_configurations
        try:
            asked = {
                metric.id: self._counted(name, metric, rule)
                for name, metric in wanted.items()
            }
        except (GreatExpectationsError, KeyError):
            return None  # the arguments do not fit the column; it then has no condition
        failing = wanted[f"{expectation.map_metric}{_UNEXPECTED}"].id
        return _Test(rule, expectation, asked, failing)

    def status(self, test: _Test, counts: Mapping[Hashable, int]) -> Status:
        """Judge by the counts."""
        result = test.expectation.metrics_validate(
            {name: counts[name] for name in test.asked},
            runtime_configuration={"result_format": _FORMAT},
            execution_engine=self._engine,
        )
        return Status.PASSED if result.success else Status.FAILED

    def _expectation(self, rule: Rule) -> Any:
        from great_expectations.expectations.expectation_configuration import (
            ExpectationConfiguration,
        )

        try:
            return ExpectationConfiguration(
                type=rule.type, kwargs=dict(rule.kwargs)
            ).to_domain_obj()
        except Exception:
            raise GateError(
                f"{rule.label}: Great Expectations refuses its arguments; compare them "
                "with its documentation."
            ) from None

    def _counted(self, name: str, metric: Any, rule: Rule) -> Condition:
        """Return which rows a metric counts."""
        domain = metric.metric_domain_kwargs
        records = self._engine.get_domain_records(domain)
        among = records.whereclause if isinstance(records, sa.Select) else None
        rows = sa.true() if among is None else among
        if not name.endswith(_UNEXPECTED):
            return rows  # table.row_count, or the rows that are not ignored
        if rule.type in UNIQUE and not name.startswith("column_values.nonnull."):
            return repeated(rule.columns, rows)
        condition, _, _ = self._calculator.get_metric(
            type(metric)(
                f"{name.removesuffix(_UNEXPECTED)}.condition",
                domain,
                metric.metric_value_kwargs,
            )
        )
        return sa.and_(rows, condition)


def _outcome(rule: Rule, status: Status, unexpected: int | None, rows: int) -> Outcome:
    return Outcome(
        type=rule.type,
        column=", ".join(rule.columns),
        reason=rule.reason,
        severity=rule.severity,
        status=status,
        unexpected=unexpected,
        share=None if unexpected is None else unexpected / rows if rows else 0.0,
        mostly=rule.mostly,
        notes=rule.notes,
    )
