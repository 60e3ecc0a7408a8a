"""Meta's own scores, read from any answer: numbers, or an error that quotes nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import strategies
from tests.strategies import SETTINGS

from meta_capi.scores import (
    FIELDS,
    EventScore,
    KeyScore,
    ScoresError,
    Surface,
    parse,
)
from meta_capi.verdict import Answer

CANARY = "Zaunkönig 4711"
# As Meta's pages show it (reference, 11), with members that nobody has heard of yet.
WEB: dict[str, Any] = {
    "event_name": "Purchase",
    "event_match_quality": {
        "composite_score": 6.2,
        "match_key_feedback": [
            {
                "identifier": "email",
                "coverage": {"percentage": 100, "trend": "up"},
                "potential_aly_acr_increase": {
                    "percentage": "12.5",
                    "description": "…",
                },
            },
            {"identifier": "ip_address"},
        ],
        "diagnostics": [],
    },
    "event_coverage": {"percentage": 34.1, "goal_percentage": 75},
    "data_freshness": {"upload_frequency": "real_time"},
    "acr": {"percentage": 137.9},
    "moon_phase": {"percentage": "full"},
}
OFFLINE: dict[str, Any] = {
    "event_name": "Purchase",
    "composite": {"score": 8.5, "recommendation": ""},
    "match_key": {"score": 7, "coverage": {"email": 93.1, "phone": None}},
    "frequency": {"score": 10},
    "freshness": {"score": 0},
}


def answer(body: object, status: int = 200) -> Answer:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {}, sent)


def web(**changes: Any) -> Answer:
    """Return Meta's answer with members changed."""
    return answer({"web": [{**WEB, **changes}]})


class TestWhatMetaSays:
    def test_of_events_of_the_web_is_read_number_by_number(self) -> None:
        assert parse(web(), Surface.WEB) == [
            EventScore(
                event_name="Purchase", score=6.2, upload_frequency="real_time",
                event_coverage=34.1, coverage_goal=75, acr=137.9,
                keys=(
                    KeyScore(match_key="email", coverage=100, gain=12.5),
                    KeyScore(match_key="ip_address"),
                ),
            )
        ]  # fmt: skip

    def test_of_events_of_shops_has_scores_of_its_own(self) -> None:
        assert parse(answer({"offline": [OFFLINE]}), Surface.OFFLINE) == [
            EventScore(
                event_name="Purchase", score=8.5, match_key_score=7, frequency_score=10,
                freshness_score=0,
                keys=(
                    KeyScore(match_key="email", coverage=93.1),
                    KeyScore(match_key="phone"),
                ),
            )
        ]  # fmt: skip

    @pytest.mark.parametrize("body", [{}, {"web": []}, {"web": None}, {"offline": [1]}])
    def test_may_be_nothing_yet(self, body: object) -> None:
        assert parse(answer(body), Surface.WEB) == []

    @pytest.mark.parametrize("left_out", sorted(set(WEB) - {"event_name"}))
    def test_may_leave_out_anything_but_the_name(self, left_out: str) -> None:
        item = {name: value for name, value in WEB.items() if name != left_out}
        [found] = parse(answer({"web": [item, {"acr": {}}]}), Surface.WEB)
        assert found.event_name == "Purchase"


class TestNonsense:
    @pytest.mark.parametrize(
        "changes",
        [
            {"event_name": [CANARY]}, {"event_name": "a\0b"}, {"event_name": "\ud800"},
            {"event_name": "x" * 101}, {"event_match_quality": CANARY},
            {"event_match_quality": {"composite_score": 10.1}},
            {"event_match_quality": {"composite_score": -0.1}},
            {"event_match_quality": {"composite_score": True}},
            {"event_match_quality": {"composite_score": float("nan")}},
            {"event_match_quality": {"composite_score": 10**400}},
            {"event_match_quality": {"composite_score": CANARY}},
            {"event_match_quality": {"match_key_feedback": {}}},
            {"event_match_quality": {"match_key_feedback": [{"identifier": "em"}] * 2}},
            {"event_coverage": {"percentage": float("inf")}},
            {"data_freshness": {"upload_frequency": {"per": CANARY}}},
        ],
        ids=lambda changes: next(iter(changes)),
    )  # fmt: skip
    def test_is_refused_whole_and_not_quoted(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ScoresError, match="nothing of it was kept") as caught:
            parse(web(**changes), Surface.WEB)
        assert CANARY not in str(caught.value)
        assert caught.value.code == "warning.scores"

    @pytest.mark.parametrize(
        "body",
        [b"", b"<html>", b"[" * 100_000, [], {"web": {}}, {"web": [WEB, WEB]},
         {"web": [WEB] * 1_001}, {"error": {}}],
    )  # fmt: skip
    def test_may_be_the_whole_answer(self, body: object) -> None:
        with pytest.raises(ScoresError):
            parse(answer(body), Surface.WEB)


class TestMetasNo:
    @pytest.mark.parametrize(
        ("code", "subcode", "entry", "for_now"),
        [
            (200, None, "meta.200", False), (10, None, "meta.10", False),
            (190, 463, "meta.190.463", False), (100, 2_044_055, "meta.100.2044055", False),
            (100, None, "meta.100", False), (4, None, "warning.scores", True),
            (2, None, "warning.scores", True),
        ],
    )  # fmt: skip
    def test_has_the_catalogues_entry_and_says_whether_it_may_pass(
        self, code: int, subcode: int | None, entry: str, for_now: bool
    ) -> None:
        told = {"code": code, "error_subcode": subcode, "message": CANARY}
        with pytest.raises(ScoresError) as caught:
            parse(answer({"error": told}, 400), Surface.WEB)
        assert (caught.value.code, caught.value.for_now) == (entry, for_now)
        assert CANARY not in str(caught.value)


_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | strategies.hostile_texts
)
_WORDS = st.sampled_from([
    *sorted(set(re.findall(r"\w+", str(FIELDS)))), "score", "coverage", "email", "error",
    "code",
])  # fmt: skip
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=6),
    max_leaves=25,
)  # fmt: skip
_ANSWERS = st.fixed_dictionaries({"web": st.lists(_JSON, max_size=3), "offline": _JSON})


@SETTINGS
@given(
    status=st.sampled_from([200, 200, 200, 400, 500]),
    body=st.binary(max_size=50) | (_JSON | _ANSWERS).map(lambda j: json.dumps(j).encode()),
    surface=st.sampled_from(Surface),
)  # fmt: skip
def test_any_answer_is_scores_that_the_ledger_can_hold_or_our_own_error(
    status: int, body: bytes, surface: Surface
) -> None:
    try:
        found = parse(Answer(status, {}, body), surface)
    except ScoresError:
        return
    assert status == 200
    for each in found:
        assert each.event_name.isprintable()
        for score in (each.score, each.match_key_score, each.freshness_score):
            assert score is None or 0 <= score <= 10
        for key in each.keys:
            assert key.coverage is None or 0 <= key.coverage <= 100
