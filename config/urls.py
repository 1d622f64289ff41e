"""All addresses. Static files are served by WhiteNoise before any of these."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from config import device_status, flower_door, hooks, lead_hooks, watching
from messaging.media import serving

urlpatterns = [
    path("", RedirectView.as_view(url="/admin/", permanent=False)),
    path("healthz", watching.healthz, name="healthz"),
    path("readyz", watching.readyz, name="readyz"),
    path("readyz/web", watching.readyz_web, name="readyz-web"),
    path("metrics", watching.MetricsView.as_view(), name="metrics"),
    path("auth/flower", flower_door.may_see_flower, name="flower-door"),
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
