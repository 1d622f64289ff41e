"""A lead's history on its page in the admin, page by page."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from devices.access import may_change
from devices.admin_pages import change_url, page, visible_or_404
from leads.models import Lead
from messaging import disclosing, history
from messaging.api_disclose import zip_response

LATEST = 20
"""Entries on the lead's own page."""


class HistoryViews:
    """Part of :class:`messaging.admin_replies.LeadWithReplies`."""

    def history_context(self, request: HttpRequest, lead: Lead) -> dict[str, Any]:
        """The latest of it, for the lead's page."""
        found = _context(lead, history.timeline(lead=lead, user=request.user, size=LATEST))
        if Lead.objects.changeable_by(request.user).filter(pk=lead.pk).exists():
            found["timeline_everything"] = reverse("admin:leads_lead_everything", args=[lead.pk])
        return found

    def timeline_view(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """All of it, from a cursor on."""
        lead: Lead = visible_or_404(self, request, object_id)
        try:
            found = history.timeline(lead=lead, user=request.user, cursor=request.GET.get("cursor", ""))
        except history.BadCursor:
            return HttpResponseBadRequest("Go back and take the link again.")
        context = {**_context(lead, found), "back": change_url(lead), "original": lead}
        template = "admin/leads/timeline_page.html"
        return page(request, model_admin=self, template=template, title=f"History of {lead}", context=context)

    def everything_view(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """All that is known of the person, as a file to hand out; for those who may change the lead."""
        if not may_change(request.user):
            raise PermissionDenied
        shown: Lead = visible_or_404(self, request, object_id)
        lead = get_object_or_404(Lead.objects.changeable_by(request.user), pk=shown.pk)
        return zip_response(disclosing.disclose(lead=lead, by=cast("User", request.user), now=timezone.now()))

    def get_urls(self: Any) -> list[URLPattern]:
        """Before Django's catch-all."""
        view = self.admin_site.admin_view
        return [
            path("<str:object_id>/timeline/", view(self.timeline_view), name="leads_lead_timeline"),
            path("<str:object_id>/everything.zip", view(self.everything_view), name="leads_lead_everything"),
            *super().get_urls(),  # type: ignore[misc]
        ]


def _context(lead: Lead, found: history.Page) -> dict[str, Any]:
    address = reverse("admin:leads_lead_timeline", args=[lead.pk])
    older = f"{address}?{urlencode({'cursor': found.older})}" if found.older else ""
    return {"timeline": found.entries, "timeline_older": older}
