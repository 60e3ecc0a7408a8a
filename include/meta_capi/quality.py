"""The quality gate: a suite judged in the warehouse, on exactly the interval's rows.

Great Expectations lives in this room alone, and is imported where it is used: that
costs five seconds. It answers each expectation with yes or no, and names the condition
that its bad rows meet; their keys are then read by our own statement, streamed and
never cut. No value of another column leaves the warehouse: not in results, not in
logs, not in errors.

Its query assets are not used: Great Expectations 1.24.1 fetches the whole query to
learn its columns, and the index queries that it writes for one do not parse.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from meta_capi.conditions import Interval, within
from meta_capi.errors import GateError, SourceError
from meta_capi.gate import BadRow, GateResult, Outcome, Status, verdict
from meta_capi.relation import Relation
from meta_capi.source import Source
from meta_capi.suites import CUSTOM_SQL, UNIQUE, Rule, Severity, Suite
from meta_capi.warehouse import read_only, reading

__all__ = ["BadRow", "GateResult", "check", "verdict"]

_FORMAT: Final = {"result_format": "BOOLEAN_ONLY"}
_KEYS_PER_FETCH: Final = 5_000


def check(
    source: Source,
    interval: Interval,
    suite: Suite,
    *,
    record_bad_rows: Callable[[Iterable[BadRow]], None],
    validation_id: str,
    timer: Callable[[], float],
) -> GateResult:
    """Judge the interval's rows, and record the bad ones.

    Args:
        source: the feed's rows.
        interval: which of them.
        suite: the expectations.
        record_bad_rows: called once for each critical expectation that failed, with
            its rows as a stream. A row that fails two expectations comes twice, and
            each of n rows with one key comes.
        validation_id: the caller's name for this validation.
        timer: seconds, as `time.perf_counter`.

    Raises:
        GateError: Great Expectations refuses the suite's arguments.
        SourceError: the warehouse cannot be read.
    """
    started = timer()
    with reading(source.engine, f"count {source.name}") as connection:
        relation = source.relation(connection)
        inside = within(source.feed, relation, interval)
        rows = int(connection.scalar(sa.select(sa.func.count()).where(inside)) or 0)
    gate = _Gate(source, relation, interval)
    statuses = gate.judge(suite.rules)
    outcomes, bad = [], []
    for rule, status in zip(suite.rules, statuses, strict=True):
        unexpected: int | None = None
        if status is Status.PASSED and rule.mostly == 1:
            unexpected = 0
        elif status is not Status.COULD_NOT_BE_CHECKED:
            keys = gate.unexpected(rule)
            if rule.severity is Severity.CRITICAL:
                bad.append(keys)
                unexpected = _record(
                    gate.stream(keys), str(rule.reason), record_bad_rows
                )
            else:
                unexpected = gate.count(keys)
        outcomes.append(_outcome(rule, status, unexpected, rows))
    return GateResult(
        validation_id=validation_id,
        feed=source.feed.feed,
        suite=suite.name,
        interval_start=interval.start.isoformat(),
        interval_end=interval.end.isoformat(),
        rows=rows,
        quarantined=gate.count_rows_of(bad) if bad else 0,
        seconds=round(timer() - started, 3),
        expectations=tuple(outcomes),
    )


def _record(
    keys: Iterator[tuple[object, ...]],
    reason: str,
    record_bad_rows: Callable[[Iterable[BadRow]], None],
) -> int:
    """Hand the rows over one by one; return how many there were."""
    counted = 0

    def rows() -> Iterator[BadRow]:
        nonlocal counted
        for key in keys:
            counted += 1
            yield BadRow(key, reason)

    stream = rows()
    record_bad_rows(stream)
    for _ in stream:
        """What the recorder left is counted all the same."""
    return counted


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


class _Gate:
    """Great Expectations on one interval, and the statements it implies."""

    def __init__(self, source: Source, relation: Relation, interval: Interval) -> None:
        # It logs what it catches, rows' values included; so it does not speak at all.
        logging.getLogger("great_expectations").setLevel(logging.CRITICAL + 1)
        import great_expectations as gx
        from great_expectations.core.batch import Batch
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )
        from great_expectations.execution_engine import SqlAlchemyExecutionEngine
        from great_expectations.execution_engine.sqlalchemy_batch_data import (
            SqlAlchemyBatchData,
        )
        from great_expectations.validator.validator import Validator

        class Engine(SqlAlchemyExecutionEngine):  # type: ignore[misc]
            def get_inspector(self) -> Any:
                return _Columns(source.engine.dialect, relation)

        self._name, self._sa_engine = source.name, source.engine
        self._keys = [relation.column(name) for name in source.feed.source.key]
        columns = [relation.column(name) for name in source.feed.columns]
        inside = within(source.feed, relation, interval)
        self._batch = sa.select(*columns).where(inside)
        settings = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        )
        self._engine = Engine(engine=read_only(source.engine), create_temp_table=False)
        self._validator = Validator(
            execution_engine=self._engine,
            data_context=gx.get_context(mode="ephemeral", project_config=settings),
            batches=[
                Batch(
                    data=SqlAlchemyBatchData(
                        self._engine, selectable=self._batch, create_temp_table=False
                    )
                )
            ],
        )

    def judge(self, rules: Sequence[Rule]) -> list[Status]:
        """Return what became of each rule; one that breaks spoils no other."""
        expectations = [self._expectation(rule) for rule in rules]
        places = [n for n, rule in enumerate(rules) if rule.type != CUSTOM_SQL]
        answers = self._validate([expectations[place] for place in places])
        found = dict(zip(places, answers, strict=True))
        return [
            found[place] if place in found else self._validate_query(rule)
            for place, rule in enumerate(rules)
        ]

    def _validate_query(self, rule: Rule) -> Status:
        """Judge custom SQL by our own statement.

        Great Expectations takes a colon in it for a parameter, doubles the percent
        signs of the feed's own query, and fetches the rows.
        """
        try:
            return Status.FAILED if self.count(self.unexpected(rule)) else Status.PASSED
        except SourceError:
            return Status.COULD_NOT_BE_CHECKED

    def _validate(self, expectations: Sequence[Any]) -> list[Status]:
        configurations = []
        for place, expectation in enumerate(expectations):
            configuration = expectation.configuration
            configuration.meta = {"place": place}
            configurations.append(configuration)
        results = self._validator.graph_validate(
            configurations=configurations,
            runtime_configuration={"result_format": _FORMAT, "catch_exceptions": True},
        )
        statuses = [Status.COULD_NOT_BE_CHECKED] * len(expectations)
        for result in results:
            if not _raised(result.exception_info):
                passed = Status.PASSED if result.success else Status.FAILED
                statuses[result.expectation_config.meta["place"]] = passed
        return statuses

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

    def unexpected(self, rule: Rule) -> sa.Select[Any]:
        """Return the statement for the keys of the rows that do not meet a rule."""
        if rule.type == CUSTOM_SQL:
            query = rule.kwargs["unexpected_rows_query"].format(batch="conversions")
            named = [sa.column(key.name, key.type) for key in self._keys]
            text = sa.text(query.replace(":", r"\:")).columns(*named)
            found = text.add_cte(self._batch.cte("conversions")).subquery("found")
            return sa.select(*found.c)
        expectation = self._expectation(rule)
        asked = expectation.get_validation_dependencies(
            execution_engine=self._engine,
            runtime_configuration={"result_format": _FORMAT},
        ).metric_configurations[f"{expectation.map_metric}.unexpected_count"]
        if rule.type in UNIQUE:
            return self._repeated(rule, asked.metric_domain_kwargs)
        condition, domain, _ = self._validator.get_metric(
            type(asked)(
                f"{expectation.map_metric}.condition",
                asked.metric_domain_kwargs,
                asked.metric_value_kwargs,
            )
        )
        return self._keys_of(self._engine.get_domain_records(domain)).where(condition)

    def _repeated(self, rule: Rule, domain: Mapping[str, Any]) -> sa.Select[Any]:
        """Return the keys that repeat; GX's condition hangs on a window of its own."""
        same: list[sa.ColumnElement[Any]] = [sa.column(n) for n in rule.columns]
        times = sa.func.count().over(partition_by=same).label("times")
        rows = self._keys_of(self._engine.get_domain_records(domain), times)
        rows = rows.where(*(column.is_not(None) for column in same))
        counted = rows.subquery("counted")
        keys = [counted.c[key.name] for key in self._keys]
        return sa.select(*keys).where(counted.c.times > 1)

    def _keys_of(self, records: Any, *more: sa.ColumnElement[Any]) -> sa.Select[Any]:
        place = records.subquery() if isinstance(records, sa.Select) else records
        keys = [sa.column(key.name, key.type) for key in self._keys]
        return sa.select(*keys, *more).select_from(place)

    def stream(self, keys: sa.Select[Any]) -> Iterator[tuple[object, ...]]:
        """Yield the keys, a bounded number at a time."""
        options = {"stream_results": True, "max_row_buffer": _KEYS_PER_FETCH}
        statement = keys.execution_options(**options)
        with (
            reading(self._sa_engine, f"read bad keys of {self._name}") as connection,
            connection.execute(statement) as result,
        ):
            while some := result.fetchmany(_KEYS_PER_FETCH):
                yield from map(tuple, some)

    def count(self, keys: sa.Select[Any]) -> int:
        """Count the rows of a statement."""
        with reading(self._sa_engine, f"count bad rows of {self._name}") as connection:
            counted = sa.select(sa.func.count()).select_from(keys.subquery())
            return int(connection.scalar(counted) or 0)

    def count_rows_of(self, bad: Sequence[sa.Select[Any]]) -> int:
        """Count the rows whose key is among the bad ones, each once; empty keys too."""
        row, flag = sa.literal(1).label("is_row"), sa.literal(0).label("is_bad")
        rows = [self._keys_of(self._batch.subquery(), row, flag)]
        row, flag = sa.literal(0).label("is_row"), sa.literal(1).label("is_bad")
        for keys in bad:
            rows.append(self._keys_of(keys.subquery(), row, flag))
        every = sa.union_all(*rows).subquery("every")
        by_key = (
            sa.select(sa.func.sum(every.c.is_row).label("rows"))
            .group_by(*(every.c[key.name] for key in self._keys))
            .having(sa.func.sum(every.c.is_bad) > 0)
        ).subquery("by_key")
        with reading(self._sa_engine, f"count bad rows of {self._name}") as connection:
            return int(connection.scalar(sa.select(sa.func.sum(by_key.c.rows))) or 0)


def _raised(exceptions: Mapping[str, Any]) -> bool:
    """Tell whether an expectation raised; what it raised may quote a row."""
    if "raised_exception" in exceptions:
        return bool(exceptions["raised_exception"])
    return any(entry.get("raised_exception") for entry in exceptions.values())
