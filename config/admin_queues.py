"""The admin's page of queues: what waits for which device, in the rows and in the broker."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Max, Sum
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from config.attention import pulse
from devices.access import AnyUser, Role, role_of
from devices.admin import STATE_COLOURS
from devices.admin_pages import fragment, page
from devices.models import Device, DeviceState, SessionHost
from messaging.dispatch.publish import control_depth, queue_depths
from messaging.models import Message, Stream

SHOWN = 50


def urls() -> list[URLPattern]:
    """Addresses below ``/admin/``."""
    wrap = admin.site.admin_view
    return [
        path("queues/", wrap(queues_view), name="queues"),
        path("queues/state/", wrap(state_view), name="queues_state"),
    ]


def queues_view(request: HttpRequest) -> HttpResponse:
    """The whole page."""
    context = {"cards": state_of(user=_somebody(request), now=timezone.now())}
    model_admin = admin.site.get_model_admin(Message)
    return page(request, model_admin=model_admin, template="admin/queues.html", title="Queues", context=context)


def state_view(request: HttpRequest) -> JsonResponse:
    """The moving part."""
    cards = state_of(user=_somebody(request), now=timezone.now())
    return fragment(template="admin/queues_state.html", context={"cards": cards})


def state_of(*, user: AnyUser, now: datetime) -> dict[str, Any]:
    """The devices for which most waits, and the workers' own queues. Ops see all devices by name, and no messages."""
    ops = role_of(user) is Role.OPS
    streams = Stream.objects.all() if ops else Stream.objects.visible_to(user)
    waiting = streams.filter(is_open=True).order_by()  # index stream_open_by_device
    rows = list(
        waiting.values("device_id", "device__name", "device__state", "device__held_until", "device__wake_at")
        .annotate(messages=Sum("waiting"), served_at=Max("served_at"))
        .order_by("-messages", "device_id")[:SHOWN]
    )
    depths = queue_depths([row["device_id"] for row in rows]) or [None] * len(rows)
    return {
        "beat": pulse(),
        "control": control_depth(),
        "total": waiting.aggregate(n=Sum("waiting"))["n"] or 0,
        "hosts": list(SessionHost.objects.filter(lease_until__gt=now)[:SHOWN]),
        "more": len(rows) == SHOWN,
        "rows": [
            {
                "name": row["device__name"],
                "url": "" if ops else reverse("admin:devices_device_change", args=[row["device_id"]]),
                "state": DeviceState(row["device__state"]).label,
                "colour": STATE_COLOURS[DeviceState(row["device__state"])],
                "queue": f"device.{row['device_id']}",
                "waiting": row["messages"],
                "depth": depth,
                "wake_at": row["device__wake_at"],
                "served_at": row["served_at"],
                "resting": row["device__held_until"] if _later(row["device__held_until"], now) else None,
            }
            for row, depth in zip(rows, depths, strict=True)
        ],
        "any_device": bool(rows) or (Device.objects.all() if ops else Device.objects.visible_to(user)).exists(),
    }


def _later(at: datetime | None, now: datetime) -> bool:
    return at is not None and at > now


def _somebody(request: HttpRequest) -> AnyUser:
    """Whoever has a role. Raises PermissionDenied."""
    if role_of(request.user) is None:
        raise PermissionDenied
    return request.user
