"""A lead's history on its page in the admin, page by page."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.urls import URLPattern, path, reverse

from devices.admin_pages import change_url, page, visible_or_404
from leads.models import Lead
from messaging import history

LATEST = 20
"""Entries on the lead's own page."""


class HistoryViews:
    """Part of :class:`messaging.admin_replies.LeadWithReplies`."""

    def history_context(self, request: HttpRequest, lead: Lead) -> dict[str, Any]:
        """The latest of it, for the lead's page."""
        return _context(lead, history.timeline(lead=lead, user=request.user, size=LATEST))

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

    def get_urls(self: Any) -> list[URLPattern]:
        """Before Django's catch-all."""
        view = self.admin_site.admin_view(self.timeline_view)
        return [
            path("<str:object_id>/timeline/", view, name="leads_lead_timeline"),
            *super().get_urls(),  # type: ignore[misc]
        ]


def _context(lead: Lead, found: history.Page) -> dict[str, Any]:
    address = reverse("admin:leads_lead_timeline", args=[lead.pk])
    older = f"{address}?{urlencode({'cursor': found.older})}" if found.older else ""
    return {"timeline": found.entries, "timeline_older": older}
