"""Every reason has its place in the catalogue, and every entry is given by something."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import SETTINGS

import meta_capi
from meta_capi import errors, spec
from meta_capi.catalogue import (
    CATALOGUE,
    EFFECTS,
    REASONS,
    Effect,
    Reason,
    anchor,
    faults,
    graph,
    meta_code,
    ours,
    reason,
)
from meta_capi.lifecycle import State
from meta_capi.normalise import Flaw
from meta_capi.spec import Subcode
from meta_capi.verdict import Answer, Refused, Stopped, Throttled, Unknown, read

ROOT = Path(meta_capi.__file__).parent.parent.parent
# What a batch is cut for without an answer to it; no delivery ever has it.
OF_BATCHES = {"split.inferred"}
# Paths of a feed's members, not reasons.
MEMBERS = {"consent.granted", "event.id", "event.stages", "event.time"}
# What a sentence may begin with in small letters.
FIELDS = {"32", "contents"}
# All but Meta's own, which begin with a word of theirs and come as numbers.
OF_THE_HOUSE = {code for code in CATALOGUE if not code.startswith("meta.")}


def literals() -> set[str]:
    """Return every text of the programs, their SQL and their suites."""
    found: set[str] = set()
    for path in (*ROOT.glob("include/meta_capi/**/*"), *ROOT.glob("plugins/**/*")):
        if path.suffix == ".sql":
            found |= set(re.findall(r"'([a-z_.]+)'", path.read_text(encoding="utf-8")))
        if path.suffix != ".py" or path.parent.name == "catalogue":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    for path in ROOT.glob("include/expectations/*.json"):
        suite = json.loads(path.read_text(encoding="utf-8"))
        found |= {each.get("meta", {}).get("reason") for each in suite["expectations"]}
    return found - {None}


class TestEntries:
    @pytest.mark.parametrize("entry", CATALOGUE.values(), ids=str)
    def test_an_entry_says_what_is_so_and_what_to_do(self, entry: Reason) -> None:
        assert CATALOGUE[entry.code] is entry
        assert re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+){0,2}", entry.code)
        for sentence in (entry.meaning, entry.action):
            first = sentence.split()[0]
            assert first[0].isupper() or "_" in first or first in FIELDS
            assert sentence.endswith(".")

    def test_no_code_stands_under_two_effects(self) -> None:
        """A table of two levels could say it twice, and the second would win."""
        texts = (ours.TEXTS, graph.TEXTS, faults.TEXTS)
        said = [code for each in texts for group in each.values() for code in group]
        assert sorted(said) == sorted(CATALOGUE)

    def test_every_flaw_of_a_value_is_in_the_catalogue(self) -> None:
        assert {flaw.value for flaw in Flaw} <= set(REASONS)

    def test_an_effect_is_a_state_or_leaves_the_event_alone(self) -> None:
        effects = {entry.effect for entry in REASONS.values()} | {Effect.REFUSED}
        states = {str(effect) for effect in effects - {Effect.KEY_DROPPED}}
        assert states == {state.value for state in State} - {"claimed"}

    def test_every_effect_has_a_section_and_entries(self) -> None:
        assert set(EFFECTS) == set(Effect)
        assert {entry.effect for entry in CATALOGUE.values()} == set(Effect)

    def test_every_reason_is_given_somewhere(self) -> None:
        assert OF_THE_HOUSE - literals() == set()

    def test_every_reason_that_is_given_is_in_the_catalogue(self) -> None:
        """A text with the first word of a reason and a dot is taken for one."""
        groups = {code.partition(".")[0] for code in OF_THE_HOUSE if "." in code}
        shaped = re.compile(r"[a-z_]+\.[a-z0-9_]+")
        given = {
            text
            for text in literals()
            if shaped.fullmatch(text) and text.partition(".")[0] in groups
        }
        assert given >= {"key.duplicate", "answer.count", "split.budget"}
        assert given - set(CATALOGUE) == OF_BATCHES | MEMBERS


class TestFaults:
    def test_every_kind_of_error_has_an_entry_of_its_own(self) -> None:
        kinds = _below(errors.CapiError)
        codes = [kind.code for kind in kinds]
        assert len(set(codes)) == len(kinds) >= 11
        assert {CATALOGUE[code].effect for code in codes} == {Effect.FAULT}

    def test_an_error_may_name_another(self) -> None:
        assert errors.ConfigurationError("It is so.", code="fault.form").code == (
            "fault.form"
        )
        assert errors.ConfigurationError("It is so.").code == "fault.configuration"


class TestMetasOwnCodes:
    """What the catalogue says of a code is what `verdict` does with it."""

    WANTED: ClassVar = {
        Effect.REFUSED: Refused, Effect.STOPPED: Stopped, Effect.THROTTLED: Throttled,
        Effect.IN_DOUBT: Unknown,
    }  # fmt: skip
    KNOWN = (*sorted(entry for entry in CATALOGUE if re.match(r"meta\.\d", entry)),)

    def verdict_on(self, code: int, subcode: int | None) -> object:
        error = {"code": code} | ({} if subcode is None else {"error_subcode": subcode})
        return read(Answer(400, {}, json.dumps({"error": error}).encode()), events=2)

    @pytest.mark.parametrize("entry", KNOWN)
    def test_an_entry_stands_below_what_is_done(self, entry: str) -> None:
        code, *more = map(int, entry.split(".")[1:])
        verdict = self.verdict_on(code, more[0] if more else None)
        assert isinstance(verdict, self.WANTED[CATALOGUE[entry].effect])

    @SETTINGS
    @given(
        code=st.integers(-9, 700)
        | st.sampled_from(sorted(spec.THROTTLE_CODES | spec.TRANSIENT_CODES))
        | st.sampled_from([100, *spec.REQUEST_PATH_CODES, *spec.PERMISSION_CODES]),
        subcode=st.none()
        | st.integers(0, 600)
        | st.sampled_from([*spec.DATASET_SUBCODES, 2804003, 1]),
    )
    def test_so_does_every_code_that_has_the_entry_of_another(
        self, code: int, subcode: int | None
    ) -> None:
        entry = reason(meta_code(code, subcode))
        verdict = self.verdict_on(code, subcode)
        assert isinstance(verdict, self.WANTED[entry.effect])
        assert getattr(verdict, "reason", entry.code) in (entry.code, "answer.unclear")

    def test_every_known_subcode_is_described(self) -> None:
        numbers = {
            value for name, value in vars(Subcode).items() if not name.startswith("_")
        }
        described = {
            int(code.split(".")[2]) for code in CATALOGUE if code[:10] == "meta.100.2"
        }
        assert described == numbers | {
            each for each in spec.DATASET_SUBCODES if each > 99
        }

    @SETTINGS
    @given(code=st.none() | st.integers(), subcode=st.none() | st.integers())
    def test_any_numbers_make_a_code_with_an_entry(
        self, code: int | None, subcode: int | None
    ) -> None:
        made = meta_code(code, subcode)
        assert re.fullmatch(r"meta(\.-?\d+){0,2}", made)
        assert reason(made).code == made
        assert anchor(made) in CATALOGUE

    @SETTINGS
    @given(st.text(max_size=30))
    def test_any_text_has_an_entry(self, text: str) -> None:
        """The ledger outlives the catalogue that wrote it."""
        assert reason(text).code == text
        assert anchor(text) in CATALOGUE


def _below(kind: type[errors.CapiError]) -> set[type[errors.CapiError]]:
    return {kind}.union(*(_below(each) for each in kind.__subclasses__()))
