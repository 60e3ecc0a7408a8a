"""Every reason has its place in the catalogue, and every entry is given by something."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import SETTINGS

import meta_capi
from meta_capi import catalogue
from meta_capi.catalogue import REASONS, Effect, Reason, meta_code, reason
from meta_capi.lifecycle import State
from meta_capi.normalise import Flaw
from meta_capi.spec import Subcode

ROOT = Path(meta_capi.__file__).parent.parent.parent
# What a batch is cut for without an answer to it; no delivery ever has it.
OF_BATCHES = {"split.inferred"}
# The path of a feed's member, not a reason.
MEMBERS = {"event.time"}


def literals() -> set[str]:
    """Return every text of the programs, their SQL and their suites."""
    found: set[str] = set()
    for path in (*ROOT.glob("include/meta_capi/**/*"), *ROOT.glob("plugins/**/*")):
        if path.suffix == ".sql":
            found |= set(re.findall(r"'([a-z_.]+)'", path.read_text(encoding="utf-8")))
        if path.suffix != ".py" or path.name == "catalogue.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    for path in ROOT.glob("include/expectations/*.json"):
        suite = json.loads(path.read_text(encoding="utf-8"))
        found |= {each.get("meta", {}).get("reason") for each in suite["expectations"]}
    return found - {None}


class TestEntries:
    @pytest.mark.parametrize("entry", REASONS.values(), ids=str)
    def test_a_reason_says_what_is_so_and_what_to_do(self, entry: Reason) -> None:
        assert REASONS[entry.code] is entry
        assert re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)?", entry.code)
        for sentence in (entry.meaning, entry.action):
            assert sentence[0].isupper() or sentence.startswith(("tend_", "32 hex"))
            assert sentence.endswith(".")

    def test_no_code_stands_under_two_effects(self) -> None:
        """A table of two levels could say it twice, and the second would win."""
        assert len(REASONS) == sum(map(len, catalogue._TEXTS.values()))

    def test_every_flaw_of_a_value_is_in_the_catalogue(self) -> None:
        assert {flaw.value for flaw in Flaw} <= set(REASONS)

    def test_an_effect_is_a_state_or_leaves_the_event_alone(self) -> None:
        states = {effect.value for effect in Effect} - {Effect.KEY_DROPPED.value}
        assert states == {state.value for state in State} - {"claimed"}

    def test_every_reason_is_given_somewhere(self) -> None:
        assert set(REASONS) - literals() == set()

    def test_every_reason_that_is_given_is_in_the_catalogue(self) -> None:
        """A text with the first word of a reason and a dot is taken for one."""
        groups = {code.partition(".")[0] for code in REASONS if "." in code}
        shaped = re.compile(r"[a-z_]+\.[a-z0-9_]+")
        given = {
            text
            for text in literals()
            if shaped.fullmatch(text) and text.partition(".")[0] in groups
        }
        assert given >= {"key.duplicate", "answer.count", "split.budget"}
        assert given - set(REASONS) == OF_BATCHES | MEMBERS


class TestMetasOwnCodes:
    def test_every_known_subcode_is_described(self) -> None:
        numbers = [
            value for name, value in vars(Subcode).items() if not name.startswith("_")
        ]
        assert len(numbers) >= 16
        unknown = reason("meta.100.1").meaning
        for number in numbers:
            entry = reason(meta_code(100, number))
            assert entry.effect is Effect.REFUSED
            assert entry.meaning.endswith(".")
            assert entry.meaning != unknown

    @SETTINGS
    @given(code=st.none() | st.integers(), subcode=st.none() | st.integers())
    def test_any_numbers_make_a_code_with_an_entry(
        self, code: int | None, subcode: int | None
    ) -> None:
        made = meta_code(code, subcode)
        assert re.fullmatch(r"meta(\.-?\d+){0,2}", made)
        assert reason(made).code == made
        assert reason(made).effect is Effect.REFUSED

    @SETTINGS
    @given(st.text(max_size=30))
    def test_any_text_has_an_entry(self, text: str) -> None:
        """The ledger outlives the catalogue that wrote it."""
        assert reason(text).code == text
