"""The one table of match keys, the only digests, and what goes on the wire."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from datetime import date, datetime
from decimal import Decimal
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import strategies
from tests.strategies import SETTINGS
from tests.vectors import TODAY, VECTORS, Vector

import meta_capi
from meta_capi import match_keys, spec
from meta_capi.match_keys import KEYS, Context, digest, fragment, names, prehashed, read
from meta_capi.normalise import Flaw, Normalised

PLAIN = Context(today=TODAY)
MARY = hashlib.sha256(b"mary").hexdigest()
JANE = hashlib.sha256(b"jane@example.com").hexdigest()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TestTheTable:
    """Every key of the specification has one line, in the order of the wire."""

    def test_the_keys_are_those_of_the_specification_in_its_order(self) -> None:
        assert tuple(KEYS) == spec.DIGESTED_KEYS + spec.PLAIN_KEYS

    def test_the_bits_of_the_ledger_never_change(self) -> None:
        """Rows of years ago hold these numbers."""
        assert {name: key.bit for name, key in KEYS.items()} == {
            "em": 1, "ph": 2, "fn": 4, "ln": 8, "db": 16, "ge": 32, "ct": 64, "st": 128,
            "zp": 256, "country": 512, "external_id": 1024, "client_ip_address": 2048,
            "client_user_agent": 4096, "fbc": 8192, "fbp": 16384,
            "subscription_id": 32768,
            "fb_login_id": 65536, "lead_id": 131072, "madid": 262144,
        }  # fmt: skip

    def test_a_mask_is_named_by_its_keys(self) -> None:
        assert names(0) == ()
        assert names(KEYS["zp"].bit | KEYS["em"].bit) == ("em", "zp")
        assert names(2**19 - 1) == tuple(KEYS)


class TestTheReference:
    """Our reference, section 3.3: every vector has the digest that Meta matches."""

    @pytest.mark.parametrize(
        "vector", [pytest.param(v, id=f"line {n}") for n, v in enumerate(VECTORS, 1)]
    )
    def test_each_value_goes_out_as_the_digest_of_the_reference(
        self, vector: Vector
    ) -> None:
        sent = read(vector.key, vector.value, vector.context)
        if isinstance(vector.normal_form, str):
            assert sent == (vector.sha256,)
        else:
            assert sent == vector.normal_form


class TestDigest:
    """SHA-256 over UTF-8, lower-case hex, no salt; never of nothing."""

    @SETTINGS
    @given(
        key=st.sampled_from(spec.DIGESTED_KEYS),
        value=strategies.database_values | strategies.names | strategies.emails,
        country=strategies.countries,
    )
    def test_what_is_sent_of_a_digested_key_is_a_digest_and_never_of_nothing(
        self, key: str, value: object, country: str | None
    ) -> None:
        sent = read(key, value, Context(today=TODAY, country=country))
        if isinstance(sent, tuple):
            assert sent
            for text in sent:
                assert re.fullmatch(spec.DIGEST_PATTERN, text)
                assert not text.startswith(spec.EMPTY_STRING_SHA256)
        else:
            assert sent is None or isinstance(sent, Flaw)

    def test_nothing_cannot_be_digested(self) -> None:
        with pytest.raises(ValueError, match="Nothing is left"):
            digest(Normalised(""))

    def test_only_this_module_computes_digests_of_match_keys(self) -> None:
        """`event` digests payloads for the ledger; what digests a person is here."""
        folder = Path(meta_capi.__file__).parent
        makers = {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "Digest"
        }
        assert makers == {"match_keys.py"}


@pytest.mark.matrix("S10")
class TestPrehashed:
    """64 hex characters are a digest already, in any case and with Meta's own tail."""

    @pytest.mark.parametrize("tail", ["", ".AQ", ".Bg", ".AQQCAQMC", ".a_-9AZ09"])
    def test_a_digest_passes_with_its_hex_in_lower_case_and_its_tail_untouched(
        self, tail: str
    ) -> None:
        assert prehashed(f" {MARY.upper()}{tail}\n") == f"{MARY}{tail}"
        assert read("fn", f"{MARY.upper()}{tail}", PLAIN) == (f"{MARY}{tail}",)

    @pytest.mark.parametrize("tail", ["", ".AQ", ".AQQCAQMC"])
    def test_the_digest_of_nothing_is_never_sent(self, tail: str) -> None:
        text = f"{spec.EMPTY_STRING_SHA256.upper()}{tail}"
        assert prehashed(text) is Flaw.HASH_OF_NOTHING
        assert read("em", text, PLAIN) is Flaw.HASH_OF_NOTHING

    def test_md5_is_never_sent(self) -> None:
        md5 = "d41d8cd98f00b204e9800998ecf8427e"
        assert prehashed(md5.upper()) is Flaw.HASH_MD5
        assert read("em", md5, PLAIN) is Flaw.HASH_MD5
        assert read("ph", md5, PLAIN) is Flaw.HASH_MD5

    def test_an_external_id_of_32_hex_characters_is_an_id(self) -> None:
        """A UUID without dashes looks like MD5; a name or an address never does."""
        text = "550e8400e29b41d4a716446655440000"
        assert read("external_id", text, PLAIN) == (sha256(text),)

    @pytest.mark.parametrize(
        "text", ["mary", MARY[:-1], f"{MARY}0", f"{MARY}.XX", f"{MARY}.", "g" * 64]
    )
    def test_anything_else_is_no_digest(self, text: str) -> None:
        assert prehashed(text) is None

    @SETTINGS
    @given(text=strategies.hostile_texts)
    def test_reading_a_digest_again_changes_nothing(self, text: str) -> None:
        sent = read("fn", text, PLAIN)
        if isinstance(sent, tuple):
            assert read("fn", sent[0], PLAIN) == sent


class TestSeveralValues:
    """em, ph and external_id may be lists; a field of any other key holds one value."""

    def test_each_address_is_digested_on_its_own_once_and_in_order(self) -> None:
        sent = read("em", "jo@x.co;b@y.co , JO@x.co|\nc@z.co", PLAIN)
        assert sent == (sha256("jo@x.co"), sha256("b@y.co"), sha256("c@z.co"))

    def test_each_number_is_digested_on_its_own(self) -> None:
        swiss = Context(today=TODAY, phone_country="CH")
        sent = read("ph", "079 123 45 67; +1 650 555 1212", swiss)
        assert sent == (sha256("41791234567"), sha256("16505551212"))

    def test_the_good_values_are_kept(self) -> None:
        assert read("em", "none; jane@example.com; x@y", PLAIN) == (JANE,)
        assert read("em", f"{JANE.upper()}; jane@example.com", PLAIN) == (JANE,)

    def test_without_a_good_value_the_first_flaw_is_told(self) -> None:
        md5 = "d41d8cd98f00b204e9800998ecf8427e"
        assert read("em", f"x@y; {md5}", PLAIN) is Flaw.EM_NOT_AN_ADDRESS

    def test_separators_and_invisible_characters_alone_are_nothing(self) -> None:
        assert read("em", " ; ,|", PLAIN) is None
        assert read("em", "\u200b; \ufeff", PLAIN) is None

    def test_an_external_id_keeps_its_bar_and_comma(self) -> None:
        """ "auth0" alone would be one id for every customer."""
        assert read("external_id", "auth0|507F,1", PLAIN) == (sha256("auth0|507f,1"),)
        assert read("external_id", "a1;b2", PLAIN) == (sha256("a1"), sha256("b2"))

    @pytest.mark.parametrize("key", ["fn", "ln", "ge", "ct", "st", "zp", "country"])
    @pytest.mark.parametrize("separator", [";", "|", "\n", "\r\n"])
    def test_two_values_in_a_field_of_one_are_a_flaw(
        self, key: str, separator: str
    ) -> None:
        assert read(key, f"Mary{separator}Anna", PLAIN) is Flaw.VALUE_SEVERAL

    @pytest.mark.parametrize(
        ("key", "value"),
        [("db", "1990-01-01;1991-01-01"), ("client_ip_address", "8.8.8.8, 1.1.1.1"),
         ("lead_id", "1234567890123456;1234567890123457"),
         ("fbp", "fb.1.1596403881668.1,fb.1.1596403881668.2")],
        ids=["db", "client_ip_address", "lead_id", "fbp"],
    )  # fmt: skip
    def test_two_values_of_a_plain_key_are_a_flaw(self, key: str, value: str) -> None:
        assert read(key, value, PLAIN) is Flaw.VALUE_SEVERAL

    def test_one_value_with_a_separator_at_its_end_is_one_value(self) -> None:
        assert read("fn", "Mary;", PLAIN) == (MARY,)

    def test_a_comma_in_a_name_is_punctuation(self) -> None:
        assert read("fn", "Mary, Anna", PLAIN) == (sha256("maryanna"),)


class TestRead:
    """One value of the database becomes what goes on the wire."""

    def test_a_date_column_needs_no_format(self) -> None:
        swiss = Context(today=TODAY, birthday_format="%d.%m.%Y")
        wanted = (sha256("19970216"),)
        assert read("db", date(1997, 2, 16), swiss) == wanted
        assert read("db", datetime(1997, 2, 16, 12), swiss) == wanted  # noqa: DTZ001
        assert read("db", "16.02.1997", swiss) == wanted

    def test_a_number_that_came_as_a_float_is_the_number(self) -> None:
        wanted = (sha256("16505551212"),)
        for value in (
            16505551212.0,
            16505551212,
            Decimal("16505551212.0"),
            "16505551212.0",
        ):
            assert read("ph", value, PLAIN) == wanted

    def test_the_country_of_the_row_goes_before_the_feeds(self) -> None:
        context = Context(today=TODAY, country="ch", phone_country="US")
        assert read("ph", "079 123 45 67", context) == (sha256("41791234567"),)

    def test_a_raw_external_id_is_neither_digested_nor_touched(self) -> None:
        raw = Context(today=TODAY, external_id_mode="raw")
        for text in (" User|42;x ", MARY.upper(), "d41d8cd98f00b204e9800998ecf8427e"):
            assert read("external_id", text, raw) == (text,)
        assert read("external_id", "a" * 513, raw) is Flaw.EXTERNAL_ID_TOO_LONG

    def test_a_trimmed_external_id_keeps_its_case(self) -> None:
        trimmed = Context(today=TODAY, external_id_mode="trimmed")
        assert read("external_id", " User 42 ", trimmed) == (sha256("User 42"),)

    def test_a_lead_id_keeps_every_digit(self) -> None:
        assert read("lead_id", 1234567890123456, PLAIN) == ("1234567890123456",)
        assert read("lead_id", 12345678901234567, PLAIN) == ("12345678901234567",)
        assert read("lead_id", 12345678901234567.0, PLAIN) is Flaw.VALUE_DAMAGED
        assert read("lead_id", "1.23457E+15", PLAIN) is Flaw.VALUE_DAMAGED
        assert read("lead_id", "1234567890123456.0", PLAIN) is Flaw.LEAD_ID_DAMAGED

    @pytest.mark.parametrize("key", KEYS)
    @pytest.mark.parametrize("nothing", [None, "", "  ", "NULL", "N/A", float("nan")])
    def test_nothing_is_nothing_in_every_key(self, key: str, nothing: object) -> None:
        assert read(key, nothing, PLAIN) is None

    @pytest.mark.parametrize("key", KEYS)
    def test_ten_million_characters_are_a_flaw(self, key: str) -> None:
        assert read(key, "a" * 10_000_000, PLAIN) is Flaw.VALUE_TEXT_UNREADABLE

    @SETTINGS
    @given(key=strategies.match_keys, value=strategies.database_values)
    def test_the_same_value_is_read_the_same_way_again(
        self, key: str, value: object
    ) -> None:
        assert read(key, value, PLAIN) == read(key, value, PLAIN)


class TestFragment:
    """The member of user_data, as the JSON text that is sent."""

    def test_digests_are_a_list(self) -> None:
        assert fragment("em", (JANE,)) == f'"em":["{JANE}"]'
        assert fragment("ph", (JANE, MARY)) == f'"ph":["{JANE}","{MARY}"]'

    def test_ids_that_meta_wants_as_numbers_are_numbers(self) -> None:
        assert (
            fragment("lead_id", ("1234567890123456",)) == '"lead_id":1234567890123456'
        )

    def test_text_is_escaped_and_stays_utf_8(self) -> None:
        assert (
            fragment("client_user_agent", ('a"\\ü',))
            == '"client_user_agent":"a\\"\\\\ü"'
        )

    @SETTINGS
    @given(
        key=strategies.match_keys,
        value=strategies.database_values,
        mode=st.sampled_from(["normalised", "trimmed", "raw"]),
    )
    def test_a_fragment_is_valid_json_of_the_same_values(
        self, key: str, value: object, mode: str
    ) -> None:
        sent = read(key, value, Context(today=TODAY, external_id_mode=mode))  # type: ignore[arg-type]
        if isinstance(sent, tuple):
            (name, member), *rest = json.loads(f"{{{fragment(key, sent)}}}").items()
            assert (name, rest) == (key, [])
            if KEYS[key].takes_list:
                assert member == list(sent)
            else:
                assert [str(member)] == list(sent)
            assert isinstance(member, int) == KEYS[key].is_integer


class TestTooBroad:
    """Best practices, since Graph v13: keys inside one of four sets are too broad."""

    @pytest.mark.parametrize(
        ("keys", "broad"),
        [
            ("ge ct st country", True), ("client_user_agent", True),
            ("db client_user_agent", True), ("fn ge", True), ("ln ge", True),
            ("fn", True),
            ("fn ln", False), ("client_user_agent client_ip_address", False),
            ("external_id", False), ("db zp", False), ("em ge", False),
            ("lead_id", False),
        ],
    )  # fmt: skip
    def test_meta_s_own_examples(self, keys: str, broad: bool) -> None:
        mask = sum(KEYS[key].bit for key in keys.split())
        assert match_keys.too_broad(mask) is broad

    def test_every_pair_is_judged_as_the_sets_say(self) -> None:
        for pair in combinations(KEYS, 2):
            mask = sum(KEYS[key].bit for key in pair)
            inside = any(set(pair) <= broad for broad in spec.TOO_BROAD_KEY_SETS)
            assert match_keys.too_broad(mask) is inside

    @SETTINGS
    @given(mask=strategies.masks)
    def test_a_mask_is_judged_as_the_sets_say(self, mask: int) -> None:
        inside = any(set(names(mask)) <= broad for broad in spec.TOO_BROAD_KEY_SETS)
        assert match_keys.too_broad(mask) is inside
