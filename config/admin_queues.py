"""The admin's page of queues: what waits for which device, with what may be done about it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Max, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from devices.access import AnyUser, Role, may_change, role_of
from devices.admin import STATE_COLOURS
from devices.admin_pages import Question, ask, confirmed, fragment, page, visible_or_404
from devices.admin_text import many
from devices.models import Device, DeviceState
from messaging import days, health, queues
from messaging.models import DayCount, Message, Stream

SHOWN = 50
MOST_HOURS = 10_000


def urls() -> list[URLPattern]:
    """Addresses below ``/admin/``."""
    wrap = admin.site.admin_view
    return [
        path("queues/", wrap(queues_view), name="queues"),
        path("queues/state/", wrap(state_view), name="queues_state"),
        path("queues/<int:device_id>/clear/", wrap(clear_view), name="queue_clear"),
        path("queues/<int:device_id>/expire/", wrap(expire_view), name="queue_expire"),
    ]


def queues_view(request: HttpRequest) -> HttpResponse:
    """The whole page."""
    context = {"opts": None, "cards": state_of(user=_somebody(request), now=timezone.now())}
    model_admin = admin.site.get_model_admin(Message)
    return page(request, model_admin=model_admin, template="admin/queues.html", title="Queues", context=context)


def state_view(request: HttpRequest) -> JsonResponse:
    """The moving part."""
    cards = state_of(user=_somebody(request), now=timezone.now())
    return fragment(template="admin/queues_state.html", context={"cards": cards})


def clear_view(request: HttpRequest, device_id: int) -> HttpResponse:
    """Cancel what one device has not sent, having seen how much that is."""
    if not may_change(request.user):
        raise PermissionDenied
    model_admin = admin.site.get_model_admin(Device)
    device = visible_or_404(model_admin, request, str(device_id))
    if not confirmed(request):
        waiting = queues.depths(devices=[device])[device.pk].waiting
        question = Question(
            title=f"Clear the queue of {device}?",
            text="What the device has not sent is cancelled, for good. What is at its gateway now ends as it ends."
            " To only hold it back, pause the device.",
            button="Cancel these messages",
            back=reverse("admin:queues"),
            facts=(("Messages that are cancelled", f"{waiting:,}"), ("State", device.get_state_display())),
            danger=True,
        )
        return ask(request, model_admin=model_admin, obj=device, question=question)
    number = queues.clear(device=device, by=cast("User", request.user))
    model_admin.log_change(request, device, f"Cleared its queue: {number:,} messages cancelled.")
    messages.success(request, f"{device}: {many(number, 'message')} cancelled.")
    return HttpResponseRedirect(reverse("admin:queues"))


def expire_view(request: HttpRequest, device_id: int) -> HttpResponse:
    """Expire what one device has had waiting for longer than somebody says."""
    if not may_change(request.user):
        raise PermissionDenied
    model_admin = admin.site.get_model_admin(Device)
    device = visible_or_404(model_admin, request, str(device_id))
    hours = request.POST.get("hours", "").strip()
    told = hours.isascii() and hours.isdigit() and 0 < int(hours[:9]) <= MOST_HOURS
    if not confirmed(request) or not told:
        waiting = queues.depths(devices=[device])[device.pk].waiting
        wrong = f"“{hours[:20]}” is not a number of hours from 1 to {MOST_HOURS:,}: write one, as 24."
        question = Question(
            title=f"Expire what is old in the queue of {device}?",
            text="Messages that were made longer ago than you say, and have not been sent, expire: for good. Younger "
            "ones stay and go out as planned.",
            button="Expire them",
            back=reverse("admin:queues"),
            facts=(("Messages that wait, old and young", f"{waiting:,}"), ("State", device.get_state_display())),
            warnings=(wrong,) if confirmed(request) else (),
            field=("hours", "Made longer ago than how many hours?"),
            danger=True,
        )
        return ask(request, model_admin=model_admin, obj=device, question=question)
    number = queues.expire_old(
        device=device, older_than=timedelta(hours=int(hours)), now=timezone.now(), by=cast("User", request.user)
    )
    model_admin.log_change(request, device, f"Expired what was older than {int(hours):,} hours: {number:,} messages.")
    messages.success(request, f"{device}: {many(number, 'message')} expired.")
    return HttpResponseRedirect(reverse("admin:queues"))


def state_of(*, user: AnyUser, now: datetime) -> dict[str, Any]:
    """The devices for which most waits. Ops see all devices by name, and no messages."""
    ops = role_of(user) is Role.OPS
    streams = Stream.objects.all() if ops else Stream.objects.visible_to(user)
    waiting = streams.filter(is_open=True).order_by()  # index stream_open_by_device
    rows = list(
        waiting.values("device_id", "device__name", "device__state", "device__held_until", "device__wake_at")
        .annotate(number=Sum("waiting"), served_at=Max("served_at"))
        .order_by("-number", "device_id")[:SHOWN]
    )
    lying = queues.depths(devices=[Device(pk=row["device_id"]) for row in rows])
    today = {
        row["device_id"]: row
        for row in DayCount.objects.filter(
            day=days.today(now), device_id__in=[row["device_id"] for row in rows]
        ).values("device_id", "sent", "failed")
    }
    return {
        "numbers": health.gather(now=now),
        "may_clear": may_change(user),
        "total": waiting.aggregate(n=Sum("waiting"))["n"] or 0,
        "more": len(rows) == SHOWN,
        "rows": [
            {
                "name": row["device__name"],
                "url": "" if ops else reverse("admin:devices_device_change", args=[row["device_id"]]),
                "state": DeviceState(row["device__state"]).label,
                "colour": STATE_COLOURS[DeviceState(row["device__state"])],
                "queue": f"device.{row['device_id']}",
                "clear_url": reverse("admin:queue_clear", args=[row["device_id"]]),
                "expire_url": reverse("admin:queue_expire", args=[row["device_id"]]),
                "hold_word": "Pause" if row["device__state"] == DeviceState.ACTIVE else "Resume",
                "hold_url": _hold_url(row["device_id"], pauses=row["device__state"] == DeviceState.ACTIVE),
                "today": today.get(row["device_id"], {}),
                "waiting": row["number"],
                "depth": lying[row["device_id"]],
                "wake_at": row["device__wake_at"] if row["device__state"] == DeviceState.ACTIVE else None,
                "served_at": row["served_at"],
                "resting": row["device__held_until"] if _later(row["device__held_until"], now) else None,
            }
            for row in rows
        ],
        "any_device": bool(rows) or (Device.objects.all() if ops else Device.objects.visible_to(user)).exists(),
    }


def _hold_url(device_id: int, *, pauses: bool) -> str:
    """To the question that stops a device, or lets it go on."""
    return reverse(f"admin:devices_device_{'pause' if pauses else 'resume'}_device", args=[device_id])


def _later(at: datetime | None, now: datetime) -> bool:
    return at is not None and at > now


def _somebody(request: HttpRequest) -> AnyUser:
    """Whoever has a role. Raises PermissionDenied."""
    if role_of(request.user) is None:
        raise PermissionDenied
    return request.user
