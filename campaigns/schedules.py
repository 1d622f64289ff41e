"""When a campaign runs: cron expressions in a time zone. Pure: no Django, and the clock is passed in.

Five fields as Debian's cron reads them (cronsim). A time that a clock change skips is the moment of the change; one
that comes twice is the first. Expressions whose minute or hour begins with a star follow the clock itself, so that
“every ten minutes” goes on through both hours. All answers are in UTC, strictly growing: where two times of one day
fall on the same moment, they are one occurrence.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

KEY_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_SHORT = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_EXAMPLE = "write five fields, as “0 9 * * MON” for Mondays at nine"


class ScheduleProblem(ValueError):  # noqa: N818 - reads as a fact
    """A schedule that cannot be used, in words for its author; ``field`` is ``cron`` or ``time_zone``."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name. Raises ScheduleProblem."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        text = f"“{name}” is not a time zone; use a name like Asia/Kuala_Lumpur."
        raise ScheduleProblem("time_zone", text) from None


def check(cron: str, *, zone: str, now: datetime) -> None:
    """Raises ScheduleProblem unless it is an expression that comes round at all."""
    place = zone_of(zone)
    if len(cron.split()) != 5:
        raise ScheduleProblem("cron", f"“{cron}” is no schedule: {_EXAMPLE}.")
    if next(occurrences(cron, zone=place, after=now), None) is None:
        raise ScheduleProblem("cron", f"“{cron}” never comes: there is no such day; {_EXAMPLE}.")


def occurrences(cron: str, *, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Moments after ``after`` (aware), in UTC, strictly growing. Ends where none comes within fifty years.

    Raises ScheduleProblem for an expression that cannot be read.
    """
    try:
        found = CronSim(cron, after.astimezone(zone))
    except (CronSimError, ValueError) as problem:
        raise ScheduleProblem("cron", f"{problem}; {_EXAMPLE}.") from None
    last = after
    for local in found:
        moment = local.astimezone(UTC)
        # In the hour that comes twice, cronsim goes by the wall clock and may look back; two skipped times are one.
        if moment > last:
            last = moment
            yield moment


def between(cron: str, *, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[datetime]:
    """Occurrences after ``after`` and up to ``until``, both aware."""
    return takewhile(lambda moment: moment <= until, occurrences(cron, zone=zone, after=after))


def following(cron: str, *, zone: ZoneInfo, after: datetime, number: int = 1) -> list[datetime]:
    """The next ``number`` occurrences, fewer where there are no more."""
    return list(islice(occurrences(cron, zone=zone, after=after), number))


def key_of(moment: datetime) -> str:
    """The occurrence's key: its planned moment in UTC, to the second."""
    return moment.astimezone(UTC).strftime(KEY_FORMAT)


def in_words(cron: str, *, zone: str) -> str:
    """“every Monday 09:00 Asia/Kuala_Lumpur”; what is less usual is told field by field. ``cron`` must be readable."""
    fields = cron.upper().split()
    minute, hour, day, month, weekday = fields
    days = _weekdays(weekday)
    if not (minute.isdigit() and hour.isdigit() and month == "*" and days is not None):
        explained = CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)).explain()
        return f"{explained[:1].lower()}{explained[1:]}, {zone}"
    at = f"{int(hour):02}:{int(minute):02} {zone}"
    if day == "*":
        return f"every {days} {at}"
    if day.isdigit() and weekday == "*":
        return f"on day {int(day)} of every month {at}"
    if day == "L" and weekday == "*":
        return f"on the last day of every month {at}"
    explained = CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)).explain()
    return f"{explained[:1].lower()}{explained[1:]}, {zone}"


def moment_words(moment: datetime, *, zone: ZoneInfo) -> str:
    """“Mon 7 Dec 2026 09:00” by that zone's clock."""
    local = moment.astimezone(zone)
    return f"{local:%a} {local.day} {local:%b %Y %H:%M}"


def _weekdays(field: str) -> str | None:
    """“Monday and Friday” from ``MON,FRI`` or ``1,5``; None where it is not that simple."""
    if field == "*":
        return "day"
    if field in {"1-5", "MON-FRI"}:
        return "weekday"
    numbers = []
    for part in field.split(","):
        if part in _SHORT:
            numbers.append(_SHORT.index(part))
        elif part.isdigit():
            numbers.append(int(part) % 7)
        else:
            return None
    names = [_DAYS[number] for number in dict.fromkeys(numbers)]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
