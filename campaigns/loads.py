"""What the devices of a run have to do, read from rows and counters for :mod:`campaigns.estimates`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Count, QuerySet

from campaigns import routing, running
from campaigns.audiences import audience_of
from campaigns.estimates import DAY, Estimate, Load, estimate
from campaigns.models import Campaign, Routing, Run
from devices.models import Device
from leads.models import Lead
from leads.quiet import QuietHours, zone_of
from messaging.models import Attempt, BatchState, Stream
from messaging.pacing import Rhythm, Window

SAMPLE = 200
"""How many leads are asked for their time zone."""


def before(campaign: Campaign, *, now: datetime) -> Estimate:
    """When a launch at ``now`` would be done."""
    audience = audience_of(campaign, now=now)
    reachable = audience.reachable()
    if campaign.routing == Routing.OWN:
        counted = reachable.filter(device__isnull=False).order_by().values_list("device_id").annotate(Count("pk"))
        messages = dict(counted)
    else:
        senders = routing.senders(campaign=campaign, audience=audience, now=now).devices
        messages = _turn_by_turn(reachable.count(), senders, campaign.limit_per_device)
    return _estimate(messages, rhythm=_rhythm(campaign), sample=reachable, batches=(), now=now)


def during(run: Run, *, now: datetime) -> Estimate | None:
    """When the run will be done; None while it rests, or has nothing left."""
    ids = running.batches_of([run])[run.pk]
    rows = Stream.objects.filter(batch__in=ids, batch__state=BatchState.RUNNING, is_open=True)
    messages: Counter[int] = Counter()
    for device_id, waiting in rows.values_list("device_id", "waiting"):
        messages[device_id] += waiting
    if not messages:
        return None
    sample = Lead.objects.filter(messages__batch__in=ids)
    return _estimate(messages, rhythm=_rhythm(run.campaign), sample=sample, batches=ids, now=now)


def _turn_by_turn(number: int, devices: Sequence[int], limit: int | None) -> dict[int, int]:
    if not devices:
        return {}
    each, more = divmod(min(number, limit * len(devices)) if limit else number, len(devices))
    return {pk: each + (place < more) for place, pk in enumerate(devices)}


def _rhythm(campaign: Campaign) -> Rhythm:
    return Rhythm(campaign.delay_min_seconds, campaign.delay_max_seconds)


def _estimate(
    messages: Mapping[int, int], *, rhythm: Rhythm, sample: QuerySet[Lead], batches: Sequence[int], now: datetime
) -> Estimate:
    devices = list(Device.objects.able().filter(pk__in=list(messages)).defer("credentials", "options"))
    others: dict[int, list[int]] = {}
    open_streams = Stream.objects.filter(device__in=devices, is_open=True, batch__state=BatchState.RUNNING)
    for device_id, waiting in open_streams.exclude(batch__in=batches).values_list("device_id", "waiting"):
        others.setdefault(device_id, []).append(waiting)
    quiet = _quiet_window(sample)
    loads = [_load(device, messages[device.pk], tuple(sorted(others.get(device.pk, ()))), quiet) for device in devices]
    if not loads:
        return Estimate(None)
    return estimate(loads=loads, batch=rhythm, now=now, recent_of=lambda ids: _recent(ids, now))


def _load(device: Device, messages: int, others: tuple[int, ...], quiet: Window | None) -> Load:
    windows = [quiet] if quiet else []
    if device.window_start is not None and device.window_end is not None:
        zone = ZoneInfo(device.time_zone or settings.TIME_ZONE)
        windows.append(Window(device.window_start, device.window_end, zone))
    return Load(
        messages=messages,
        device_id=device.pk,
        rhythm=Rhythm(device.delay_min_seconds, device.delay_max_seconds),
        lanes=device.lanes,
        others=others,
        free_at=max(filter(None, (device.next_send_at, device.held_until)), default=None),
        cap_per_hour=device.cap_per_hour,
        cap_per_day=device.cap_per_day,
        warm_from=device.created_at if device.warm_up else None,
        windows=tuple(windows),
    )


def _quiet_window(sample: QuerySet[Lead]) -> Window | None:
    """The hours outside of the quiet ones, by the clock that most of a few leads live by."""
    quiet: QuietHours | None = settings.FLOTILLA_QUIET_HOURS
    if quiet is None:
        return None
    asked = sample.order_by("pk").values_list("phone", "time_zone")[:SAMPLE]
    zones = Counter(_zones(asked))
    zone = zones.most_common(1)[0][0] if zones else settings.FLOTILLA_LEAD_TIME_ZONE
    return Window(start=quiet.end, end=quiet.start, zone=ZoneInfo(zone))


def _zones(asked: Iterable[tuple[str, str | None]]) -> Iterable[str]:
    for phone, stated in asked:
        yield zone_of(phone=phone, stated=stated or "", otherwise=settings.FLOTILLA_LEAD_TIME_ZONE).key


def _recent(devices: Sequence[int], now: datetime) -> dict[int, list[datetime]]:
    """Index attempt_device_started."""
    found: dict[int, list[datetime]] = {}
    rows = Attempt.objects.filter(
        device__in=devices, started_at__gt=now - DAY, started_at__lte=now + timedelta(minutes=1)
    )
    for device_id, started_at in rows.order_by("started_at").values_list("device_id", "started_at"):
        found.setdefault(device_id, []).append(started_at)
    return found
