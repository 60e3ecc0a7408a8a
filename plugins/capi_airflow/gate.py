"""The task of the quality gate: the feed's suite of expectations, run in the warehouse."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from capi_airflow.base import FeedOperator
from capi_airflow.ending import Log
from capi_airflow.feed_files import home
from capi_airflow.links import catalogue_address
from capi_airflow.stage import Stage
from capi_airflow.story import reasons_lines, table
from meta_capi.errors import GateError
from meta_capi.names import key_of, names_a_row
from meta_capi.source import Interval

__all__ = ["ValidateOperator"]

_SHOWN_VALIDATIONS: Final = 200


class ValidateOperator(FeedOperator):
    """Run the feed's suite in the warehouse; quarantine rows; stop above the thresholds."""

    def interval(self, stage: Stage) -> Interval:
        """Return the interval that `plan` chose."""
        return stage.interval

    def step(self, stage: Stage) -> dict[str, Any]:
        """Return the validation's number and counts."""
        # Great Expectations takes seconds to import, so only this task does it.
        from meta_capi.quality import check, verdict
        from meta_capi.suites import load_suite

        suite = load_suite(
            home() / "expectations" / f"{stage.feed.suite}.json", stage.feed
        )
        run = stage.ledger.find_run(stage.run_id)
        gate = stage.ledger.open_validation(run, suite.name)
        dry = stage.choices.dry_run

        def record(rows: Any) -> None:
            keyed = ((key_of(row.key), row.reason) for row in rows)
            # `deliver` names the others, and holds each of them for its key.
            named = ((key, reason) for key, reason in keyed if names_a_row(key))
            if not dry:
                stage.ledger.quarantine(run, gate, named, stage.interval.start)

        result = check(
            stage.source, stage.interval, suite, record_bad_rows=record,
            validation_id=str(gate), timer=time.perf_counter,
        )  # fmt: skip
        faults = verdict(result, stage.feed)
        stage.ledger.close_validation(
            gate, result=result.to_json(), passed=not faults,
            results=[_row_of(each) for each in result.expectations],
        )  # fmt: skip
        self._tell(result)
        _publish(stage, self.log)
        if faults:
            raise GateError(
                "The quality gate stopped the run; nothing was sent.\n"
                + "\n".join(faults)
            )
        stage.context["ti"].xcom_push(key="validation_id", value=gate)
        self.log.info(
            "Next: nothing; the gate is passed, and `deliver` sends the rest."
        )
        return {"rows": result.rows, "quarantined": result.quarantined}

    def _tell(self, result: Any) -> None:
        failed = [
            each
            for each in result.expectations
            if each.unexpected or each.status != "passed"
        ]
        self.log.info(
            "Suite %s: %d expectations on %s rows in %.1f s; %s rows go to quarantine.",
            result.suite, len(result.expectations), f"{result.rows:,}", result.seconds,
            f"{result.quarantined:,}",
        )  # fmt: skip
        rows = [(e.type, e.column, e.reason, e.severity, e.unexpected) for e in failed]
        if rows:
            for line in table(
                ["expectation", "column", "reason", "severity", "rows"], rows
            ):
                self.log.info("%s", line)
        reasons = Counter[str]()
        for each in failed:
            reasons[each.reason] += each.unexpected or 0
        known = {code: count for code, count in reasons.items() if code and count}
        for line in reasons_lines(known, result.feed):
            self.log.info("%s", line)


def _row_of(outcome: Any) -> dict[str, Any]:
    return {
        "expectation": outcome.type,
        "column_name": outcome.column or None,
        "reason": outcome.reason,
        "severity": str(outcome.severity),
        "status": str(outcome.status),
        "failed_rows": outcome.unexpected,
        "share": outcome.share,
    }


def _publish(stage: Stage, log: Log) -> None:
    from meta_capi.data_docs import publish

    folder = Path(os.environ.get("META_CAPI_DATA_DOCS") or home().parent / "data_docs")
    try:
        page = publish(stage.ledger.latest_validations(_SHOWN_VALIDATIONS), folder)
    except OSError as error:
        # The gate's verdict stands in the ledger; a page is a convenience.
        log.warning(
            "Data Docs were not written (%s). See %s",
            type(error).__name__, catalogue_address("warning.data_docs"),
        )  # fmt: skip
    else:
        log.info("Data Docs: %s", page)
