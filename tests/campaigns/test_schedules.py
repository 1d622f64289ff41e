"""Schedules over clock changes: pure, by the hundred thousand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.models import CatchUp
from campaigns.planning import decide
from campaigns.schedules import (
    ScheduleProblem,
    between,
    check,
    following,
    in_words,
    key_of,
    occurrences,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ZONES = ["Asia/Kuala_Lumpur", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "UTC"]
CRONS = [
    "0 9 * * MON", "30 2 * * *", "0,30 2,3 * * *", "15 1 * * *", "0 0 * * *", "*/10 * * * *", "0 0-5 * * *",
    "45 */2 * * *", "0 12 1 * *", "0 8 L * *", "5 1-3 * * SUN",
]  # fmt: skip


def local(moments: list[datetime], zone: str) -> list[str]:
    return [moment.astimezone(ZoneInfo(zone)).strftime("%d %H:%M") for moment in moments]


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # Berlin, spring: 02:00 to 03:00 does not exist on 29 March 2026; the skipped time is the moment of the change
        ("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 27, 12, tzinfo=UTC), ["28 02:30", "29 03:00", "30 02:30"]),
        # two skipped times, and one that exists, fall on the same moment: one occurrence
        ("0,30 2,3 * * *", "Europe/Berlin", datetime(2026, 3, 29, tzinfo=UTC), ["29 03:00", "29 03:30", "30 02:00"]),
        # Berlin, autumn: 02:30 comes twice on 25 October 2026, and runs the first time
        ("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC), ["25 02:30", "26 02:30", "27 02:30"]),
        ("0 9 * * MON", "Asia/Kuala_Lumpur", NOW, ["05 09:00", "12 09:00", "19 09:00"]),
    ],
)  # fmt: skip
def test_clock_changes_neither_double_nor_swallow_an_occurrence(cron, zone, after, expected):
    found = following(cron, zone=ZoneInfo(zone), after=after, number=3)
    assert local(found, zone) == expected


def test_the_hour_that_comes_twice_runs_the_first_time_only_from_wherever_one_looks():
    berlin = ZoneInfo("Europe/Berlin")
    first = following("30 2 * * *", zone=berlin, after=datetime(2026, 10, 24, 12, tzinfo=UTC))[0]
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    second_hour = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 again
    assert following("30 2 * * *", zone=berlin, after=second_hour)[0] == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_every_ten_minutes_goes_on_through_both_hours():
    night = datetime(2026, 10, 24, 22, tzinfo=UTC)
    found = list(between("*/10 * * * *", zone=ZoneInfo("Europe/Berlin"), after=night, until=night + timedelta(hours=6)))
    assert len(found) == 36
    assert {b - a for a, b in pairwise(found)} == {timedelta(minutes=10)}


@given(
    cron=st.sampled_from(CRONS),
    zone=st.sampled_from(ZONES),
    start=st.integers(0, 700 * 24 * 60),
    skip=st.integers(0, 4000),
)
@settings(max_examples=60, deadline=None)
def test_looking_from_later_finds_the_same_occurrences(cron, zone, start, skip):
    place, begins = ZoneInfo(zone), NOW + timedelta(minutes=start)
    found = list(islice(occurrences(cron, zone=place, after=begins), 40))
    assert all(a < b for a, b in pairwise(found))
    assert len({key_of(moment) for moment in found}) == len(found)
    later = begins + timedelta(minutes=skip)
    expected = [moment for moment in found if moment > later]
    assert list(islice(occurrences(cron, zone=place, after=later), len(expected))) == expected


@pytest.mark.parametrize("cron", ["0 9 * *", "0 0 9 * * *", "61 * * * *", "every day", "0 0 30 2 *", ""])
def test_what_is_no_schedule_is_refused_with_an_example(cron):
    with pytest.raises(ScheduleProblem) as refused:
        check(cron, zone="UTC", now=NOW)
    assert refused.value.field == "cron"
    assert "0 9 * * MON" in str(refused.value)


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 9 * * MON", "every Monday 09:00 Asia/Kuala_Lumpur"),
        ("30 18 * * 1,5", "every Monday and Friday 18:30 Asia/Kuala_Lumpur"),
        ("0 9 * * 1-5", "every weekday 09:00 Asia/Kuala_Lumpur"),
        ("5 8 * * *", "every day 08:05 Asia/Kuala_Lumpur"),
        ("0 9 1 * *", "on day 1 of every month 09:00 Asia/Kuala_Lumpur"),
        ("0 9 L * *", "on the last day of every month 09:00 Asia/Kuala_Lumpur"),
    ],
)
def test_schedules_are_told_in_words(cron, words):
    assert in_words(cron, zone="Asia/Kuala_Lumpur") == words


class Ledger:
    """What planning keeps, without a database: where it looked up to, and a run per occurrence."""

    def __init__(self, cron: str, zone: ZoneInfo, now: datetime, catch_up: str) -> None:
        self.cron, self.zone, self.catch_up = cron, zone, catch_up
        self.planned_until = now
        self.next_at = following(cron, zone=zone, after=now)[0]
        self.runs: dict[str, datetime] = {}
        self.missed: dict[str, datetime] = {}

    def tick(self, now: datetime) -> None:
        if self.next_at > now:  # as the tick's own filter
            return
        due = list(between(self.cron, zone=self.zone, after=self.planned_until, until=now))
        plan = decide(due, now=now, missed_after=timedelta(minutes=15), catch_up=self.catch_up)
        for moment in plan.run:
            assert key_of(moment) not in self.runs | self.missed, "planned twice"
            self.runs[key_of(moment)] = now
        for moment in plan.missed:
            assert key_of(moment) not in self.runs | self.missed, "planned twice"
            self.missed[key_of(moment)] = now
        self.planned_until = due[-1] if due else self.planned_until
        self.next_at = following(self.cron, zone=self.zone, after=self.planned_until)[0]


@pytest.mark.parametrize("catch_up", list(CatchUp))
@pytest.mark.parametrize(("cron", "zone"), [("30 2 * * *", "Europe/Berlin"), ("*/20 * * * *", "America/New_York")])
def test_a_hundred_thousand_ticks_over_clock_changes_and_outages_lose_and_double_nothing(cron, zone, catch_up):
    """Ticks of a minute or two, with outages of up to a day, over two years and four clock changes."""
    place, rng, now = ZoneInfo(zone), Random(7), NOW
    ledger, ticks, outages = Ledger(cron, place, now, catch_up), 0, list[tuple[datetime, datetime]]()
    while ticks < 25_000:
        before, quiet = now, rng.random() < 0.002
        now += timedelta(minutes=rng.uniform(20, 1500)) if quiet else timedelta(seconds=rng.uniform(1, 120))
        if quiet:
            outages.append((before, now))
        ledger.tick(now)
        ticks += 1
    every = [key_of(moment) for moment in between(cron, zone=place, after=NOW, until=now)]
    assert sorted([*ledger.runs, *ledger.missed]) == every
    for key in every:
        planned = datetime.strptime(key, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        seen = ledger.runs.get(key) or ledger.missed[key]
        late = seen - planned > timedelta(minutes=15)
        if not late:
            assert key in ledger.runs
        elif catch_up == CatchUp.NONE:
            assert key in ledger.missed
    if catch_up == CatchUp.LATEST:  # of each outage that swallowed something, the last of it has run
        for begins, ends in outages:
            lost = [key_of(m) for m in between(cron, zone=place, after=begins, until=ends)]
            assert not lost or lost[-1] in ledger.runs
