"""The admin's page of workers: who is at work, and for each device who serves it, what it does, and how to stop it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Mod
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from devices import services
from devices.access import AnyUser, Role, may_change, role_of
from devices.admin import STATE_COLOURS
from devices.admin_pages import fragment, page
from devices.gateways import registry
from devices.models import Device, DeviceState, SessionHost
from messaging import days, queues, workers
from messaging.bells import session_bell
from messaging.dispatch.publish import bell_of
from messaging.models import DayCount, Message
from messaging.workers import Crew

SHOWN = 50
CHOICES = ("q", "state", "worker")


def urls() -> list[URLPattern]:
    """Addresses below ``/admin/``."""
    wrap = admin.site.admin_view
    return [
        path("workers/", wrap(workers_view), name="workers"),
        path("workers/state/", wrap(state_view), name="workers_state"),
    ]


def workers_view(request: HttpRequest) -> HttpResponse:
    """The whole page."""
    state = state_of(user=_somebody(request), asked=request.GET, now=timezone.now())
    context = {
        **state,
        "opts": None,
        "states": DeviceState.choices,
        "poll_url": f"{reverse('admin:workers_state')}?{urlencode({**state['chosen'], 'page': state['page'].number})}",
    }
    model_admin = admin.site.get_model_admin(Message)
    return page(request, model_admin=model_admin, template="admin/workers.html", title="Workers", context=context)


def state_view(request: HttpRequest) -> JsonResponse:
    """The moving part."""
    state = state_of(user=_somebody(request), asked=request.GET, now=timezone.now())
    return fragment(template="admin/workers_state.html", context=state)


def state_of(*, user: AnyUser, asked: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """Workers and hosts, and one page of the devices asked for. Ops see all devices by name, and no messages."""
    crew = workers.crew(now=now)
    chosen = {name: asked.get(name, "").strip()[:200] for name in CHOICES}
    found = Device.objects.all() if role_of(user) is Role.OPS else Device.objects.visible_to(user)
    listed = _like(found, chosen, crew=crew).order_by("name", "pk").defer("credentials", "options")
    shown = Paginator(listed, SHOWN).get_page(asked.get("page"))
    query = urlencode({name: value for name, value in chosen.items() if value})
    return {
        "crew": [(worker, live, queue_words(worker.queues)) for worker, live in _everybody(crew)],
        "hosts": list(SessionHost.objects.filter(lease_until__gt=now)[:SHOWN]),
        "names": sorted({worker.name for worker in crew.live}),
        "chosen": chosen,
        "asked": bool(query),
        "query": f"{query}&" if query else "",
        "page": shown,
        "rows": _rows(list(shown.object_list), user=user, crew=crew, now=now),
        "may_hold": may_change(user),
    }


def served_by(device: Device, *, now: datetime) -> list[str]:
    """Names of the live workers that take what is released for a device."""
    return _takers(workers.crew(now=now)).get(bell_of(device.pk, gateway=device.gateway), [])


def queue_words(names: Iterable[str]) -> str:
    """``control, devices.http.0 to 3``: queues whose numbers follow one another, as one."""
    numbers: dict[str, list[int]] = {}
    for name in names:
        stem, _, number = name.rpartition(".")
        if number.isdecimal():
            numbers.setdefault(stem, []).append(int(number))
        else:
            numbers[name] = []
    words = [stem for stem, found in numbers.items() if not found]
    for stem, found in numbers.items():
        # what follows one another is equally far from its place in the row
        for _, row in groupby(enumerate(sorted(found)), key=lambda each: each[1] - each[0]):
            span = [number for _, number in row]
            words.append(f"{stem}.{span[0]}" + (f" to {span[-1]}" if len(span) > 1 else ""))
    return ", ".join(sorted(words))


def _rows(devices: list[Device], *, user: AnyUser, crew: Crew, now: datetime) -> list[dict[str, Any]]:
    """Of one page: three queries and one trip to the broker."""
    ids = [device.pk for device in devices]
    depths, takers, ops = queues.depths(devices=devices), _takers(crew), role_of(user) is Role.OPS
    mine = set(Device.objects.changeable_by(user).filter(pk__in=ids).values_list("pk", flat=True))
    counts = DayCount.objects.filter(day=days.today(now), device_id__in=ids).values("device_id", "sent", "failed")
    today = {row["device_id"]: row for row in counts}
    rows = []
    for device in devices:
        state, bell = DeviceState(device.state), bell_of(device.pk, gateway=device.gateway)
        hold = "pause" if state in services.PAUSABLE else "resume" if state in services.RESUMABLE else ""
        rows.append(
            {
                "pk": device.pk,
                "name": device.name,
                "url": "" if ops else reverse("admin:devices_device_change", args=[device.pk]),
                "state": state.label,
                "colour": STATE_COLOURS[state],
                "bell": bell,
                "workers": ", ".join(takers.get(bell, ())),
                "sent_at": device.last_sent_at,
                "today": today.get(device.pk, {}),
                "depth": depths[device.pk],
                "hold_word": hold.capitalize(),
                "hold_url": reverse(f"admin:devices_device_{hold}_device", args=[device.pk])
                if hold and device.pk in mine
                else "",
            }
        )
    return rows


def _like(found: QuerySet[Device], chosen: Mapping[str, str], *, crew: Crew) -> QuerySet[Device]:
    """Those asked for: by part of a name or number, by state, by who serves them."""
    if chosen["q"]:
        found = found.filter(Q(name__icontains=chosen["q"]) | Q(phone__contains=chosen["q"]))
    if chosen["state"] in DeviceState.values:
        found = found.filter(state=chosen["state"])
    if not chosen["worker"]:
        return found
    taken = {queue for worker in crew.live if worker.name == chosen["worker"] for queue in worker.queues}
    http, sessions = settings.FLOTILLA_SHARDS, settings.FLOTILLA_SESSION_SHARDS
    by_session = Q(gateway__in=registry.session_kinds())
    return found.annotate(http_shard=Mod(F("pk"), http), session_shard=Mod(F("pk"), sessions)).filter(
        by_session & Q(session_shard__in=[shard for shard in range(sessions) if session_bell(shard) in taken])
        | ~by_session & Q(http_shard__in=[shard for shard in range(http) if bell_of(shard) in taken])
    )


def _takers(crew: Crew) -> dict[str, list[str]]:
    """Queues, each with the names of the live workers that take from it."""
    found: dict[str, list[str]] = {}
    for worker in crew.live:
        for queue in worker.queues:
            found.setdefault(queue, []).append(worker.name)
    return found


def _everybody(crew: Crew) -> Iterable[tuple[Any, bool]]:
    return [*((worker, True) for worker in crew.live), *((worker, False) for worker in crew.silent)]


def _somebody(request: HttpRequest) -> AnyUser:
    """Whoever has a role. Raises PermissionDenied."""
    if role_of(request.user) is None:
        raise PermissionDenied
    return request.user
