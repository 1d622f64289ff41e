"""Quiet hours and caps as settings write them, and whose clock counts."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leads.quiet import Cap, CourtesyProblem, QuietHours, parse_caps, parse_quiet_hours, parse_zone, zone_of
from messaging.pacing import Window


def test_settings_are_read_and_what_is_wrong_with_them_said():
    assert parse_quiet_hours("21:00-08:00") == QuietHours(time(21), time(8))
    assert parse_quiet_hours(" 9:30 – 17:00 ") == QuietHours(time(9, 30), time(17))
    assert parse_quiet_hours("  ") is None
    assert parse_caps("1/day, 3/week") == (Cap(1, "day"), Cap(3, "week"))
    assert parse_caps("") == ()
    assert Cap(1, "week").span == timedelta(days=7)
    for parse, text in (
        (parse_quiet_hours, "21-8"), (parse_quiet_hours, "25:00-08:00"), (parse_quiet_hours, "08:00-08:00"),
        (parse_caps, "0/day"), (parse_caps, "1/fortnight"), (parse_caps, "daily"), (parse_zone, "Mars/Olympus"),
        (parse_zone, "../../etc/passwd"),
    ):  # fmt: skip
        with pytest.raises(CourtesyProblem, match=r"write|leave|use"):
            parse(text)


@pytest.mark.parametrize(
    ("phone", "stated", "same_as"),
    [
        ("+60123456789", "", "Asia/Kuala_Lumpur"),
        ("+6591234567", "", "Asia/Singapore"),
        ("+919812345678", "", "Asia/Kolkata"),
        ("+12125550123", "", "America/New_York"),
        ("+14155550123", "", "America/Los_Angeles"),
        ("+447911123456", "", "Europe/London"),  # also Jersey, Guernsey and Man, whose clocks show the same
        ("+79161234567", "", "Asia/Tokyo"),  # eleven zones: the installation's setting
        ("+34612345678", "", "Asia/Tokyo"),  # Madrid or the Canaries
        ("+34612345678", "Atlantic/Canary", "Atlantic/Canary"),
        ("+60123456789", "Europe/Paris", "Europe/Paris"),
        ("no number", "", "Asia/Tokyo"),
    ],
)
def test_whose_clock_counts(phone, stated, same_as):
    zone, expected = zone_of(phone=phone, stated=stated, otherwise="Asia/Tokyo"), ZoneInfo(same_as)
    for month in (1, 7):
        moment = datetime(2026, month, 15, tzinfo=UTC)
        assert moment.astimezone(zone).utcoffset() == moment.astimezone(expected).utcoffset()


ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kuala_Lumpur")


@given(
    st.sampled_from(ZONES),
    st.integers(0, 2 * 365 * 86400).map(lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)),
    st.sampled_from(["21:00-08:00", "22:30-06:15", "00:00-07:00", "12:00-14:00"]),
)
def test_what_waits_for_the_morning_leaves_in_the_morning_also_when_the_clocks_change(name, now, hours):
    quiet, zone = parse_quiet_hours(hours), ZoneInfo(name)
    assert quiet is not None
    window = Window(start=quiet.end, end=quiet.start, zone=zone)

    def is_quiet(moment: datetime) -> bool:
        at = moment.astimezone(zone).time()
        return quiet.start <= at < quiet.end if quiet.start < quiet.end else at >= quiet.start or at < quiet.end

    seconds = window.opens_in_seconds(now)
    assert (seconds > 0) == is_quiet(now)
    then = now + timedelta(seconds=seconds)
    assert not is_quiet(then)
    if seconds:
        assert is_quiet(then - timedelta(seconds=1))
        assert seconds <= 12 * 3600


@pytest.mark.parametrize(
    ("now", "leaves_at"),
    [
        # Berlin: an hour is lost on 29 March, won on 25 October
        ("2026-03-28T22:00:00+01:00", "2026-03-29T08:00:00+02:00"),
        ("2026-10-24T22:00:00+02:00", "2026-10-25T08:00:00+01:00"),
    ],
)
def test_nights_of_nine_and_eleven_hours(now, leaves_at):
    window = Window(start=time(8), end=time(21), zone=ZoneInfo("Europe/Berlin"))
    begins = datetime.fromisoformat(now)
    assert begins + timedelta(seconds=window.opens_in_seconds(begins)) == datetime.fromisoformat(leaves_at)
