"""Admin pages show and take times as the person's own clock does; the browser says which zone that is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

COOKIE = "flotilla_zone"


class ZoneMiddleware:
    """For pages below ``/admin/`` only: the API names the zone of every time it says."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        zone = request.COOKIES.get(COOKIE, "")
        if not request.path.startswith("/admin/") or zone not in _known():
            return self._get_response(request)
        with timezone.override(ZoneInfo(zone)):
            return self._get_response(request)


@cache
def _known() -> frozenset[str]:
    """Finding them reads a folder for each region, so once."""
    return frozenset(available_timezones())
