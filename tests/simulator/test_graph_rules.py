"""Meta's rules for events, by the sections of our reference that tell them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulator.simulator_client import (
    EVENT_TIME,
    NOW,
    crm_stage,
    digest,
    offline_purchase,
    purchases,
    website_view,
    without,
)

from graph_simulator import Profile, Switches
from graph_simulator.match_keys import digests_are_sound
from graph_simulator.refusals import Refusal
from graph_simulator.rules import body_refusal, dataset_of, place_of
from meta_capi import spec

DAY = 86_400
DOCUMENTED = Switches()
OBSERVED = Switches(profile=Profile.OBSERVED)


def judge(
    *events: Any,
    switches: Switches = DOCUMENTED,
    notes: Counter[str] | None = None,
    **members: Any,
) -> Refusal | None:
    notes = Counter() if notes is None else notes
    return body_refusal({"data": list(events), **members}, NOW, switches, notes)


def verdict(*events: Any, switches: Switches = DOCUMENTED, **members: Any) -> object:
    """Return None for a batch that is taken, else (code, subcode)."""
    refusal = judge(*events, switches=switches, **members)
    return refusal and (refusal.code, refusal.subcode)


PARAMETER = (100, 2804019)


class TestGoldenPayloads:
    """Section 16."""

    @pytest.mark.parametrize("switches", [DOCUMENTED, OBSERVED])
    @pytest.mark.parametrize("make", [offline_purchase, crm_stage, website_view])
    def test_the_golden_events_are_taken(
        self, make: Callable[[], dict[str, Any]], switches: Switches
    ) -> None:
        assert verdict(make(), switches=switches) is None

    def test_the_guides_null_members_and_numeric_texts_are_taken(self) -> None:
        event = offline_purchase(event_time=str(EVENT_TIME))
        event["user_data"]["ge"] = None
        event["custom_data"]["value"] = "142.52"
        assert verdict(event) is None

    def test_a_golden_event_raises_no_eyebrow(self) -> None:
        notes: Counter[str] = Counter()
        assert judge(offline_purchase(), crm_stage(), notes=notes) is None
        assert not notes


class TestShape:
    """Section 10.7, step 6: the first thing wrong decides."""

    @pytest.mark.parametrize("event", ["x", 3, None, []])
    def test_an_event_is_an_object(self, event: object) -> None:
        assert verdict(event) == PARAMETER

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("event_name", ""),
            ("event_name", "  "),
            ("event_name", 7),
            ("event_time", None),
            ("event_time", True),
            ("event_time", 1795200000.5),
            ("event_time", "yesterday"),
            ("event_time", "9" * 30),
            ("action_source", "shop"),
            ("action_source", ["website"]),
            ("action_source", None),
            ("user_data", None),
            ("user_data", []),
            ("custom_data", "x"),
            ("event_id", 7),
            ("opt_out", "yes"),
            ("referrer_url", 3),
            ("original_event_data", "x"),
            ("customer_segmentation", "regular"),
        ],
    )
    def test_a_mistyped_member_is_refused(self, key: str, value: object) -> None:
        assert verdict(offline_purchase(**{key: value})) == PARAMETER

    @pytest.mark.parametrize("key", ["event_name", "event_time", "user_data"])
    def test_a_missing_member_is_refused(self, key: str) -> None:
        assert verdict(without(offline_purchase(), key)) == PARAMETER

    def test_live_an_event_may_have_no_action_source(self) -> None:
        event = without(crm_stage(), "action_source")
        assert verdict(event) == PARAMETER
        assert verdict(event, switches=OBSERVED) is None

    def test_the_refusal_leads_to_the_first_wrong_event(self) -> None:
        batch = purchases(5)
        batch[3]["user_data"]["em"] = ["mary.obrien@example.com"]
        batch[4]["event_time"] = 1
        refusal = judge(*batch)
        assert refusal is not None
        assert refusal.path == ("data", 3, "user_data", "em")

    def test_an_unknown_member_is_noted_and_taken(self) -> None:
        notes: Counter[str] = Counter()
        assert judge(offline_purchase(colour="red"), notes=notes) is None
        assert notes == {"unknown event parameter": 1}

    def test_a_missing_event_id_is_noted_and_taken(self) -> None:
        notes: Counter[str] = Counter()
        assert judge(without(offline_purchase(), "event_id"), notes=notes) is None
        assert notes == {"event without event_id": 1}


class TestWindow:
    """Section 2.3."""

    @pytest.mark.parametrize(
        ("age", "expected"),
        [
            (7 * DAY, None),
            (7 * DAY + 1, (100, 2804003)),
            (-60, None),
            (-61, (100, 2804004)),
        ],
    )
    def test_most_sources_have_seven_days_and_a_minute(
        self, age: int, expected: object
    ) -> None:
        assert verdict(crm_stage(event_time=int(NOW) - age)) == expected

    @pytest.mark.parametrize(
        ("age", "expected"), [(62 * DAY, None), (62 * DAY + 1, (100, 2804003))]
    )
    def test_physical_store_has_sixty_two_days(
        self, age: int, expected: object
    ) -> None:
        assert verdict(offline_purchase(event_time=int(NOW) - age)) == expected

    def test_the_other_sentence_of_the_page_gives_physical_store_seven_days(
        self,
    ) -> None:
        event = offline_purchase(event_time=int(NOW) - 8 * DAY)
        strict = Switches(strict_seven_days=True)
        assert verdict(event, switches=strict) == (100, 2804003)

    def test_milliseconds_lie_in_the_future(self) -> None:
        assert verdict(offline_purchase(event_time=EVENT_TIME * 1_000)) == (
            100,
            2804004,
        )

    def test_a_number_beyond_all_floats_lies_in_the_future(self) -> None:
        assert verdict(offline_purchase(event_time=10**400)) == (100, 2804004)

    def test_one_old_event_fails_the_whole_request(self) -> None:
        old = crm_stage(event_time=int(NOW) - 8 * DAY)
        assert verdict(*purchases(999), old) == (100, 2804003)


class TestMatchKeys:
    """Sections 3.1, 3.6 and 3.7."""

    @pytest.mark.parametrize(
        "keys",
        [
            {"ge", "ct", "st", "country"},
            {"ct", "country", "st", "zp", "ge", "client_user_agent"},
            {"client_user_agent"},
            {"db", "client_user_agent"},
            {"fn", "ge"},
            {"ln", "ge"},
            {"fn"},
            set(),
        ],
    )
    def test_too_broad_keys_are_refused(self, keys: set[str]) -> None:
        event = offline_purchase(user_data={key: digest(key) for key in keys})
        assert verdict(event) == (100, 2804050)

    @pytest.mark.parametrize(
        "keys",
        [
            {"fn", "ln"},
            {"db", "zp"},
            {"external_id"},
            {"em"},
            {"fn", "ln", "ge"},
            {"madid"},
        ],
    )
    def test_keys_outside_every_broad_set_are_taken(self, keys: set[str]) -> None:
        event = offline_purchase(user_data={key: digest(key) for key in keys})
        assert verdict(event) is None

    def test_a_user_agent_with_an_address_is_enough(self) -> None:
        user_data = {"client_user_agent": "x", "client_ip_address": "8.8.8.8"}
        assert verdict(offline_purchase(user_data=user_data)) is None

    @pytest.mark.parametrize("empty", [None, "", [], [""], [None]])
    def test_an_empty_key_does_not_count(self, empty: object) -> None:
        event = offline_purchase(user_data={"em": empty, "ct": [digest("paris")]})
        assert verdict(event) == (100, 2804050)

    def test_an_unknown_key_does_not_count(self) -> None:
        event = offline_purchase(user_data={"email": [digest("a@b.ch")]})
        assert verdict(event) == (100, 2804050)

    @pytest.mark.parametrize(
        "value",
        [
            ["mary.obrien@example.com"],
            digest("x").upper(),
            digest("x")[:-1],
            "0" * 32,
            digest(""),
            [digest("x"), digest("")],
            [digest("x"), "plain"],
            [digest("x"), 7],
            {"sha256": digest("x")},
            digest("x") + ".ZZ",
            digest("x") + "\n",
        ],
    )
    def test_what_is_no_digest_is_refused(self, value: object) -> None:
        event = offline_purchase()
        event["user_data"]["em"] = value
        assert verdict(event) == PARAMETER

    @pytest.mark.parametrize("tail", ["", ".AQ", ".Bg", ".AQQCAQMC"])
    def test_the_param_builders_tail_is_taken(self, tail: str) -> None:
        event = offline_purchase()
        event["user_data"]["em"] = [digest("x") + tail]
        assert verdict(event) is None

    def test_without_strict_hash_an_address_in_the_clear_passes(self) -> None:
        event = offline_purchase()
        event["user_data"]["em"] = "mary.obrien@example.com"
        assert verdict(event, switches=Switches(strict_hash=False)) is None

    @pytest.mark.parametrize(
        ("lead_id", "documented", "observed"),
        [
            (123456789012345, None, None),
            (12345678901234567, None, None),
            (12345678901234, PARAMETER, PARAMETER),
            (123456789012345678, PARAMETER, PARAMETER),
            (1.234567890123456e15, PARAMETER, PARAMETER),
            (True, PARAMETER, PARAMETER),
            ("1234567890123456", PARAMETER, None),
            ("l:1234567890123456", PARAMETER, PARAMETER),
            (digest("1234567890123456"), PARAMETER, PARAMETER),
        ],
    )
    def test_a_lead_id_is_an_integer_of_15_to_17_digits(
        self, lead_id: object, documented: object, observed: object
    ) -> None:
        event = crm_stage(user_data={"lead_id": lead_id})
        assert verdict(event) == documented
        assert verdict(event, switches=OBSERVED) == observed

    def test_a_text_key_takes_no_list(self) -> None:
        event = offline_purchase()
        event["user_data"]["client_ip_address"] = ["8.8.8.8"]
        assert verdict(event) == PARAMETER

    def test_external_id_needs_no_digest_but_text(self) -> None:
        event = offline_purchase()
        event["user_data"]["external_id"] = ["user-42"]
        assert verdict(event) is None
        event["user_data"]["external_id"] = [42]
        assert verdict(event) == PARAMETER

    @pytest.mark.parametrize(
        ("key", "value", "note"),
        [
            ("fbc", "fb.1.1554763741205", "malformed fbc"),
            ("fbp", "1116446470", "malformed fbp"),
            ("fbc", "fb.1.1554763741205.AbC", "fbc older than 90 days"),
            ("client_ip_address", "256.256.256.256", "malformed client_ip_address"),
            ("client_ip_address", "1.2.3.4:443", "malformed client_ip_address"),
            ("email", "x", "unknown user_data key"),
        ],
    )
    def test_a_doubtful_key_is_noted_and_taken(
        self, key: str, value: str, note: str
    ) -> None:
        event = offline_purchase()
        event["user_data"][key] = value
        notes: Counter[str] = Counter()
        assert judge(event, notes=notes) is None
        assert notes == {note: 1}

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("fbc", "fb.1.1795100000000.AbC-123_x"),
            ("fbp", "fb.1.1795100000000.1116446470.AQIAAQMC"),
            ("client_ip_address", "2001:0db8:85a3:0000:0000:8a2e:0370:7334"),
            ("client_ip_address", "8.8.8.8.AQQAAQMC"),
        ],
    )
    def test_a_sound_plain_key_raises_no_eyebrow(self, key: str, value: str) -> None:
        event = offline_purchase()
        event["user_data"][key] = value
        notes: Counter[str] = Counter()
        assert judge(event, notes=notes) is None
        assert not notes

    digests = st.one_of(
        st.text("0123456789abcdef", min_size=64, max_size=64),
        st.text("0123456789abcdef,G", min_size=62, max_size=66),
        st.sampled_from([digest(""), digest("x"), digest("x") + ".AQ", "é" * 64]),
    )

    @given(st.lists(st.lists(digests, min_size=1, max_size=3), max_size=4))
    def test_the_sweep_over_a_batch_never_passes_what_one_look_refuses(
        self, batch: list[list[str]]
    ) -> None:
        events = [offline_purchase(user_data={"em": values}) for values in batch]
        if events and digests_are_sound(events):
            for values in batch:
                for value in values:
                    one = [{**offline_purchase(), "user_data": {"em": [value, "+"]}}]
                    # "+" forces the closer look; it must be the one that is refused.
                    assert not digests_are_sound(one)
                    assert verdict(offline_purchase(user_data={"em": [value]})) is None
                    assert len(value) == 64
                    assert value != digest("")
                    assert set(value) <= set("0123456789abcdef")


class TestMoney:
    """Section 4.2."""

    @pytest.mark.parametrize("missing", [None, ""])
    def test_a_purchase_needs_a_value(self, missing: object) -> None:
        event = offline_purchase()
        event["custom_data"]["value"] = missing
        assert verdict(event) == (100, 2804009)
        assert verdict(without(event, "custom_data", "value")) == (100, 2804009)
        assert verdict(without(event, "custom_data")) == (100, 2804009)

    def test_a_purchase_needs_a_currency(self) -> None:
        event = without(offline_purchase(), "custom_data", "currency")
        assert verdict(event) == (100, 2804010)

    def test_any_value_needs_a_currency(self) -> None:
        event = offline_purchase(event_name="Lead", custom_data={"value": 3})
        assert verdict(event) == (100, 2804023)
        lax = Switches(value_needs_currency=False)
        assert verdict(event, switches=lax) is None

    @pytest.mark.parametrize("value", [0, 0.0, 1, "0", "12.5", 10**400])
    def test_a_number_from_zero_up_is_taken(self, value: object) -> None:
        event = offline_purchase()
        event["custom_data"]["value"] = value
        assert verdict(event) is None

    @pytest.mark.parametrize(
        "value",
        [-1, -0.01, "-3", "12,50", "1_000", "NaN", float("inf"), True, [1], "9" * 400],
    )
    def test_what_is_no_amount_is_refused(self, value: object) -> None:
        event = offline_purchase()
        event["custom_data"]["value"] = value
        assert verdict(event) == PARAMETER

    @pytest.mark.parametrize("currency", ["usd", "USD", "Chf"])
    def test_a_currency_may_be_in_either_case(self, currency: str) -> None:
        event = offline_purchase()
        event["custom_data"]["currency"] = currency
        assert verdict(event) is None

    @pytest.mark.parametrize("currency", ["XYZ", "US", "US Dollar", 840])
    def test_a_currency_is_a_code_of_iso_4217(self, currency: object) -> None:
        event = offline_purchase()
        event["custom_data"]["currency"] = currency
        assert verdict(event) == PARAMETER


class TestCustomData:
    """Section 4.1."""

    @pytest.mark.parametrize(
        "contents", ["x", {"id": "1"}, ["x"], [{"quantity": 1}], [{"id": ""}]]
    )
    def test_contents_are_objects_with_an_id(self, contents: object) -> None:
        event = offline_purchase()
        event["custom_data"]["contents"] = contents
        assert verdict(event) == (100, 2804008)

    def test_live_an_item_may_have_no_quantity(self) -> None:
        event = offline_purchase()
        event["custom_data"]["contents"] = [{"id": "sku-1"}]
        assert verdict(event) == (100, 2804008)
        assert verdict(event, switches=OBSERVED) is None

    def test_customer_keys_do_not_belong_here(self) -> None:
        event = offline_purchase()
        event["custom_data"]["email"] = "mary.obrien@example.com"
        assert verdict(event) == (100, 2804016)
        assert verdict(event, switches=OBSERVED) is None

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("order_id", 10001),
            ("item_number", 1),
            ("net_revenue", "much"),
            ("delivery_category", "drone"),
            ("content_type", "service"),
            ("num_items", 1.5),
            ("content_ids", "sku-1"),
            ("store_data", "Zurich"),
            ("contents", [{"id": "1", "quantity": 1, "item_price": "much"}]),
            ("contents", [{"id": "1", "quantity": 1, "delivery_category": ["x"]}]),
        ],
    )
    def test_a_mistyped_member_is_refused(self, key: str, value: object) -> None:
        event = offline_purchase()
        event["custom_data"][key] = value
        assert verdict(event) == PARAMETER

    def test_null_contents_are_none(self) -> None:
        event = offline_purchase()
        event["custom_data"]["contents"] = None
        assert verdict(event) is None

    def test_custom_properties_are_taken(self) -> None:
        event = offline_purchase()
        event["custom_data"]["loyalty"] = {"tier": 3}
        assert verdict(event) is None


class TestWebsite:
    """Section 2.2: required by the pages, accepted without by the server."""

    @pytest.mark.parametrize("missing", ["event_source_url", "client_user_agent"])
    def test_url_and_user_agent_are_required_by_the_pages(self, missing: str) -> None:
        event = website_view()
        event["user_data"]["em"] = digest("x")
        holder = event if missing in event else event["user_data"]
        del holder[missing]
        assert verdict(event) == PARAMETER
        notes: Counter[str] = Counter()
        assert judge(event, switches=OBSERVED, notes=notes) is None
        assert notes == {f"website event without {missing}": 1}


def app_event(**changes: Any) -> dict[str, Any]:
    extinfo = ["a2", "com.example", "1", "1.0", "14", *[""] * 11]
    app_data = {"advertiser_tracking_enabled": 1, "extinfo": extinfo, **changes}
    return website_view(
        action_source="app",
        user_data={"madid": "38400000-8cf0-11bd-b23e-10b96e40000d"},
        app_data=app_data,
    )


class TestApp:
    """Section 7.2."""

    def test_a_whole_app_event_is_taken(self) -> None:
        assert verdict(app_event()) is None

    @pytest.mark.parametrize(
        "extinfo",
        [
            None,
            [],
            ["a2", "", "", "", "14"],
            ["", "", "", "", "14", *[""] * 11],
            ["a2", "", "", "", "", *[""] * 11],
            ["a2", "", "", "", "14", *[None] * 11],
        ],
    )
    def test_extinfo_has_sixteen_members_and_two_of_them_are_required(
        self, extinfo: object
    ) -> None:
        assert verdict(app_event(extinfo=extinfo)) == (100, 2804043)

    def test_tracking_consent_is_required(self) -> None:
        assert verdict(app_event(advertiser_tracking_enabled=None)) == PARAMETER
        assert verdict(without(app_event(), "app_data")) == PARAMETER


MESSENGER = {"page_id": "1", "page_scoped_user_id": "2"}
WHATSAPP = {"whatsapp_business_account_id": "1", "ctwa_clid": "ARAkLkA8rmlFeiCktEJQ-Q"}
INSTAGRAM = {"ig_account_id": "1", "ig_sid": "2"}


def message(
    channel: str | None, user_data: dict[str, Any], name: str = "LeadSubmitted"
) -> dict[str, Any]:
    return {
        "event_name": name,
        "event_time": EVENT_TIME,
        "event_id": "m-1",
        "action_source": "business_messaging",
        "messaging_channel": channel,
        "user_data": user_data,
    }


class TestMessaging:
    """Section 7.1."""

    @pytest.mark.parametrize(
        ("channel", "user_data"),
        [
            ("messenger", MESSENGER),
            ("whatsapp", WHATSAPP),
            ("whatsapp", {"page_id": "1", "ctwa_clid": WHATSAPP["ctwa_clid"]}),
            ("instagram", INSTAGRAM),
        ],
    )
    def test_each_channel_has_its_ids(
        self, channel: str, user_data: dict[str, Any]
    ) -> None:
        assert verdict(message(channel, user_data)) is None

    @pytest.mark.parametrize(
        ("event", "subcode"),
        [
            (message(None, MESSENGER), 2804063),
            (message("messenger", MESSENGER, "Lead"), 2804066),
            (message("messenger", MESSENGER, "My stage"), 2804066),
            (message("messenger", {"page_scoped_user_id": "2"}), 2804069),
            (message("messenger", {"page_id": "1"}), 2804019),
            (message("instagram", {"ig_account_id": "1"}), 2804075),
            (message("instagram", {"ig_sid": "2"}), 2804079),
            (
                message("instagram", {**INSTAGRAM, "client_ip_address": "8.8.8.8"}),
                2804064,
            ),
            (message("whatsapp", {**WHATSAPP, "ctwa_clid": "invented"}), 2804087),
            (message("whatsapp", {"page_id": "1"}), 2804087),
            (message("whatsapp", {"ctwa_clid": WHATSAPP["ctwa_clid"]}), 2804116),
            (message("telegram", MESSENGER), 2804019),
            (message(["messenger"], MESSENGER), 2804019),  # type: ignore[arg-type]
        ],
    )
    def test_what_a_channel_lacks_has_its_own_subcode(
        self, event: dict[str, Any], subcode: int
    ) -> None:
        assert verdict(event) == (100, subcode)

    def test_live_instagram_wants_the_other_name(self) -> None:
        sample = {"instagram_business_account_id": "1", "ig_sid": "2"}
        event = message("instagram", sample)
        assert verdict(event) is None
        assert verdict(event, switches=OBSERVED) == (100, 2804079)


class TestLimitedDataUse:
    """Section 12."""

    @staticmethod
    def event(
        options: object, country: object = None, state: object = None
    ) -> dict[str, Any]:
        return offline_purchase(
            data_processing_options=options,
            data_processing_options_country=country,
            data_processing_options_state=state,
        )

    @pytest.mark.parametrize(
        "triple", [([],), (["LDU"], 1, 1000), (["LDU"], 1, 1013), (["LDU"], 0, 0)]
    )
    def test_the_whole_triple_is_taken(self, triple: tuple[Any, ...]) -> None:
        assert verdict(self.event(*triple)) is None

    @pytest.mark.parametrize(
        "triple",
        [
            ("LDU",),
            (["ldu"],),
            (["LDU"],),
            (["LDU"], 1),
            (["LDU"], 2, 1000),
            (["LDU"], 1, 1014),
            (["LDU"], "US", "CA"),
            (["LDU"], True, 1000),
        ],
    )
    def test_half_a_triple_is_refused(self, triple: tuple[Any, ...]) -> None:
        assert verdict(self.event(*triple)) == PARAMETER

    def test_live_an_address_stands_for_the_state(self) -> None:
        event = self.event(["LDU"], 1)
        event["user_data"]["client_ip_address"] = "8.8.8.8"
        assert verdict(event) == PARAMETER
        assert verdict(event, switches=OBSERVED) is None


class TestCrm:
    """Section 6: accepted with 200 and not counted."""

    @pytest.mark.parametrize("missing", ["event_source", "lead_event_source"])
    def test_a_lead_without_its_source_is_noted(self, missing: str) -> None:
        notes: Counter[str] = Counter()
        event = without(crm_stage(), "custom_data", missing)
        assert judge(event, notes=notes) is None
        assert notes == {"lead not counted as a Conversion Leads event": 1}


class TestRequest:
    """Sections 1.2 and 13, and step 5 of 10.7."""

    @pytest.mark.parametrize("data", [None, "x", {}, []])
    def test_data_is_a_list_that_holds_something(self, data: object) -> None:
        refusal = body_refusal({"data": data}, NOW, DOCUMENTED, Counter())
        assert refusal is not None
        assert refusal.subcode == 2804019

    def test_a_thousand_events_are_taken_and_one_more_is_not(self) -> None:
        assert verdict(*purchases(1_000)) is None
        assert verdict(*purchases(1_001)) == PARAMETER

    @pytest.mark.parametrize("agent", ["capi_airflow_1_0", "ab", "a" * 22])
    def test_a_partner_agent_is_short_and_has_two_letters(self, agent: str) -> None:
        assert verdict(offline_purchase(), partner_agent=agent) is None

    @pytest.mark.parametrize("agent", ["a" * 23, "a1", "1234", "mein Agent", 7, ""])
    def test_any_other_partner_agent_is_refused(self, agent: object) -> None:
        assert verdict(offline_purchase(), partner_agent=agent) == PARAMETER

    @pytest.mark.parametrize("name", ["test_event_code", "upload_tag", "upload_id"])
    def test_the_other_members_are_text(self, name: str) -> None:
        assert verdict(offline_purchase(), **{name: "TEST12345"}) is None
        assert verdict(offline_purchase(), **{name: 12345}) == PARAMETER

    def test_an_unknown_member_is_noted_and_taken(self) -> None:
        notes: Counter[str] = Counter()
        assert judge(offline_purchase(), notes=notes, testcode="x") is None
        assert notes == {"unknown request parameter": 1}

    @pytest.mark.parametrize(
        ("path", "code"),
        [
            ("/1234567890/events", 2500),
            ("/v26.0", 2500),
            ("/", 2500),
            ("/v26/1234567890/events", 2500),
            ("/v26.1/1234567890/events", 2500),
            ("/v27.0/1234567890/events", 2500),
            ("/v26.0/1234567890/events/1", 2500),
            ("/v19.0/1234567890/events", 2635),
        ],
    )
    def test_a_path_needs_a_living_version(self, path: str, code: int) -> None:
        place = place_of(path)
        assert isinstance(place, Refusal)
        assert place.code == code

    @pytest.mark.parametrize("node", ["me", "12", "act_1234567890", "1" * 21, "١٢٣٤٥"])
    def test_what_is_no_dataset_id_does_not_exist(self, node: str) -> None:
        place = place_of(f"/v26.0/{node}/events")
        assert not isinstance(place, Refusal)
        refusal = dataset_of(place)
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.subcode) == (100, 33)


def test_two_readings_of_the_reference_agree() -> None:
    """The sender's facts and ours, where both have them."""
    from graph_simulator import channels, match_keys

    assert set(spec.TOO_BROAD_KEY_SETS) == set(match_keys._TOO_BROAD)
    assert set(spec.DIGESTED_KEYS) == match_keys.DIGESTED | {"external_id"}
    assert set(spec.PLAIN_KEYS) <= match_keys.KNOWN
    assert {str(source) for source in spec.ActionSource} == channels.ACTION_SOURCES
