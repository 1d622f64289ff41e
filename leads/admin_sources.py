"""Sources of leads in the admin: the secret is shown once, in the answer that made it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Max, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from devices.admin_rotating import RotatingSecretAdmin
from devices.admin_text import NOTHING, moment
from leads.models import LeadSource, LeadSourceEvent


@admin.register(LeadSource)
class LeadSourceAdmin(RotatingSecretAdmin):
    """Who posts leads."""

    list_display = ("name", "state_label", "device", "pool", "rate_per_minute", "last_event", "created_at")
    list_filter = ("enabled",)
    search_fields = ("name",)
    search_help_text = "Name of the source"
    empty_hint = "A source is a form or a shop that posts its leads to an address of its own."
    actions_detail = ("rotate_secret",)
    on_rotation = (
        "The old one keeps working for a day, so that the sender can be changed in peace. If the old one has leaked,"
        " disable the source first: over the API a secret can be ended at once (keep_hours 0)."
    )
    readonly_fields = ("address", "previous_until")
    fieldsets = (
        (None, {"fields": ["owner", "name", "enabled", "address"]}),
        ("Leads", {"fields": ["region", "device", "pool", "consent_source"]}),
        ("Safety", {"fields": ["rate_per_minute", "previous_until"]}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[LeadSource]:
        """Without secrets: no page needs them."""
        found = super().get_queryset(request).select_related("device", "pool")
        return found.defer("secrets", "device__credentials")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Numbers are read as the installation reads them."""
        return {"region": settings.FLOTILLA_DEFAULT_REGION, **super().get_changeform_initial_data(request)}

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[tuple[str | None, dict[str, Any]]]:
        """The address once there is one."""
        without = set() if obj is not None else {"address", "previous_until"}
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name not in without]})
            for title, options in super().get_fieldsets(request, obj)
        ]

    def attach(self, request: HttpRequest, rows: list[LeadSource]) -> None:
        """When the sources on this page were last heard: one query."""
        found = LeadSourceEvent.objects.filter(source__in=rows).order_by().values_list("source_id")
        last = dict(found.annotate(Max("created_at")))
        for source in rows:
            source.heard_at = last.get(source.pk)  # type: ignore[attr-defined]

    @display(description="State", label={"on": "success", "off": "default"})
    def state_label(self, source: LeadSource) -> tuple[str, str]:
        """Whether it is listened to."""
        return ("on", "Enabled") if source.enabled else ("off", "Disabled")

    @display(description="Last lead")
    def last_event(self, source: Any) -> SafeString:
        """When it last brought a lead, within the time that is remembered."""
        return moment(source.heard_at)

    @display(description="Address")
    def address(self, source: LeadSource) -> SafeString:
        """Where it posts to."""
        if not source.pk:
            return NOTHING
        return format_html("<code>{}</code>", _address(source))

    def secret_use(self, row: LeadSource) -> str:
        """Where it posts to, and signed how."""
        return f"The sender signs each request with it and posts to {_address(row)}"


def _address(source: LeadSource) -> str:
    return f"{settings.FLOTILLA_URL}{reverse('lead-hook', args=[source.key])}"
