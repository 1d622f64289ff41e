"""All addresses. Static files are served by WhiteNoise before any of these."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from django.views.decorators.cache import never_cache
from django.views.generic import RedirectView

from config import device_status, hooks, lead_hooks
from messaging.media import serving


@never_cache
def healthz(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - a view's signature
    """Liveness: this process answers. Says nothing of the database, so that its outage restarts nobody."""
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("", RedirectView.as_view(url="/admin/", permanent=False)),
    path("healthz", healthz, name="healthz"),
    path("hooks/leads/<slug:key>", lead_hooks.receive, name="lead-hook"),
    path("hooks/<slug:gateway>", hooks.receive, name="hook"),
    path("media/<str:token>", serving.serve, name="media-file"),
    path("hooks/<slug:gateway>/<slug:key>", hooks.receive_for_device, name="device-hook"),
    path("status/<str:key>", device_status.show, name="device-status"),
    path("api/", include("config.api.urls")),
    path("admin/", admin.site.urls),
]

handler400 = "config.api.problems.bad_request"
handler403 = "config.api.problems.permission_denied"
handler404 = "config.api.problems.not_found"
handler500 = "config.api.problems.server_error"
