"""A draft is a feed, or says why it is none; and it never sends on a guess of consent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meta_capi.column_names import likeness
from meta_capi.crm import judge, stage_column, with_stages
from meta_capi.draft import Draft, draft
from meta_capi.draft_lines import marks
from meta_capi.errors import FeedError
from meta_capi.feed import Feed, parse
from meta_capi.picking import MATCH_KEYS, PERSONAL, pick
from meta_capi.relation import Kind, Table
from meta_capi.suites import load_suite

TODAY = date(2026, 11, 22)
NO_CURRENCY = "custom_data.currency.default"
NAMES = [
    "bonNr", "order_id", "id", "uuid", "E-Mail", "kundenEmail", "email_sha256",
    "telefonNr", "mobile", "vorname", "nome", "apellidos", "geburtsdatum", "dob",
    "plz", "ort", "city", "country", "pais", "kundenNr", "lead_id", "fbc", "ip",
    "verkauftAm", "sold_at", "created_at", "geaendertAm", "updated_at", "datum",
    "totalCHF", "betrag", "amount_cents", "waehrung", "einwilligung",
    "marketing_consent", "limited_data_use", "name", "status", "null", "true", "On",
]  # fmt: skip
columns = st.dictionaries(
    st.sampled_from(NAMES) | st.text(min_size=1, max_size=70),
    st.sampled_from(list(Kind)),
    min_size=1,
    max_size=40,
)


def table(
    columns: Mapping[str, Kind], *keys: tuple[str, ...], name: str = "own.conversions"
) -> Table:
    return Table(name=name, kinds=columns, keys=keys)


def drafted(columns: Mapping[str, Kind], *keys: tuple[str, ...], **named: str) -> Draft:
    return draft("my_feed", pick(table(columns, *keys, **named)), TODAY)


SALES = {
    "bonNr": Kind.TEXT, "verkauftAm": Kind.MOMENT, "geaendertAm": Kind.MOMENT,
    "kundenEmail": Kind.TEXT, "totalCHF": Kind.NUMBER, "einwilligung": Kind.BOOLEAN,
}  # fmt: skip


class TestAnyTable:
    @settings(max_examples=100, deadline=None)
    @given(columns, st.data())
    @example({"true": Kind.TEXT, "On": Kind.MOMENT, "null": Kind.TEXT}, None)
    @example({"a  # missing: b\u2028c: ": Kind.TEXT, "E-Mail": Kind.TEXT}, None)
    @example({"country": Kind.TEXT, "id": Kind.TEXT, "datum": Kind.DATE}, None)
    def test_its_draft_is_a_feed_or_says_for_each_fault_what_is_missing(
        self, columns: dict[str, Kind], data: st.DataObject | None
    ) -> None:
        key = (
            data.draw(st.lists(st.sampled_from(list(columns)), max_size=5))
            if data
            else []
        )
        picks = pick(table(columns, tuple(dict.fromkeys(key))))
        text = draft("my_feed", picks, TODAY).feed
        missing = {m.text.partition(":")[0] for m in marks(text) if m.is_missing}
        matched = {role for role in MATCH_KEYS if role in picks.roles} - {"country"}
        try:
            feed = parse(text)
        except FeedError as error:
            told = [re.match(r"feed:\d+: ([\w.]+):", each) for each in error.faults]
            assert {match and match[1] for match in told} <= missing
            is_whole = picks.key and picks.cursor and "event.time" in picks.roles
            assert NO_CURRENCY in missing or not (is_whole and matched)
        else:
            assert set(feed.columns) <= set(columns)

    @settings(max_examples=100, deadline=None)
    @given(columns)
    def test_no_personal_column_becomes_a_key(self, columns: dict[str, Kind]) -> None:
        picks = pick(table(columns, *((name,) for name in columns)))
        assert not {picks.roles.get(role) for role in PERSONAL} & set(picks.key)

    def test_two_thousand_columns_are_still_a_short_file(self) -> None:
        many = {f"c{'x' * 50}{n}": Kind.TEXT for n in range(2_000)}
        text = drafted(SALES | many).feed
        assert "and 1900 more." in " ".join(text.replace("#", "").split())
        parse(text)


class TestAnyStages:
    LEADS: ClassVar = {
        "id": Kind.INTEGER, "lead_status": Kind.TEXT, "created_at": Kind.DATE,
        "stage_at": Kind.MOMENT, "updated_at": Kind.MOMENT, "email": Kind.TEXT,
    }  # fmt: skip

    @settings(max_examples=100, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(
                ["New", "in contact", "2 - SQL", "Closed Won", "lost", "on"]
            )
            | st.from_regex(r"[A-Za-z .()_/+-]{1,20}", fullmatch=True)
            | st.text(),
            st.integers(1, 3),
        )
    )
    def test_their_draft_is_a_feed_that_tells_no_row_of_its_own(
        self, values: dict[str, int]
    ) -> None:
        picks = pick(table(self.LEADS, ("id",), name="crm.leads"))
        assert stage_column(picks) == "lead_status"
        funnel = judge("lead_status", list(values.items()))
        text = draft("my_feed", with_stages(picks, funnel), TODAY).feed
        stages = parse(text).event.stages
        assert (stages is None) == bool(funnel.why_not)
        if stages:
            told = {*stages.map, *stages.ignore, *funnel.unknown}
            assert told == {each for each, rows in values.items() if rows > 1}

    @pytest.mark.parametrize(
        ("stage", "event"),
        [
            ("Neu", "Initial Lead"), ("attempted_to_contact", "Contacted"),
            ("Qualifié", "Qualified"), ("3. Angebot", "Opportunity"),
            ("Closed Won", "Converted"), ("Not qualified", None), ("Verloren", None),
        ],
    )  # fmt: skip
    def test_common_ones_are_known(self, stage: str, event: str | None) -> None:
        funnel = judge("stage", [(stage, 2), ("kunde", 2), ("spam", 2)])
        assert dict(funnel.map).get(stage) == event
        assert (stage in funnel.ignore) == (event is None)

    def test_a_name_that_a_feed_cannot_write_is_to_be_renamed(self) -> None:
        odd = {"Lead Status" if name == "lead_status" else name: kind
               for name, kind in self.LEADS.items()}  # fmt: skip
        text = drafted(odd, ("id",), name="crm.leads").feed
        assert '# "Lead Status" may be a CRM\'s stage: rename it in a view.' in text


class TestWhatIsGuessed:
    @pytest.mark.parametrize(
        ("role", "names"),
        [
            ("em", "EMail e-mail customerEmail correo_electronico courriel emailadres"),
            ("ph", "PhoneNumber TelefonNr handy natel telemóvel celular portable gsm"),
            ("fn", "firstName vorname prénom nombre voornaam nome kundenVorname"),
            ("ln", "surname Nachname nom apellidos achternaam cognome sobrenome"),
            ("db", "DOB geburtsdatum date_de_naissance fechaNacimiento geboortedatum"),
            ("ge", "gender Geschlecht sexe género geslacht sesso"),
            (
                "ct",
                "city Ort wohnort ville ciudad woonplaats città cidade billing_city",
            ),
            ("zp", "zip PLZ postleitzahl code_postal códigoPostal cap cep postcode"),
            ("country", "countryCode Land país pays paese laendercode"),
            ("external_id", "customer_id KundenNr idCliente klantnummer numero_client"),
            (
                "value",
                "Betrag total_amount importe montant valorTotal bedrag amountCents",
            ),
            ("currency", "Währung waehrung moneda devise valuta moeda currency_code"),
            ("order_id", "order_no BelegNr bestellnummer numeroPedido id_commande"),
            ("event.time", "soldAt verkauft_am Kaufdatum fecha_compra dateAchat"),
            ("cursor", "updatedAt GeändertAm geaendert_am date_maj _fivetran_synced"),
            ("consent", "marketing_consent Einwilligung consentement consentimiento"),
        ],
    )
    def test_common_names_are_known_in_six_languages(
        self, role: str, names: str
    ) -> None:
        unknown = [name for name in names.split() if not likeness(name, role)]
        assert unknown == []

    @pytest.mark.parametrize(
        "name", ["colour", "store_name", "notes", "email_sent_at", "phone_model"]
    )
    def test_other_names_are_left_alone(self, name: str) -> None:
        assert [role for role in MATCH_KEYS if likeness(name, role)] == []

    def test_a_whole_table_is_a_whole_feed(self) -> None:
        text = drafted(SALES, ("bonNr",), name="filialen.Kassenbons").feed
        feed = parse(text)
        assert not [mark for mark in marks(text) if mark.is_missing]
        assert feed.source.key == ["bonNr"]
        assert feed.source.cursor.column == "geaendertAm"
        assert (feed.event.name, feed.event.action_source) == (
            "Purchase", "physical_store",
        )  # fmt: skip
        assert feed.event.time.column == "verkauftAm"
        assert feed.custom_data.currency
        assert feed.custom_data.currency.default == "CHF"
        assert feed.consent.column == "einwilligung"
        suite = json.loads(drafted(SALES, ("bonNr",)).suite)
        assert [rule["meta"]["reason"] for rule in suite["expectations"]] == [
            "key.missing", "key.duplicate", "time.missing",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("table", "column", "place"),
        [
            ("shop.phone_orders", "agent_id", "phone_call"),
            ("shop.phone_orders", "store_id", "phone_call"),
            ("shop.orders", "filialNr", "physical_store"),
            ("shop.orders", "callerName", "other"),
            ("sales.crm_deals", "owner", "system_generated"),
        ],
    )
    def test_the_tables_own_name_says_where_else_a_column_of_stores(
        self, table: str, column: str, place: str
    ) -> None:
        columns = {**SALES, "nr": Kind.TEXT, column: Kind.TEXT}
        del columns["bonNr"]
        text = drafted(columns, ("nr",), name=table).feed
        assert f"\n  action_source: {place}  # guess: " in text

    def test_each_choice_among_columns_is_marked(self) -> None:
        text = drafted(SALES, ("bonNr",)).feed
        chosen = [line for line in text.splitlines() if any(c in line for c in SALES)]
        assert [line for line in chosen if "# guess: " not in line] == []

    @pytest.mark.parametrize(
        ("change", "path", "told"),
        [
            ({"verkauftAm": Kind.LOCAL}, "event.time.timezone", "Europe/Zurich"),
            ({"einwilligung": None}, "consent", "not_required_because"),
            ({"totalCHF": None, "total": Kind.NUMBER}, NO_CURRENCY, "EUR"),
            (
                {"totalCHF": None, "totalCents": Kind.INTEGER},
                "custom_data.value",
                "100",
            ),
            ({"handy": Kind.TEXT}, "user_data.ph", "default_country"),
            ({"dob": Kind.TEXT}, "user_data.db", "format"),
            ({"kundenEmail": None, "E-Mail": Kind.TEXT}, "user_data", '"E-Mail"'),
        ],
    )
    def test_what_nobody_can_guess_is_missing(
        self, change: dict[str, Kind | None], path: str, told: str
    ) -> None:
        changed = {**SALES, **change}
        kinds = {name: kind for name, kind in changed.items() if kind}
        missing = [
            m.text for m in marks(drafted(kinds, ("bonNr",)).feed) if m.is_missing
        ]
        assert [
            text for text in missing if text.startswith(f"{path}: ") and told in text
        ]

    def test_a_table_under_construction_is_no_crm(self) -> None:
        kinds = {"id": Kind.TEXT, "at": Kind.MOMENT, "email": Kind.TEXT}
        text = drafted(kinds, name="staging.restored_positions").feed
        assert parse(text).event.action_source == "other"

    def test_the_only_timestamp_is_the_time_whatever_its_name(self) -> None:
        feed = parse(
            drafted({"id": Kind.TEXT, "T": Kind.MOMENT, "email": Kind.TEXT}).feed
        )
        assert (feed.event.time.column, feed.source.cursor.column) == ("T", "T")

    @pytest.mark.parametrize(
        ("kind", "schedule"), [(Kind.MOMENT, "5 * * * *"), (Kind.DATE, "5 3 * * *")]
    )
    def test_rows_known_by_their_day_are_read_once_a_day(
        self, kind: Kind, schedule: str
    ) -> None:
        kinds = {
            "id": Kind.TEXT,
            "T": Kind.MOMENT,
            "loaded_at": kind,
            "email": Kind.TEXT,
        }
        feed = parse(drafted(kinds).feed)
        assert (feed.source.cursor.column, feed.schedule) == ("loaded_at", schedule)


class TestItsSuite:
    @settings(max_examples=100, deadline=None)
    @given(columns)
    def test_it_fits_its_feed(
        self, tmp_path_factory: pytest.TempPathFactory, columns: dict[str, Kind]
    ) -> None:
        made = drafted(columns)
        try:
            feed = parse(made.feed)
        except FeedError:
            return
        path: Path = tmp_path_factory.getbasetemp() / "suite.json"
        path.write_text(made.suite, encoding="utf-8")
        assert load_suite(path, feed).rules


def test_without_a_currency_the_draft_is_no_feed_before_somebody_writes_one() -> None:
    kinds = {("total" if k == "totalCHF" else k): v for k, v in SALES.items()}
    text = drafted(kinds, ("bonNr",)).feed
    with pytest.raises(FeedError) as caught:
        parse(text)
    assert [each.split(": ")[1] for each in caught.value.faults] == [NO_CURRENCY]
    assert parse(text.replace("XXX", "EUR"))


def test_without_a_consent_column_no_row_is_sent_before_somebody_says() -> None:
    text = drafted(
        {k: v for k, v in SALES.items() if k != "einwilligung"}, ("bonNr",)
    ).feed
    feed: Feed = parse(text)
    assert feed.consent.column == "bonNr"
    assert feed.consent.granted == ["nobody has said yes"]
