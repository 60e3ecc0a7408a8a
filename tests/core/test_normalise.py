"""A customer's words in Meta's normal form: one class for each rule of `normalise`."""

from __future__ import annotations

import math
import unicodedata
import uuid
from collections.abc import Callable
from datetime import date, datetime, tzinfo
from decimal import Decimal
from ipaddress import ip_address

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests import strategies
from tests.strategies import SETTINGS
from tests.vectors import TODAY, VECTORS, Vector

from meta_capi import normalise
from meta_capi.catalogue import REASONS, Effect
from meta_capi.match_keys import KEYS
from meta_capi.normalise import Flaw, phones, text_of

SENDABLE = {
    "em": normalise.email,
    "fn": normalise.name,
    "ge": normalise.gender,
    "ct": normalise.city,
    "country": normalise.country,
    "st": lambda text: normalise.state(text, None),
    "zp": lambda text: normalise.postcode(text, None),
    "db": lambda text: normalise.birthday(text, None, TODAY),
    "external_id": lambda text: normalise.external_id(text, "normalised"),
    "trimmed external_id": lambda text: normalise.external_id(text, "trimmed"),
    "raw external_id": lambda text: normalise.external_id(text, "raw"),
    "client_ip_address": normalise.ip_address,
    "client_user_agent": normalise.user_agent,
    "fbc": normalise.click_id,
    "fbp": normalise.browser_id,
    "lead_id": normalise.lead_id,
    "fb_login_id": normalise.fb_login_id,
    "madid": normalise.madid,
    "subscription_id": normalise.subscription_id,
}  # fmt: skip
rules = pytest.mark.parametrize("rule", SENDABLE.values(), ids=SENDABLE)


def table(names: str, *cases: tuple[object, ...]) -> pytest.MarkDecorator:
    """Name cases by their place: a test's name shows nobody's data."""
    return pytest.mark.parametrize(
        names, [pytest.param(*case, id=f"line {n}") for n, case in enumerate(cases, 1)]
    )


class TestTheReference:
    """Our reference of Meta's match keys, section 3.3: every vector holds."""

    @table("vector", *((vector,) for vector in VECTORS))
    def test_each_value_has_the_normal_form_of_the_reference(
        self, vector: Vector
    ) -> None:
        rule = KEYS[vector.key].rule
        assert rule(vector.value, vector.context) == vector.normal_form


class TestEveryRule:
    """What holds for all normalisers."""

    @rules
    @SETTINGS
    @given(text=strategies.hostile_texts | strategies.names | strategies.emails)
    def test_normalising_twice_changes_nothing(
        self, rule: Callable[[str], object], text: str
    ) -> None:
        once = rule(text)
        if isinstance(once, str):
            assert rule(once) == once

    @rules
    @SETTINGS
    @given(text=strategies.hostile_texts)
    @example(text="\ud800")
    @example(text="\x00")
    @example(text="-\u0301")
    def test_any_text_gives_a_text_a_flaw_or_nothing_and_never_an_empty_text(
        self, rule: Callable[[str], object], text: str
    ) -> None:
        result = rule(text)
        assert (
            result is None
            or isinstance(result, Flaw)
            or (result and isinstance(result, str))
        )

    @pytest.mark.matrix("S1")
    @rules
    def test_ten_million_characters_are_judged_without_an_error(
        self, rule: Callable[[str], object]
    ) -> None:
        result = rule("a1 " * 3_333_334)
        assert isinstance(result, str | Flaw)

    @rules
    @pytest.mark.parametrize("nothing", ["", " ", "\t\r\n \u00a0"])
    def test_white_space_alone_is_nothing(
        self, rule: Callable[[str], object], nothing: str
    ) -> None:
        assert rule(nothing) is None

    @pytest.mark.matrix("S3")
    @SETTINGS
    @given(text=strategies.decomposable)
    def test_composed_and_decomposed_spelling_meet(self, text: str) -> None:
        other = strategies.decomposed(text)
        assert normalise.name(text) == normalise.name(other)
        assert normalise.city(text) == normalise.city(other)
        assert normalise.email(f"{text}@x.com") == normalise.email(f"{other}@x.com")

    @SETTINGS
    @given(text=strategies.names)
    def test_what_is_digested_is_in_nfc(self, text: str) -> None:
        for rule in (normalise.name, normalise.city, normalise.email):
            if isinstance(form := rule(text), str):
                assert unicodedata.is_normalized("NFC", form)


class TestFlaws:
    """A flaw is a reason of the catalogue."""

    @pytest.mark.parametrize("flaw", Flaw)
    def test_each_flaw_stands_in_the_catalogue(self, flaw: Flaw) -> None:
        assert REASONS[flaw.value].effect in (Effect.KEY_DROPPED, Effect.QUARANTINED)

    def test_each_reason_for_dropping_a_key_is_a_flaw(self) -> None:
        dropped = {
            code
            for code, reason in REASONS.items()
            if reason.effect is Effect.KEY_DROPPED
        }
        assert dropped - {flaw.value for flaw in Flaw} == {"ldu.state_unknown"}


class TestEmail:
    """em: trim, lower-case; one @, a dotted domain, no space inside."""

    @table(
        "raw, form",
        ("  John_Smith@gmail.com \n", "john_smith@gmail.com"),
        ("a@b.co.uk", "a@b.co.uk"),
        ("jané@example.com", "jané@example.com"),
        ("\ufeffjane@example.com\u200b", "jane@example.com"),
        ("john smith@gmail.com", Flaw.EM_NOT_AN_ADDRESS),
        ("not-an-email", Flaw.EM_NOT_AN_ADDRESS),
        ("a@b@c.com", Flaw.EM_NOT_AN_ADDRESS),
        ("@example.com", Flaw.EM_NOT_AN_ADDRESS),
        ("jane@.com", Flaw.EM_NOT_AN_ADDRESS),
        ("jane@example.com.", Flaw.EM_NOT_AN_ADDRESS),
        ("jane@example..com", Flaw.EM_NOT_AN_ADDRESS),
        ("ja\x00ne@example.com", Flaw.EM_NOT_AN_ADDRESS),
        ("jane\n@example.com", Flaw.EM_NOT_AN_ADDRESS),
    )
    def test_an_address_or_nothing_is_sent(self, raw: str, form: object) -> None:
        assert normalise.email(raw) == form

    @SETTINGS
    @given(text=strategies.emails)
    def test_case_and_outer_space_make_no_difference(self, text: str) -> None:
        form = normalise.email(text)
        assert isinstance(form, str)
        assert normalise.email(f" {text.swapcase()}\t") == form


@pytest.mark.matrix("S13")
class TestPhone:
    """ph: digits only, country calling code first, never guessed."""

    @table(
        "raw, country, form",
        # The bake-off: what other senders get wrong.
        ("+1 (650) 555-1212", None, "16505551212"),
        ("(650)555-1212", "us", "16505551212"),
        ("(650)555-1212", None, Flaw.PH_NO_COUNTRY_CODE),
        ("0044 20 7946 0958", None, "442079460958"),
        ("+44 (0)20 7946 0958", None, "442079460958"),
        ("650.555.1212 ext 9", "us", "16505551212"),
        ("16505551212.0", None, "16505551212"),
        ("+1 650 555 1212 ext 5", None, "16505551212"),
        ("+1 650 555 1212x5", None, "16505551212"),
        ("+1 650 555 1212 #5", None, "16505551212"),
        ("+1 650 555 1212;ext=5", None, "16505551212"),
        # Trunk zeros: stripped where they are for callers inside the country only.
        ("079 123 45 67", "ch", "41791234567"),
        ("(0)79 123 45 67", "ch", "41791234567"),
        ("+41 (0)79 123 45 67", None, "41791234567"),
        ("+0041 79 123 45 67", None, "41791234567"),
        ("06 12345678", "it", "390612345678"),
        ("+39 (0)6 12345678", None, "390612345678"),
        ("8 (916) 123-45-67", "ru", "79161234567"),
        ("06328236", "rw", "25006328236"),
        # Other scripts' digits and signs.
        ("＋１ ６５０ ５５５ １２１２", None, "16505551212"),
        ("+١٦٥٠٥٥٥١٢١٢", None, "16505551212"),
        # With the code of its own or another country, but no plus.
        ("41791234567", "ch", "41791234567"),
        ("447911123456", "us", "447911123456"),
        ("13012345678", "cn", "8613012345678"),
        # Words around the number.
        ("fax +41791234567", None, "41791234567"),
        ("p:+16505551212", None, "16505551212"),
        ("079 123 45 67", None, Flaw.PH_NO_COUNTRY_CODE),
        ("079 123 45 67", "aq", Flaw.PH_NO_COUNTRY_CODE),
        ("6505551212", None, Flaw.PH_NO_COUNTRY_CODE),
        ("12345", None, Flaw.PH_NOT_A_NUMBER),
        ("12345", "us", Flaw.PH_NOT_A_NUMBER),
        ("555-1212", "us", Flaw.PH_NOT_A_NUMBER),
        ("+999 123 4567 890", None, Flaw.PH_NOT_A_NUMBER),
        ("+4179123456741781234567", None, Flaw.PH_NOT_A_NUMBER),
        ("1-800-FLOWERS", "us", Flaw.PH_NOT_A_NUMBER),
        ("+", None, Flaw.PH_NOT_A_NUMBER),
        ("000", None, Flaw.PH_NOT_A_NUMBER),
    )  # fmt: skip
    def test_a_number_with_its_country_or_nothing_is_sent(
        self, raw: str, country: str | None, form: object
    ) -> None:
        assert normalise.phone(raw, country) == form

    @SETTINGS
    @given(number=strategies.phone_numbers())
    def test_the_quick_way_gives_what_the_library_gives(
        self, number: tuple[str, str | None]
    ) -> None:
        assert phones.international(*number) == phones.by_library(*number)

    @SETTINGS
    @given(number=strategies.phone_numbers())
    def test_an_international_number_is_the_same_in_every_country(
        self, number: tuple[str, str | None]
    ) -> None:
        """Without its plus,
        +65 8123 4567 in the United States would be +1 658 123 4567:
        so the plus is put back before the number is read a second time.
        """
        form = normalise.phone(*number)
        if isinstance(form, str):
            assert form.isascii()
            assert form.isdigit()
            assert form[0] != "0"
            assert 7 <= len(form) <= 15
            for country in (None, "us", "it"):
                assert normalise.phone(f"+{form}", country) == form

    @SETTINGS
    @given(text=strategies.hostile_texts, country=strategies.countries)
    def test_any_text_gives_digits_a_flaw_or_nothing(
        self, text: str, country: str | None
    ) -> None:
        form = normalise.phone(text, country)
        assert form is None or isinstance(form, Flaw) or form.isdigit()

    def test_ten_million_digits_are_no_number(self) -> None:
        assert normalise.phone("1" * 10_000_000, "us") is Flaw.PH_NOT_A_NUMBER
        assert normalise.phone("(0)" * 300_000, "us") is Flaw.PH_NOT_A_NUMBER


class TestName:
    """fn, ln: lower-case, no punctuation, no spaces; other scripts as they are."""

    @table(
        "raw, form",
        ("O'Brien", "obrien"),
        ("O’Brien", "obrien"),
        ("O`Brien", "obrien"),
        ("O´Brien", "obrien"),
        ("Mary-Jane", "maryjane"),
        ("Mary Jane", "maryjane"),
        ("J.R.", "jr"),
        ("Марʼяна", "маряна"),
        ("Мар'яна", "маряна"),
        ("ΟΔΟΣ", "οδος"),
        ("WEIẞ", "weiß"),
        ("\ufeffMary\u200d", "mary"),
        ("佐藤", "佐藤"),
        ("नीता", "नीता"),
        ("'); DROP TABLE users;--", "droptableusers"),
        ("{{ 7*7 }}", "77"),
        ("--", Flaw.NAME_NOTHING_LEFT),
        ("👍", Flaw.NAME_NOTHING_LEFT),
    )
    def test_spellings_of_one_name_meet(self, raw: str, form: object) -> None:
        assert normalise.name(raw) == form

    @pytest.mark.matrix("S3")
    def test_hangul_composed_and_in_parts_is_one_name(self) -> None:
        assert normalise.name("\u110c\u1165\u11bc") == normalise.name("정") == "정"


class TestBirthday:
    """db: YYYYMMDD, a real day between 1900 and today, format never guessed."""

    @table(
        "raw, format, form",
        ("1983-12-24", None, "19831224"),
        ("12/24/1983", "%m/%d/%Y", "19831224"),
        ("1983-12-24 00:00:00", None, "19831224"),
        ("1983-12-24T00:00:00+02:00", None, "19831224"),
        ("24. 12. 1983", "%d. %m. %Y", "19831224"),
        ("2000-02-29", None, "20000229"),
        ("2026-11-20", None, "20261120"),
        ("1900-01-01", None, "19000101"),
        ("03/04/1990", None, Flaw.DB_UNREADABLE),
        ("12/24/1983", None, Flaw.DB_UNREADABLE),
        ("1983-12-24", "%d.%m.%Y", Flaw.DB_UNREADABLE),
        ("99999999", None, Flaw.DB_UNREADABLE),
        ("1900-02-29", None, Flaw.DB_UNREADABLE),
        ("00000000", None, Flaw.DB_UNREADABLE),
        ("24.12.1983", "%Q", Flaw.DB_UNREADABLE),
        ("2026-11-21", None, Flaw.DB_OUT_OF_RANGE),
        ("1899-12-31", None, Flaw.DB_OUT_OF_RANGE),
        ("9999-12-31", None, Flaw.DB_OUT_OF_RANGE),
    )
    def test_a_real_day_or_nothing_is_sent(
        self,
        raw: str,
        format: str | None,  # noqa: A002 - the feed's own word
        form: object,
    ) -> None:
        assert normalise.birthday(raw, format, TODAY) == form

    @SETTINGS
    @given(day=st.dates(date(1900, 1, 1), TODAY))
    def test_a_day_is_the_same_in_every_declared_format(self, day: date) -> None:
        forms = {
            normalise.birthday(f"{day:{format_}}", declared, TODAY)
            for format_, declared in (
                ("%Y-%m-%d", None), ("%Y%m%d", None), ("%d.%m.%Y", "%d.%m.%Y"),
                ("%m/%d/%Y", "%m/%d/%Y"),
            )
        }  # fmt: skip
        assert forms == {f"{day:%Y%m%d}"}


class TestGender:
    """ge: f or m; anything else is left out."""

    @table(
        "raw, form",
        ("M", "m"), (" Female ", "f"), ("Mrs.", "f"), ("männlich", "m"),
        ("x", Flaw.GE_UNKNOWN), ("1", Flaw.GE_UNKNOWN), ("divers", Flaw.GE_UNKNOWN),
        ("unknown", Flaw.GE_UNKNOWN), ("-", Flaw.GE_UNKNOWN),
    )  # fmt: skip
    def test_two_letters_are_all_that_is_sent(self, raw: str, form: object) -> None:
        assert normalise.gender(raw) == form


class TestCity:
    """ct: lower-case, no punctuation, no special characters, no spaces."""

    @table(
        "raw, form",
        ("San Francisco", "sanfrancisco"),
        ("St. Louis", "stlouis"),
        ("München", "münchen"),
        ("Paris 15", "paris"),
        ("Saint-Étienne", "saintétienne"),
        ("東京", "東京"),
        ("दिल्ली", "दिल्ली"),
        ("12345", Flaw.CT_NOTHING_LEFT),
        ("🏙️", Flaw.CT_NOTHING_LEFT),
    )
    def test_letters_of_every_script_stay(self, raw: str, form: object) -> None:
        assert normalise.city(raw) == form


class TestState:
    """st: the two-letter code in the United States; elsewhere the letters."""

    @table(
        "raw, country, form",
        ("California", "us", "ca"),
        ("California", None, "ca"),
        ("New York", "US", "ny"),
        ("CA", "us", "ca"),
        ("D.C.", "us", "dc"),
        ("District of Columbia", None, "dc"),
        ("Ontario", "ca", "on"),
        ("Ontario", None, "on"),
        ("Québec", "ca", "qc"),
        ("NSW", "au", "nsw"),
        ("New South Wales", "au", "newsouthwales"),
        ("Bayern", "de", "bayern"),
        ("Georgia", "ge", "georgia"),
        ("Ontario", "us", "ontario"),
        ("75", "fr", Flaw.ST_NOTHING_LEFT),
    )
    def test_codes_where_meta_has_codes(
        self, raw: str, country: str | None, form: object
    ) -> None:
        assert normalise.state(raw, country) == form


class TestPostcode:
    """zp: lower-case, no spaces, no dash; five digits in the United States."""

    @table(
        "raw, country, form",
        ("94025-1234", None, "94025"),
        ("94025-1234", "us", "94025"),
        ("94025 1234", "us", "94025"),
        ("94025–1234", None, "94025"),
        ("94025.0", "us", "94025"),
        ("SW1A 1AA", "gb", "sw1a1aa"),
        ("100-0001", "jp", "100"),
        (" 75018 ", "fr", "75018"),
        ("7", None, Flaw.ZP_TOO_SHORT),
        ("2134", "us", Flaw.ZP_TOO_SHORT),
        ("SW1A 1AA", "us", Flaw.ZP_TOO_SHORT),
        ("-", None, Flaw.ZP_TOO_SHORT),
    )
    def test_the_published_form_is_sent(
        self, raw: str, country: str | None, form: object
    ) -> None:
        assert normalise.postcode(raw, country) == form


class TestCountry:
    """country: ISO 3166-1 alpha-2 in lower case."""

    @table(
        "raw, form",
        ("USA", "us"), ("U.S.A.", "us"), ("United States of America", "us"),
        ("UK", "gb"),
        ("Great Britain", "gb"), ("DEU", "de"), ("Cote d’Ivoire", "ci"),
        ("Côte d'Ivoire", "ci"), ("Bosnia & Herzegovina", "ba"), ("TÜRKIYE", "tr"),
        ("Korea, Republic of", "kr"), ("NA", "na"),
        ("Österreich", Flaw.COUNTRY_UNKNOWN),
        ("XX", Flaw.COUNTRY_UNKNOWN), ("840", Flaw.COUNTRY_UNKNOWN),
    )  # fmt: skip
    def test_codes_and_english_names_are_known(self, raw: str, form: object) -> None:
        assert normalise.country(raw) == form

    def test_every_region_with_telephones_but_three_is_a_country(self) -> None:
        """Ascension,
        Tristan da Cunha and Kosovo have numbers and no code of ISO 3166."""
        unknown = {
            region
            for region in phonenumbers.SUPPORTED_REGIONS
            if normalise.country(region) != region.lower()
        }
        assert unknown == {"AC", "TA", "XK"}


class TestExternalId:
    """external_id: byte for byte what the Pixel sends, by one of three modes."""

    @table(
        "mode, form",
        ("normalised", "user_12"), ("trimmed", "User_12"), ("raw", " User_12 "),
    )  # fmt: skip
    def test_each_mode_keeps_what_it_says(
        self, mode: normalise.ExternalIdMode, form: str
    ) -> None:
        assert normalise.external_id(" User_12 ", mode) == form

    def test_512_characters_are_taken_and_513_are_not(self) -> None:
        assert normalise.external_id("a" * 512, "normalised") == "a" * 512
        assert normalise.external_id("a" * 513, "trimmed") is Flaw.EXTERNAL_ID_TOO_LONG


class TestPlainKeys:
    """Keys that are never digested are checked and go out as they are."""

    @table(
        "raw, form",
        ("168.212.226.204", "168.212.226.204"),
        (
            "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
            "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        ),
        ("8.8.8.8.AQQAAQMC", "8.8.8.8.AQQAAQMC"),
        ("8.8.8.8.Ag", "8.8.8.8.Ag"),
        ("::ffff:8.8.8.8", "::ffff:8.8.8.8"),
        *(
            (refused, Flaw.IP_NOT_PUBLIC)
            for refused in (
                "10.0.0.1", "127.0.0.1", "169.254.1.1", "192.168.1.1", "100.64.0.1",
                "0.0.0.0", "224.0.0.1", "::", "::1", "fe80::1", "fe80::1%eth0",
                "fd00::1",
                "::ffff:10.0.0.1", "10.0.0.1.AQQAAQMC", "1.2.3.4:443",
                "256.256.256.256",
                "1.2.3.4 5.6.7.8", "1.2.3.4/24", "8.8.8.08", "localhost",
            )
        ),
    )  # fmt: skip
    def test_an_address_of_the_public_internet_is_sent(
        self, raw: str, form: object
    ) -> None:
        assert normalise.ip_address(raw) == form

    def test_a_user_agent_is_not_touched_inside(self) -> None:
        agent = "Mozilla/5.0 (X11; Linux  x86_64) | Ünï"
        assert normalise.user_agent(f" {agent} ") == agent
        assert normalise.user_agent("a\nb") is Flaw.USER_AGENT_UNREADABLE

    @table(
        "raw, form",
        ("1234567890123456", "1234567890123456"),
        (" 123456789012345 ", "123456789012345"),
        ("12345678901234567", "12345678901234567"),
        *(
            (damaged, Flaw.LEAD_ID_DAMAGED)
            for damaged in (
                "12345678901234", "123456789012345678", "1234567890123456.0",
                "1.23457E+15",
                "1.2345678901234e15", "0123456789012345", "١٢٣٤٥٦٧٨٩٠١٢٣٤٥٦",
                "l:1234567890123456",
            )
        ),
    )  # fmt: skip
    def test_a_lead_id_is_whole_or_is_not_sent(self, raw: str, form: object) -> None:
        assert normalise.lead_id(raw) == form

    @table(
        "raw, form",
        ("10158000000000000", "10158000000000000"), ("7", "7"),
        ("007", Flaw.FB_LOGIN_ID_NOT_DIGITS), ("1.5", Flaw.FB_LOGIN_ID_NOT_DIGITS),
        ("٧", Flaw.FB_LOGIN_ID_NOT_DIGITS), ("9" * 20, Flaw.FB_LOGIN_ID_NOT_DIGITS),
    )  # fmt: skip
    def test_a_login_id_is_a_whole_number(self, raw: str, form: object) -> None:
        assert normalise.fb_login_id(raw) == form

    @table(
        "raw, form",
        (
            "38400000-8cf0-11bd-b23e-10b96e40000d",
            "38400000-8cf0-11bd-b23e-10b96e40000d",
        ),
        (
            "38400000-8CF0-11BD-B23E-10B96E40000D",
            "38400000-8cf0-11bd-b23e-10b96e40000d",
        ),
        ("00000000-0000-0000-0000-000000000000", Flaw.MADID_NOT_A_UUID),
        ("384000008cf011bdb23e10b96e40000d", Flaw.MADID_NOT_A_UUID),
        ("x", Flaw.MADID_NOT_A_UUID),
    )
    def test_an_advertising_id_is_a_uuid(self, raw: str, form: object) -> None:
        assert normalise.madid(raw) == form

    @table(
        "cookie",
        ("fb.1.1554763741205.AbCdEfGhIjKlMnOpQrStUvWxYz1234567890",),
        ("fb.1.1700000000000.AbC-123_x",),
        ("fb.2.1700000000000.AbC-123_x",),
        ("fb.1.1700000000000.AbC-123_x.AQQCAQMC",),
        ("fb.1.1700000000000.AbC-123_x.Ag",),
    )
    def test_a_click_cookie_is_sent_as_it_is(self, cookie: str) -> None:
        assert normalise.click_id(f" {cookie} ") == cookie

    @table(
        "text",
        ("AbC-123_x",), ("fb.1.1700000000.AbC-123_x",), ("fb.1.1700000000000.",),
        ("xx.yy.zz.ww",), ("FB.1.1700000000000.AbC",), ("fb.1.1700000000000.a b",),
    )  # fmt: skip
    def test_what_is_no_click_cookie_is_not_sent(self, text: str) -> None:
        assert normalise.click_id(text) is Flaw.FBC_MALFORMED

    @table(
        "raw, form",
        ("fb.1.1596403881668.1116446470", "fb.1.1596403881668.1116446470"),
        (
            "fb.1.1596403881668.1116446470.AQIAAQMC",
            "fb.1.1596403881668.1116446470.AQIAAQMC",
        ),
        ("fb.1.1596403881668.AbC", Flaw.FBP_MALFORMED),
        ("1116446470", Flaw.FBP_MALFORMED),
    )
    def test_a_browser_cookie_is_sent_as_it_is(self, raw: str, form: object) -> None:
        assert normalise.browser_id(raw) == form


class TestTextOf:
    """What a database gives becomes text without loss, or is a flaw, or is nothing."""

    @table(
        "value, text",
        ("  Mary ", "  Mary "),
        ("1e5", "1e5"),
        ("007", "007"),
        ("NA", "NA"),
        ("Null", "Null"),
        ("Nan", "Nan"),
        (True, "true"),
        (2**63, "9223372036854775808"),
        (-5, "-5"),
        (16505551212.0, "16505551212"),
        (-0.0, "0"),
        (2.5, "2.5"),
        (float(2**53 - 1), "9007199254740991"),
        (Decimal("16505551212.00"), "16505551212"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1.50"), "1.5"),
        (Decimal("123456789012345678901234567890"), "123456789012345678901234567890"),
        (date(1997, 2, 16), "1997-02-16"),
        (datetime(1997, 2, 16, 1, 2, 3), "1997-02-16T01:02:03"),  # noqa: DTZ001
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (ip_address("8.8.8.8"), "8.8.8.8"),
        ("Zürich".encode(), "Zürich"),
        (memoryview(b"Bern"), "Bern"),
    )
    def test_values_keep_what_they_say(self, value: object, text: str) -> None:
        assert text_of(value) == text

    @pytest.mark.parametrize(
        "nothing",
        [None, math.nan, Decimal("NaN"), Decimal("sNaN"), "", " ", b"", "null", "NULL",
         "None", "nan", "NaN", "N/A", "n/a", " NULL ", "\\N", "<NA>", "undefined"],
    )  # fmt: skip
    def test_what_stands_for_nothing_is_nothing(self, nothing: object) -> None:
        assert text_of(nothing) is None

    @pytest.mark.matrix("S5")
    @table(
        "value, flaw",
        (float(2**53), Flaw.VALUE_DAMAGED),
        (1.2345678901234567e16, Flaw.VALUE_DAMAGED),
        (1e-7, Flaw.VALUE_DAMAGED),
        (math.inf, Flaw.VALUE_DAMAGED),
        ("1.23457E+15", Flaw.VALUE_DAMAGED),
        ("1,23457E+15", Flaw.VALUE_DAMAGED),
        ("a\x00b", Flaw.VALUE_TEXT_UNREADABLE),
        ("\ud800", Flaw.VALUE_TEXT_UNREADABLE),
        (b"\xff", Flaw.VALUE_TEXT_UNREADABLE),
        ("a" * 2_001, Flaw.VALUE_TEXT_UNREADABLE),
        (Decimal("Infinity"), Flaw.VALUE_TEXT_UNREADABLE),
        (Decimal("1E+1000000"), Flaw.VALUE_TEXT_UNREADABLE),
        (Decimal(f"0.{'1' * 3_000}"), Flaw.VALUE_TEXT_UNREADABLE),
        (10**5_000, Flaw.VALUE_TEXT_UNREADABLE),
        (["a"], Flaw.VALUE_TEXT_UNREADABLE),
        (object(), Flaw.VALUE_TEXT_UNREADABLE),
    )
    def test_damage_is_seen(self, value: object, flaw: Flaw) -> None:
        assert text_of(value) is flaw

    @SETTINGS
    @given(value=strategies.database_values)
    def test_any_value_gives_a_sendable_text_a_flaw_or_nothing(
        self, value: object
    ) -> None:
        text = text_of(value)
        if isinstance(text, str):
            assert text.strip()
            assert "\x00" not in text
            assert len(text.encode()) <= 4 * 2_000
        else:
            assert text is None or isinstance(text, Flaw)

    @SETTINGS
    @given(
        moment=st.datetimes(timezones=st.timezones()),
        zone=st.timezones(),
    )
    def test_a_moment_is_one_text_in_every_zone(
        self, moment: datetime, zone: tzinfo
    ) -> None:
        try:
            elsewhere = moment.astimezone(zone)
        except OverflowError:  # a day from the year 1 or 9999
            elsewhere = moment
        assert text_of(elsewhere) == text_of(moment)

    @SETTINGS
    @given(number=st.integers(min_value=-(2**53) + 1, max_value=2**53 - 1))
    def test_a_whole_number_is_one_text_from_every_type(self, number: int) -> None:
        assert (
            text_of(number)
            == text_of(float(number))
            == text_of(Decimal(number))
            == str(number)
        )
