"""A no to everything is nobody's fault; the innocent go out."""

from __future__ import annotations

import json

import pytest
from tests.ledger.conftest import Bench
from tests.ledger.scenes import REFUSAL

from meta_capi.errors import StoppedError
from meta_capi.verdict import Answer


class TestANoToEverything:
    def test_a_finger_that_points_at_the_first_event_each_time_hides_nothing(
        self, bench: Bench
    ) -> None:
        """2804019 carries a path; a mapping that is wrong for all rows is not one row's
        fault."""
        bench.tune(requests_in_flight=1)
        asked = 0

        def point_at_the_first(_: bytes) -> Answer:
            nonlocal asked
            asked += 1
            message = "Invalid parameter at $['data'][0]['custom_data']"
            error = {"code": 100, "error_subcode": 2804019, "message": message}
            return Answer(400, {}, json.dumps({"error": error}).encode())

        with pytest.raises(StoppedError, match="not one bad event"):
            bench.deliver(bench.rows(*range(1_000)), post=point_at_the_first)

        assert asked <= 12
        assert bench.states() == {"pending": 999, "refused": 1}

    @pytest.mark.parametrize("count", [4, 9, 50])
    def test_of_a_few_left_over_the_innocent_go_out_whoever_stands_beside_them(
        self, bench: Bench, count: int
    ) -> None:
        """After a death, what is left may be guilty for the most part."""
        bench.tune(requests_in_flight=1)
        innocent = bench.event_ids(count // 2)
        asked = 0

        def take_one(body: bytes) -> Answer:
            nonlocal asked
            asked += 1
            ids = {each["event_id"] for each in json.loads(body)["data"]}
            if ids == innocent:
                return Answer(200, {}, b'{"events_received":1}')
            return Answer(400, {}, REFUSAL)

        bench.deliver(bench.rows(*range(count)), post=take_one)

        assert bench.states() == {"accepted": 1, "refused": count - 1}
        assert asked <= 128

    def test_of_a_few_that_are_all_refused_nobody_is_blamed(self, bench: Bench) -> None:
        with pytest.raises(StoppedError, match="not one bad event"):
            bench.deliver(
                bench.rows(*range(9)), post=lambda _: Answer(400, {}, REFUSAL)
            )

        assert bench.states() == {"pending": 9}
