"""When steps are due, for any base, delay, hours, weekdays and zone."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from sequences.route import Route, Stop, place_in
from sequences.timing import Hours, due_at, look_again

ZONES = [ZoneInfo(name) for name in (
    "UTC", "Asia/Kuala_Lumpur", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
    "America/Santiago",
)]  # fmt: skip
moments = st.integers(0, 3 * 365 * 86_400).map(lambda n: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n))
times = st.builds(time, st.integers(0, 23), st.integers(0, 59))
hours = st.builds(Hours.of, times, times, st.frozensets(st.integers(1, 7), max_size=7))


@given(base=moments, minutes=st.integers(0, 90 * 24 * 60), hours=hours, zone=st.sampled_from(ZONES))
@example(
    datetime(2026, 3, 29, 0, 30, tzinfo=UTC), 0, Hours.of(time(2, 30), time(2, 45), [7]), ZoneInfo("Europe/Berlin")
)
def test_due_is_the_first_moment_within_the_hours_and_never_early(base, minutes, hours, zone):
    delay = timedelta(minutes=minutes)
    due = due_at(base, delay=delay, hours=hours, zone=zone)
    earliest = base + delay
    assert earliest <= due <= earliest + timedelta(days=16)
    assert hours.is_open(due, zone=zone)
    if due == earliest:
        return
    # nothing between the two was open: look at every quarter of an hour, and right before
    closed = earliest
    while closed < due:
        assert not hours.is_open(closed, zone=zone)
        closed += max(timedelta(minutes=15), (due - earliest) / 40)
    assert not hours.is_open(due - timedelta(microseconds=1), zone=zone)


@given(at=moments, hours=hours, zone=st.sampled_from(ZONES))
def test_open_moments_are_those_that_the_clock_on_the_wall_shows(at, hours, zone):
    local = at.astimezone(zone)
    clock, day = local.time(), local.isoweekday()
    overnight = hours.end <= hours.start
    began_today = clock >= hours.start and (overnight or clock < hours.end)
    began_yesterday = overnight and clock < hours.end and hours.start != hours.end
    expected = (began_today and day in hours.weekdays) or (began_yesterday and (day - 2) % 7 + 1 in hours.weekdays)
    if hours.start == hours.end:
        expected = day in hours.weekdays
    around = {(at + timedelta(hours=n)).astimezone(zone).utcoffset() for n in (-27, -3, 0, 3, 27)}
    if len(around) == 1:  # on the day of a clock change one hour of the wall is missing or there twice
        assert hours.is_open(at, zone=zone) == expected


@given(since=moments, waited=st.integers(0, 10**7))
def test_looking_again_gets_rarer_but_never_too_rare(since, waited):
    now = since + timedelta(seconds=waited)
    again = look_again(since, now=now, at_least=timedelta(seconds=2), at_most=timedelta(minutes=5))
    assert timedelta(seconds=2) <= again - now <= timedelta(minutes=5)


def route(keys: list[int]) -> Route:
    return Route(tuple(Stop(key=key, position=n, delay=timedelta(hours=1)) for n, key in enumerate(keys, start=1)))


keys = st.lists(st.integers(1, 12), unique=True, max_size=8)


@given(old=keys, new=keys, data=st.data())
def test_after_any_edit_nobody_hears_a_step_twice_or_misses_what_is_still_ahead(old, new, data):
    place = data.draw(st.integers(0, len(old)))
    had = old[:place]
    last_key = had[-1] if had else None
    at = place_in(route(new), old=route(old), last_key=last_key, next_key=old[place] if place < len(old) else None)
    assert at is None or (at in new and at not in had)
    if not set(old) - set(new) and [key for key in new if key in old] == old:  # steps were only put in
        ahead = new[new.index(at) :] if at is not None else []
        assert set(old[place:]) <= set(ahead)
        assert last_key is None or ahead == new[new.index(last_key) + 1 :]
