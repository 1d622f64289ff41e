"""What machines that watch over the installation ask: alive, ready, and in numbers."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from devices.access import Role, role_of
from messaging import health, metrics
from messaging.health import Health

LOOKED_FOR_SECONDS = 2.0
"""/readyz is open to anybody: however often it is asked, each process looks this rarely."""

_lock = threading.Lock()
_last: tuple[float, Health] | None = None


@never_cache
def healthz(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - a view's signature
    """Liveness: this process answers. Says nothing of the database, so that its outage restarts nobody."""
    return JsonResponse({"status": "ok"})


@never_cache
def readyz(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - a view's signature
    """Whether what is due goes out: 200, or 503 when the health is critical. Reasons by their codes, no numbers."""
    found = _lately()
    reasons = [{"code": reason.code, "level": reason.level.value} for reason in found.reasons]
    body = {"status": "ok" if found.ready else "not ready", "overall": found.overall.value, "reasons": reasons}
    return JsonResponse(body, status=200 if found.ready else 503)


@never_cache
def readyz_web(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - a view's signature
    """Whether this process can serve pages: for a load balancer, which must not take the admin away when it is needed
    most."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError):
        return JsonResponse({"status": "not ready", "reasons": [{"code": "database_away"}]}, status=503)
    return JsonResponse({"status": "ok"})


def _lately() -> Health:
    global _last  # noqa: PLW0603 - one per process is the point
    with _lock:
        if _last is None or monotonic() - _last[0] >= LOOKED_FOR_SECONDS:
            _last = (monotonic(), health.look(now=timezone.now()))
        return _last[1]


class MetricsPermission(BasePermission):
    """Prometheus by its own token, or whoever has the role admin or ops."""

    message = "Metrics are for admins, operators and whoever has the metrics token."

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002 - DRF's signature
        given = request.headers.get("Authorization", "")
        token = settings.FLOTILLA_METRICS_TOKEN
        if token and constant_time_compare(given, f"Bearer {token}"):
            return True
        return role_of(request.user) in {Role.ADMIN, Role.OPS}


@extend_schema(exclude=True)
class MetricsView(APIView):
    """/metrics. Asking costs the same few queries as a look at the health."""

    permission_classes = [MetricsPermission]
    throttle_classes: list[Any] = []

    def get(self, request: Request) -> HttpResponse:  # noqa: ARG002 - DRF's signature
        """The figures, in Prometheus' text format."""
        page = HttpResponse(metrics.text(now=timezone.now()), content_type=CONTENT_TYPE_LATEST)
        page["Cache-Control"] = "no-store"
        return page
