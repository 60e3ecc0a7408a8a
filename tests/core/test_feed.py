"""Is a right feed read, and a wrong one answered with all that is wrong with it?"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from meta_capi import feed as feeds
from meta_capi.errors import FeedError
from meta_capi.feed import Feed
from meta_capi.spec import ActionSource

FOLDER = Path(__file__).parents[2] / "include/feeds"
SHIPPED = sorted(FOLDER.glob("*.yaml"))

RIGHT = """\
feed: shop_sales
description: Purchases in the shop.
schedule: "0 * * * *"
start_date: 2026-01-01
source:
  table: shop.sales
  key: [id]
  cursor: {column: loaded_at}
event:
  name: Purchase
  action_source: phone_call
  time: {column: sold_at}
user_data:
  em: email
  ph: {column: phone, default_country: CH}
custom_data:
  value: amount
  currency: {default: CHF}
consent:
  column: consent
"""


def faults(text: str) -> list[str]:
    with pytest.raises(FeedError) as caught:
        feeds.parse(text, name="shop_sales.yaml")
    return caught.value.faults


def changed(old: str, new: str) -> str:
    assert RIGHT.count(old) == 1, old
    return RIGHT.replace(old, new)


class TestTheShippedFeeds:
    def test_they_load(self) -> None:
        assert set(feeds.load_all(FOLDER)) == {
            "offline_purchases",
            "phone_orders",
            "crm_leads",
        }

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_editors_find_their_schema(self, path: Path) -> None:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first == "# yaml-language-server: $schema=feed.schema.json"

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_they_keep_to_the_schema(self, path: Path) -> None:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        data["quality"]["max_quarantined_share"] = 0.1
        data["lookback"] = int(data["lookback"])
        jsonschema.validate(data, feeds.json_schema())

    def test_their_windows_are_metas(self) -> None:
        shipped = feeds.load_all(FOLDER)
        assert shipped["offline_purchases"].longest_window == timedelta(days=62)
        assert shipped["phone_orders"].longest_window == timedelta(days=7)
        assert shipped["crm_leads"].longest_window == timedelta(days=7)

    def test_lead_stages_are_sent_in_the_order_of_the_funnel(self) -> None:
        assert feeds.load_all(FOLDER)["crm_leads"].event_names == (
            "Initial Lead",
            "Contacted",
            "Qualified",
            "Opportunity",
            "Converted",
        )


class TestTheSchema:
    def test_the_file_is_what_the_model_says(self) -> None:
        """Editors would else complete what the feed refuses."""
        text = (FOLDER / "feed.schema.json").read_text(encoding="utf-8")
        expected = json.dumps(feeds.json_schema(), indent=2, ensure_ascii=False)
        assert text == expected + "\n"

    def test_it_is_a_schema(self) -> None:
        jsonschema.Draft202012Validator.check_schema(feeds.json_schema())

    def test_every_field_is_described(self) -> None:
        schema = feeds.json_schema()
        models = {"Feed": schema, **schema["$defs"]}
        assert [
            f"{model}.{field}"
            for model, content in models.items()
            for part in (content, *content.get("anyOf", []))
            for field, said in part.get("properties", {}).items()
            if not said.get("description")
            and not models[said["$ref"].rpartition("/")[2]].get("description")
        ] == []

    def test_it_refuses_a_word_that_no_feed_knows(self) -> None:
        data = yaml.load(RIGHT, Loader=yaml.BaseLoader) | {"colour": "red"}
        with pytest.raises(jsonschema.ValidationError, match="colour"):
            jsonschema.validate(data, feeds.json_schema())


class TestAFeed:
    def test_a_right_one_is_read(self) -> None:
        feed = feeds.parse(RIGHT)
        assert feed.dag_id == "send_shop_sales"
        assert feed.suite == "shop_sales"
        assert feed.event_names == ("Purchase",)
        assert feed.user_data["em"].column == "email"

    def test_its_columns_are_named_once_keys_and_cursor_first(self) -> None:
        text = changed("  em: email\n", "  em: email\n  external_id: id\n")
        assert feeds.parse(text).columns == (
            "id", "loaded_at", "sold_at", "email", "phone", "amount", "consent",
        )  # fmt: skip

    @pytest.mark.parametrize("word", ["yes", "no", "on", "off", "NO", "y"])
    def test_words_that_old_yaml_takes_for_booleans_stay_words(self, word: str) -> None:
        """Norway is NO, and a call centre's consent is yes."""
        text = changed("column: consent", f"column: consent\n  granted: [{word}]")
        assert feeds.parse(text).consent.granted == [word]

    def test_true_and_numbers_are_what_they_look_like(self) -> None:
        text = changed("column: consent", "column: consent\n  granted: [true, 1, '1']")
        assert feeds.parse(text).consent.granted == [True, 1, "1"]

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("45s", 45), ("30m", 1_800), ("6h", 21_600), ("2 d", 172_800)],
    )
    def test_durations_are_a_number_and_a_unit(self, text: str, seconds: int) -> None:
        feed = feeds.parse(RIGHT + f"holding_period: {text}\n")
        assert feed.holding_period.total_seconds() == seconds


WRONG = {
    "a misspelt word": (
        changed("description:", "descripton:"),
        [
            "1: description: is missing; add it",
            "2: descripton: is not known here; did you mean description?",
        ],
    ),
    "a word of nobody's": (
        RIGHT + "colour: red\n",
        ["21: colour: is not known here; take it out"],
    ),
    "a misspelt word inside": (
        changed("default_country: CH", "defaultcountry: CH"),
        [
            "15: user_data.ph.defaultcountry: is not known here; did you mean "
            "default_country?"
        ],
    ),
    "a word for a match key": (
        changed("  em: email", "  email: email"),
        ["14: user_data.email: is not a match key of Meta's; write em"],
    ),
    "a match key of nobody's": (
        changed("  em: email", "  zodiac: email"),
        [
            "14: user_data.zodiac: is not a match key of Meta's; use one of em, ph, "
            "fn, ln, db, ge, ct, st, zp, country, external_id, client_ip_address, "
            "client_user_agent, fbc, fbp, subscription_id, fb_login_id, lead_id, madid"
        ],
    ),
    "an option of another match key": (
        changed("  em: email", "  em: {column: email, default_country: CH}"),
        ["14: user_data.em: knows no default_country; take it out"],
    ),
    "a match key without a column": (
        changed("  em: email", "  em: {}"),
        ["14: user_data.em: names no column; add one"],
    ),
    "a key twice": (
        RIGHT + "description: Once more, the shop.\n",
        ["21: description: stands twice; keep one"],
    ),
    "a purchase without money": (
        changed("custom_data:\n  value: amount\n  currency: {default: CHF}\n", ""),
        [
            "1: custom_data.value: is missing; Meta takes no Purchase without",
            "1: custom_data.currency: is missing; Meta takes no Purchase without",
        ],
    ),
    "an amount without a currency": (
        changed("  currency: {default: CHF}\n", ""),
        [
            "16: custom_data: an amount needs a currency; add currency: {default: EUR} "
            "or a column"
        ],
    ),
    "a store feed without order ids": (
        changed("phone_call", "physical_store"),
        [
            "16: custom_data.order_id: is missing; Meta removes a repeated store event "
            "by it. Map it, or set on_in_doubt: hold"
        ],
    ),
    "a source that no one names": (
        changed("  table: shop.sales\n", ""),
        ["5: source: name either a table or a sql file, one of the two"],
    ),
    "SQL in a table's name": (
        changed("shop.sales", "'sales; drop table sales'"),
        [
            "6: source.table: 'sales; drop table sales' cannot stand here; it must "
            r"match ^(?:[A-Za-z_][A-Za-z0-9_$]{0,62}\.){0,2}"
            r"[A-Za-z_][A-Za-z0-9_$]{0,62}$"
        ],
    ),
    "an unknown place": (
        changed("phone_call", "telephone"),
        [
            "11: event.action_source: 'telephone' is not known; use physical_store, "
            "phone_call, chat, email, system_generated or other"
        ],
    ),
    "a website's events": (
        changed("phone_call", "website"),
        [
            "9: event: website events are not sent from a warehouse by this project; "
            "use physical_store, phone_call, chat, email, system_generated or other"
        ],
    ),
    "an unknown time format": (
        changed("{column: sold_at}", "{column: sold_at, format: epoch}"),
        [
            "12: event.time: format is neither one of timestamp, epoch_seconds, "
            "epoch_milliseconds nor a pattern with %Y, %m and %d"
        ],
    ),
    "a zone of nowhere": (
        changed("{column: sold_at}", "{column: sold_at, timezone: CET+1}"),
        [
            "12: event.time.timezone: is not a time zone; write a name as "
            "Europe/Zurich or UTC"
        ],
    ),
    "a bare number for a duration": (
        RIGHT + "holding_period: 6\n",
        [
            "21: holding_period: is not a duration; write a number and a unit, as 30m, "
            "6h or 7d"
        ],
    ),
    "a holding period that outlasts the window": (
        RIGHT + "holding_period: 7d\n",
        ["21: holding_period: is as long as Meta takes the event; shorten it"],
    ),
    "a margin as long as the window": (
        RIGHT + "window: {days: 1, margin: 24h}\n",
        ["21: window.margin: is as long as the window; shorten it"],
    ),
    "a duration of ages": (
        RIGHT + "retention: 999999d\nholding_period: 36526d\n",
        [
            "21: retention: is longer than a hundred years; write a shorter one",
            "22: holding_period: is longer than a hundred years; write a shorter one",
        ],
    ),
    "a minute that no hour has": (
        changed("0 * * * *", "61 * * * *"),
        ["3: schedule: has '61' for its minute; write 0 to 59"],
    ),
    "a day that no month has": (
        changed("0 * * * *", "0 0 30 feb *"),
        [
            "3: schedule: never comes: no such month has a day 30; name another day or "
            "month"
        ],
    ),
    "an hourly schedule in words": (
        changed('"0 * * * *"', '"every hour, please"'),
        [
            "3: schedule: is not a cron expression; write five fields in quotes, as "
            "'5 * * * *' for every hour"
        ],
    ),
    "a day that never was": (
        changed("2026-01-01", "2026-02-30"),
        [
            "4: is not YAML: this value is no date or number; put it in quotes",
        ],
    ),
    "a day in digits, which would be 1970": (
        changed("2026-01-01", "20260101"),
        ["4: start_date: is not a date; write it as 2026-01-31"],
    ),
    "consent left open": (
        changed("  column: consent\n", "  granted: [true]\n"),
        [
            "19: consent: name a column, or say not_required_because, one of the two",
        ],
    ),
    "a list where consent takes texts": (
        changed("column: consent", "column: consent\n  granted: [[yes]]"),
        [
            "21: consent.granted.0: is neither a text nor a whole number nor true or "
            "false"
        ],
    ),
    "too much": (
        RIGHT + "limits: {events_per_request: 5000}\nlookback: -1\nowner: 7\n",
        [
            "21: limits.events_per_request: must be at most 1000",
            "22: lookback: must be at least 0",
            "23: owner: needs a text; put it in quotes",
        ],
    ),
    "a text where parts belong": (
        changed("cursor: {column: loaded_at}", "cursor: loaded_at"),
        ["8: source.cursor: needs a mapping, as {key: value}"],
    ),
    "a stage both sent and ignored": (
        changed(
            "  name: Purchase\n  action_source: phone_call\n",
            "  action_source: system_generated\n  stages:\n    column: stage\n"
            "    map: {won: Won, lost: Lost}\n    ignore: [lost]\n"
            "    lead_created: {column: made_at}\n    crm: Our CRM\n",
        ),
        ["11: event.stages: lost stands both in map and in ignore"],
    ),
    "faults in parts and between them, all at once": (
        changed("  em: email", "  email: email")
        .replace("{default: CHF}", "{default: francs}")
        .replace("phone_call", "physical_store")
        .replace("sold_at}", "sold_at, zone: UTC}")
        + "holding_period: 70d\n",
        [
            "12: event.time.zone: is not known here; did you mean timezone?",
            "14: user_data.email: is not a match key of Meta's; write em",
            "18: custom_data.currency.default: is not an ISO 4217 code in use; write "
            "one, as EUR",
            "21: holding_period: is as long as Meta takes the event; shorten it",
        ],
    ),
    "a currency that is none": (
        changed("default: CHF", "default: RMB"),
        [
            "18: custom_data.currency.default: is not an ISO 4217 code in use; write "
            "one, as EUR"
        ],
    ),
    "a currency in small letters": (
        changed("default: CHF", "default: chf"),
        [
            "18: custom_data.currency.default: is not an ISO 4217 code in use; did you "
            "mean CHF?"
        ],
    ),
    "countries that are none": (
        changed("default_country: CH}", "default_country: UK}").replace(
            "  em: email", "  em: email\n  country: {default: XX}"
        ),
        [
            "15: user_data.country.default: is no country's code of ISO 3166-1; write two "
            "letters, as CH",
            "16: user_data.ph.default_country: is no country with telephones; did you "
            "mean GB?",
        ],
    ),
    "countries by other names": (
        changed("default_country: CH}", "default_country: Switzerland}").replace(
            "  em: email", "  em: email\n  country: {default: uk}"
        ),
        [
            "15: user_data.country.default: is no country's code of ISO 3166-1; did you "
            "mean GB?",
            "16: user_data.ph.default_country: is no country with telephones; did you "
            "mean CH?",
        ],
    ),
    "the country of numbers that nobody can dial": (
        changed("default_country: CH}", "default_country: AQ}"),
        [
            "15: user_data.ph.default_country: is no country with telephones; write two "
            "letters, as CH"
        ],
    ),
    "a reference": (
        changed("  em: email", "  em: &who email\n  external_id: *who"),
        ["15: is not YAML: a reference (*name) is not known here; write it out"],
    ),
    "a tag": (
        changed("name: Purchase", "name: !!python/name:os.system x"),
        [
            "10: is not YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system'"
        ],
    ),
    "an open bracket": (
        changed("[id]", "[id"),
        ["8: is not YAML: expected ',' or ']', but got ':'"],
    ),
    "a number that is none": (
        changed("name: Purchase", "name: !!int ''"),
        ["10: is not YAML: this value is no date or number; put it in quotes"],
    ),
    "a tag that a text cannot have": (
        changed("name: Purchase", "name: !!timestamp x"),
        ["10: is not YAML: this value is no date or number; put it in quotes"],
    ),
    "NUL in a text": (
        changed("name: Purchase", 'name: "Lead\\0"'),
        ["10: event.name: holds NUL or half a surrogate pair; take it out"],
    ),
    "a blank event name": (
        changed("name: Purchase", "name: ' '"),
        ["10: event.name: ' ' cannot stand here; it must match \\S"],
    ),
    "a key of two lines": (
        RIGHT + '"a\\nb": 1\n',
        ["21: a\\nb: is not known here; take it out"],
    ),
    "a pattern with a part twice": (
        changed("sold_at}", 'sold_at, format: "%d %d"}'),
        [
            "12: event.time: is no pattern of a whole day; write day, month and year "
            "once, as %d.%m.%Y"
        ],
    ),
    "a pattern without a year": (
        changed("em: email", 'em: email\n  db: {column: born, format: "%d.%m."}'),
        [
            "15: user_data.db.format: is no pattern of a whole day; write day, month and "
            "year once, as %d.%m.%Y"
        ],
    ),
    "a property in clear": (
        changed("value: amount", "value: amount\n  properties: {email: email}"),
        [
            "16: custom_data: email is personal, and would leave in clear; it belongs in "
            "user_data"
        ],
    ),
    "a customer's column in clear": (
        changed("key: [id]", "key: [id, email]").replace(
            "  value: amount", "  value: amount\n  content_name: phone"
        ),
        [
            "7: source.key: reads email, which is em: it would be in clear here; name "
            "another column",
            "18: custom_data.content_name: reads phone, which is ph: it would be in clear "
            "here; name another column",
        ],
    ),
    "a word that Meta does not take": (
        changed(
            "value: amount", "value: amount\n  delivery_category: {constant: drone}"
        ),
        [
            "16: custom_data: delivery_category takes in_store or curbside or "
            "home_delivery and nothing else"
        ],
    ),
    "too long to be a feed": (
        RIGHT + "#" * 100_000,
        ["1: is longer than 100,000 characters; no feed is"],
    ),
    "nothing": ("", ["1: holds no mapping; start with `feed: <name>`"]),
    "a list": ("- feed", ["1: holds no mapping; start with `feed: <name>`"]),
    "a control character": (
        "feed: \x07",
        ["1: is not YAML: holds characters that no text has"],
    ),
    "a well without a bottom": (
        "feed: " + "[" * 5_000,
        ["1: is nested too deeply; a feed has five levels"],
    ),
}


class TestAWrongFeed:
    @pytest.mark.parametrize(("text", "expected"), WRONG.values(), ids=WRONG)
    def test_it_is_answered_with_all_faults_and_advice(
        self, text: str, expected: list[str]
    ) -> None:
        assert faults(text) == [f"shop_sales.yaml:{fault}" for fault in expected]

    def test_the_places_it_advises_are_those_that_a_feed_may_have(self) -> None:
        (fault,) = faults(changed("phone_call", "store"))
        told = re.findall(r"\w+", fault.partition("; use ")[2].replace(" or ", " "))
        text = RIGHT + "on_in_doubt: hold\n"
        accepted = []
        for place in ActionSource:
            with suppress(FeedError):
                feeds.parse(text.replace("phone_call", place))
                accepted.append(str(place))
        assert sorted(told) == sorted(accepted)

    def test_a_file_of_another_name_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "sales.yaml"
        path.write_text(RIGHT)
        with pytest.raises(FeedError) as caught:
            feeds.load(path)
        assert caught.value.faults == [
            "sales.yaml:1: feed: is 'shop_sales'; the file's name says 'sales'"
        ]

    def test_a_file_that_is_no_text_or_not_there_is_refused(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "sales.yaml"
        path.write_bytes(b"feed: \xff")
        with pytest.raises(FeedError, match=r"sales.yaml:1: is not UTF-8 text"):
            feeds.load(path)
        with pytest.raises(FeedError, match=r"none.yaml:1: cannot be read: No such"):
            feeds.load(tmp_path / "none.yaml")

    def test_the_faults_of_all_files_come_together(self, tmp_path: Path) -> None:
        (tmp_path / "one.yaml").write_text("- a")
        (tmp_path / "two.yaml").write_text("- b")
        with pytest.raises(FeedError) as caught:
            feeds.load_all(tmp_path)
        assert [fault[:10] for fault in caught.value.faults] == [
            "one.yaml:1",
            "two.yaml:1",
        ]


WORDS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.text(),
    st.sampled_from([
        "feed", "em", "ph", "column", "6h", "UTC", "Purchase", "timestamp", "table",
    ]),
)  # fmt: skip
CONTENT = st.recursive(
    WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4)
    ),
    max_leaves=12,
)
PATHS = st.sampled_from([
    ("feed",), ("source",), ("source", "key"), ("source", "cursor"), ("event",),
    ("event", "time"), ("event", "stages"), ("user_data",), ("user_data", "em"),
    ("custom_data",), ("custom_data", "value"), ("custom_data", "properties"),
    ("consent",), ("consent", "granted"), ("limited_data_use",), ("window",),
    ("window", "margin"), ("limits",), ("holding_period",), ("start_date",),
    ("schedule",), ("lookback",), ("quality",), ("a word of nobody's",),
])  # fmt: skip


def is_feed_or_faults(text: str) -> None:
    try:
        feed, found = feeds.parse(text), ["feed:1"]
    except FeedError as error:
        feed, found = None, error.faults
    assert feed is None or isinstance(feed, Feed)
    assert found
    for fault in found:
        assert 1 <= int(fault.split(":")[1]) <= text.count("\n") + 2


@pytest.mark.matrix("X24")
class TestAnyText:
    @given(st.text())
    @example("? [a, b]\n: c")
    @example("? {a: b}\n: c")
    @example("a: 2026-13-45")
    @example("a: !!int x")
    @example("a: &b [*b]")
    @example("a: " + "9" * 5_000)
    @example("<<: 1")
    @example("a: 1:99:99.9")
    @example("!!set {a}")
    @example("a: .nan\n.nan: 1")
    @example("---\na: b\n---\nc: d")
    def test_is_a_feed_or_faults_and_nothing_else(self, text: str) -> None:
        is_feed_or_faults(text)

    @given(CONTENT)
    def test_any_content_is_a_feed_or_faults(self, content: Any) -> None:
        is_feed_or_faults(yaml.safe_dump(content, allow_unicode=True))

    @given(PATHS, CONTENT)
    def test_a_feed_with_anything_in_one_place_is_a_feed_or_faults(
        self, path: tuple[str, ...], content: Any
    ) -> None:
        data = yaml.safe_load(RIGHT)
        inner = data
        for step in path[:-1]:
            inner = inner.setdefault(step, {})
            if not isinstance(inner, dict):
                return
        inner[path[-1]] = content
        is_feed_or_faults(yaml.safe_dump(data, allow_unicode=True))
