"""Moments become whole seconds since 1970, or are held; never a wrong second."""

from __future__ import annotations

import math
from calendar import timegm
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import strategies
from tests.strategies import SETTINGS

from meta_capi.moments import epoch_seconds
from meta_capi.normalise import Flaw

ZURICH = ZoneInfo("Europe/Zurich")
NOON = 1_795_176_000  # 2026-11-20 12:00 UTC


FIRST = datetime(1, 1, 1)  # noqa: DTZ001 - what a database gives has no zone
LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999)  # noqa: DTZ001 - as above


def read(
    value: object, declared: str = "timestamp", zone: ZoneInfo | None = None
) -> object:
    return epoch_seconds(value, format=declared, zone=zone)


class TestTimestamps:
    """format: timestamp. A timestamp column, a date, or ISO 8601 text."""

    @pytest.mark.parametrize(
        "text",
        ["2026-11-20T12:00:00Z", "2026-11-20 12:00:00+00:00", "2026-11-20 13:00+01:00",
         "2026-11-20T12:00:00.999999Z", "2026-11-20 12:00:00.123456789+00",
         "20261120T120000Z",
         " 2026-11-20T22:00:00+10:00 ", "2026-11-21T02:00:00+14:00", "2026-11-20T12Z"],
    )  # fmt: skip
    def test_iso_text_with_an_offset_needs_no_zone(self, text: str) -> None:
        assert read(text) == NOON
        assert read(text, zone=ZURICH) == NOON

    def test_a_value_without_an_offset_is_read_in_the_feeds_zone(self) -> None:
        for value in ("2026-11-20 13:00:00", datetime(2026, 11, 20, 13)):  # noqa: DTZ001
            assert read(value, zone=ZURICH) == NOON

    def test_a_value_without_an_offset_and_a_feed_without_a_zone_is_held(self) -> None:
        for value in (
            "2026-11-20 13:00:00",
            datetime(2026, 11, 20),  # noqa: DTZ001
            date(2026, 11, 20),
        ):
            assert read(value) is Flaw.TIME_NO_ZONE

    def test_a_date_is_its_first_moment_in_the_feeds_zone(self) -> None:
        midnight = int(datetime(2026, 11, 20, tzinfo=ZURICH).timestamp())
        assert read(date(2026, 11, 20), zone=ZURICH) == midnight
        assert read("2026-11-20", zone=ZURICH) == midnight
        assert read("20261120", zone=ZURICH) == midnight

    def test_fractions_are_floored_even_before_1970(self) -> None:
        assert read(datetime(1970, 1, 1, 0, 0, 1, 999_999, UTC)) == 1
        assert read(datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)) == -1

    @pytest.mark.parametrize(
        "text",
        ["yesterday", "2026-02-30", "2025-02-29 12:00:00Z", "20.11.2026", "11/20/2026",
         "2026-11-20T25:00:00Z", "2026-11-20 12:00:00 UTC", "2026-W47-5", "1795176000",
         "1712103021230", "1795176000000", "12:00", "2026", "٢٠٢٦-١١-٢٠",
         "2026-11-20\x00",
         "\ud800", "a" * 3_000],
    )  # fmt: skip
    def test_other_text_is_held(self, text: str) -> None:
        assert read(text, zone=ZURICH) is Flaw.TIME_UNREADABLE

    @pytest.mark.parametrize(
        "value", [NOON, float(NOON), Decimal(NOON), True, [1], object()]
    )
    def test_a_number_is_no_timestamp(self, value: object) -> None:
        assert read(value, zone=ZURICH) is Flaw.TIME_UNREADABLE

    @pytest.mark.parametrize("nothing", [None, "", "NULL", "NaT", b""])
    def test_nothing_is_nothing(self, nothing: object) -> None:
        for format_ in ("timestamp", "epoch_seconds", "epoch_milliseconds", "%d.%m.%Y"):
            assert read(nothing, format_) is None

    @SETTINGS
    @given(moment=st.datetimes(timezones=st.timezones()))
    def test_column_and_text_give_the_same_second(self, moment: datetime) -> None:
        moment = moment.replace(fold=0)
        offset = moment.utcoffset()
        assert offset is not None
        second = read(moment)
        assert second == timegm(moment.timetuple()) - offset.total_seconds()
        if not offset % timedelta(minutes=1):  # else ISO 8601 cannot write it
            assert read(moment.isoformat()) == second


@pytest.mark.matrix("S6")
class TestClockChanges:
    """What a change repeats is the earlier moment; what it leaves out,
    the offset before."""

    def test_a_repeated_hour_is_its_first_pass(self) -> None:
        assert read("2026-10-25 02:30:00", zone=ZURICH) == read("2026-10-25T00:30:00Z")
        second_pass = datetime(2026, 10, 25, 2, 30, fold=1)  # noqa: DTZ001
        assert read(second_pass, zone=ZURICH) == read("2026-10-25T00:30:00Z")

    def test_an_aware_second_pass_stays_the_second_pass(self) -> None:
        second_pass = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZURICH)
        assert read(second_pass) == read("2026-10-25T01:30:00Z")

    def test_an_hour_left_out_is_read_with_the_offset_before(self) -> None:
        assert read("2026-03-29 02:30:00", zone=ZURICH) == read("2026-03-29T01:30:00Z")


@pytest.mark.matrix("S6")
class TestTheEndsOfTime:
    """Years 1 and 9999 come from defaults in databases; none of them stops a run."""

    @pytest.mark.parametrize(
        "zone", ["UTC", "Europe/Zurich", "Pacific/Kiritimati", "Pacific/Niue"]
    )
    @pytest.mark.parametrize("moment", [FIRST, LAST])
    def test_the_first_and_the_last_year_are_moments(
        self, moment: datetime, zone: str
    ) -> None:
        assert isinstance(read(moment, zone=ZoneInfo(zone)), int)
        assert isinstance(read(moment.date(), zone=ZoneInfo(zone)), int)
        assert isinstance(read(moment.isoformat(), zone=ZoneInfo(zone)), int)

    @pytest.mark.parametrize("hours", [-14, 14])
    def test_offsets_that_lead_outside_the_years_are_moments(self, hours: int) -> None:
        offset = timezone(timedelta(hours=hours))
        for moment in (FIRST, LAST):
            assert isinstance(read(moment.replace(tzinfo=offset)), int)


@pytest.mark.matrix("S6")
class TestEpochs:
    """format: epoch_seconds, epoch_milliseconds. Numbers, also as text."""

    @pytest.mark.parametrize(
        "value", [NOON, NOON + 0.9, Decimal(f"{NOON}.9"), str(NOON), f" {NOON}.999 "]
    )
    def test_seconds_of_every_type_are_floored(self, value: object) -> None:
        assert read(value, "epoch_seconds") == NOON

    @pytest.mark.parametrize(
        "value",
        [NOON * 1_000, NOON * 1_000 + 999, NOON * 1_000.0 + 999.9,
         Decimal(f"{NOON}999.9"),
         f"{NOON}999"],
    )  # fmt: skip
    def test_milliseconds_of_every_type_are_floored(self, value: object) -> None:
        assert read(value, "epoch_milliseconds") == NOON

    @pytest.mark.parametrize(
        ("value", "format_"),
        [
            (NOON * 1_000, "epoch_seconds"), (f"{NOON}000", "epoch_seconds"),
            (NOON * 1_000_000, "epoch_milliseconds"), (NOON, "epoch_milliseconds"),
            (10**11 + 1, "epoch_seconds"), (-1, "epoch_seconds"),
            (10**400, "epoch_seconds"),
            (Decimal("1E+1000000"), "epoch_seconds"), (1e308, "epoch_milliseconds"),
        ],
        ids=range(9),
    )  # fmt: skip
    def test_a_number_of_another_unit_is_held(
        self, value: object, format_: str
    ) -> None:
        assert read(value, format_) is Flaw.TIME_NOT_SECONDS

    @pytest.mark.parametrize(
        "value",
        [math.nan, math.inf, Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), True,
         "1.8e9", "1,795,176,000", "2026-11-20T12:00:00Z", "١٧٩٥"],
    )  # fmt: skip
    def test_what_is_no_number_is_held(self, value: object) -> None:
        assert read(value, "epoch_seconds") is Flaw.TIME_UNREADABLE

    def test_a_timestamp_column_is_read_whatever_the_format_says(self) -> None:
        assert read(datetime(2026, 11, 20, 12, tzinfo=UTC), "epoch_seconds") == NOON


class TestPatterns:
    """format: a strptime pattern."""

    def test_text_in_the_pattern_is_read_in_the_feeds_zone(self) -> None:
        assert read("20.11.2026 13:00", "%d.%m.%Y %H:%M", ZURICH) == NOON

    def test_an_offset_in_the_pattern_goes_before_the_feeds_zone(self) -> None:
        assert (
            read("20/11/2026 13:00 +0100", "%d/%m/%Y %H:%M %z", ZoneInfo("Asia/Tokyo"))
            == NOON
        )

    def test_without_offset_and_zone_the_row_is_held(self) -> None:
        assert read("20.11.2026", "%d.%m.%Y") is Flaw.TIME_NO_ZONE

    def test_a_zone_name_in_the_pattern_is_held(self) -> None:
        """strptime reads UTC and drops it: the hour would be the feed's zone's."""
        assert (
            read("2026-11-20 12:00 UTC", "%Y-%m-%d %H:%M %Z", ZURICH)
            is Flaw.TIME_UNREADABLE
        )

    @pytest.mark.parametrize(
        "text", ["31.02.2026", "2026-11-20", "20.11.2026 12:00", "x"]
    )
    def test_text_of_another_shape_is_held(self, text: str) -> None:
        assert read(text, "%d.%m.%Y", ZURICH) is Flaw.TIME_UNREADABLE


class TestAnything:
    """No value of a database stops a run."""

    @SETTINGS
    @given(
        value=strategies.database_values,
        format_=st.sampled_from(
            [
                "timestamp",
                "epoch_seconds",
                "epoch_milliseconds",
                "%d.%m.%Y",
                "%Y %z",
                "%Q",
            ]
        ),
        zone=st.sampled_from([None, ZURICH, ZoneInfo("Pacific/Kiritimati")]),
    )
    def test_any_value_gives_seconds_a_flaw_or_nothing(
        self, value: object, format_: str, zone: ZoneInfo | None
    ) -> None:
        found = read(value, format_, zone)
        assert found is None or isinstance(found, int | Flaw)
        assert not isinstance(found, bool)
