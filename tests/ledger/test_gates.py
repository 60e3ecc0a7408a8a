"""What a gate held, no run of another gate sends."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.ledger.conftest import Bench
from tests.ledger.scenes import as_counted, everything


class TestTwoGates:
    """Overlapping runs of a feed, each with a gate of its own, on the same bad row."""

    def gate(self, bench: Bench, *keys: str) -> int:
        run = bench.run()
        number = bench.ledger.open_validation(run, "suite")
        bad = [(key, "gate.failed") for key in keys]
        bench.ledger.quarantine(run, number, bad, datetime.now(UTC))
        return number

    def test_an_earlier_gates_run_does_not_send_what_a_later_gate_held(
        self, bench: Bench
    ) -> None:
        earlier, later = self.gate(bench, "o-1"), self.gate(bench, "o-1")
        rows = bench.rows(1, 2)

        for number in (earlier, later):
            tally = bench.deliver(rows, desk=bench.desk(validation_id=number))
            assert as_counted(tally) == {"accepted": 1, "quarantined": 1}

        passed = self.gate(bench)
        tally = bench.deliver(rows, desk=bench.desk(validation_id=passed))
        assert as_counted(tally) == {"accepted": 2}

    def test_nobody_without_a_gate_sends_what_a_gate_held(self, bench: Bench) -> None:
        """As tend_deliveries, whose key was due before the gate looked at the row."""
        self.gate(bench, "o-1")

        tally = bench.deliver(bench.rows(1))

        assert as_counted(tally) == {"quarantined": 1}

    def test_a_person_may_put_it_back(self, bench: Bench) -> None:
        self.gate(bench, "o-1")
        bench.ledger.replay(bench.run(), everything("quarantined"))

        assert as_counted(bench.deliver(bench.rows(1))) == {"accepted": 1}

    def test_a_limit_does_not_let_out_what_a_gate_held(self, bench: Bench) -> None:
        earlier, _ = self.gate(bench), self.gate(bench, "o-2")

        tally = bench.deliver(
            bench.rows(1, 2), desk=bench.desk(validation_id=earlier), limit=1
        )

        assert as_counted(tally) == {"accepted": 1, "quarantined": 1}
        assert bench.states() == {"accepted": 1, "quarantined": 1}
