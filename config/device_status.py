"""The public page of one device, for whoever has its link: reads only, and says nothing of people or texts."""

from __future__ import annotations

from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from devices import status_links
from messaging import days
from messaging.models import DayCount, Stream


@never_cache
@require_safe
def show(request: HttpRequest, key: str) -> HttpResponse:
    """``GET /status/<key>``: 404 for a key that is not good, whatever is wrong with it."""
    device = status_links.find(key)
    if device is None:
        return _private(render(request, "status_gone.html", status=404))
    now = timezone.now()
    today = DayCount.objects.filter(device=device, day=days.today(now)).first()
    waiting = Stream.objects.filter(device=device, is_open=True).aggregate(n=Sum("waiting"))["n"]
    context = {
        "device": device,
        "sent": today.sent if today else 0,
        "waiting": waiting or 0,
        "resting": device.held_until is not None and device.held_until > now,
        "now": now,
    }
    return _private(render(request, "status.html", context))


def _private(answer: HttpResponse) -> HttpResponse:
    """The address is the secret: it is not handed on by links, and no search engine keeps it."""
    answer["Referrer-Policy"] = "no-referrer"
    answer["X-Robots-Tag"] = "noindex, nofollow"
    return answer
