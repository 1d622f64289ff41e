"""Replies in the admin: all of them as a list, and a lead's on the lead's own page."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from unfold.decorators import display

from devices.admin_base import InfinitePaginator, ReadOnlyAdmin
from devices.admin_filters import VisibleSelectFilter
from devices.admin_pages import list_url, visible_or_404
from devices.admin_text import isolated, moment_column, person
from leads.admin import LeadAdmin
from leads.admin_search import ByLead
from leads.models import Lead
from messaging.admin_history import HistoryViews
from messaging.admin_transfer import TransferMixin
from messaging.models import InboundMessage

SHOWN = 200
"""Characters of a reply in a list."""
LATEST = 50
"""Replies on a lead's page."""


@admin.register(InboundMessage)
class InboundMessageAdmin(ByLead, ReadOnlyAdmin):
    """What people wrote back."""

    empty_hint = "What people write to your devices is kept here, once a device's gateway tells of it."

    list_display = ("sender", "words", "device", "received")
    list_filter = (("device", VisibleSelectFilter), ("lead", VisibleSelectFilter))
    paginator = InfinitePaginator
    sortable_by = ()  # the newest first is an index; anything else sorts the whole table
    fields = ("lead", "phone", "device", "text", "written_in_full", "received_in_full", "external_id")
    readonly_fields = ("written_in_full", "received_in_full")

    received = moment_column("received_at", "Received")
    written_in_full = moment_column("written_at", "Written", in_full=True)
    received_in_full = moment_column("received_at", "Received", in_full=True)

    def get_queryset(self, request: HttpRequest) -> QuerySet[InboundMessage]:
        """With the names that the list shows, without the devices' secrets."""
        return super().get_queryset(request).select_related("device", "lead").defer("device__credentials")

    @display(description="From")
    def sender(self, reply: InboundMessage) -> SafeString:
        """The lead's name and number."""
        return person(name=reply.lead.name if reply.lead else "", number=reply.phone)

    @display(description="Text")
    def words(self, reply: InboundMessage) -> SafeString:
        """How it begins."""
        return isolated(reply.text if len(reply.text) <= SHOWN else f"{reply.text[:SHOWN]}…")


class LeadWithReplies(HistoryViews, TransferMixin, LeadAdmin):
    """A lead's page with what hangs on it up here: leads know nothing of messages.

    Not an inline: a reply that came while somebody has the page open must not get into their way when they save it.
    """

    actions = (*LeadAdmin.actions, "transfer_leads")
    change_form_outer_after_template = "admin/leads/after.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The form, above the latest replies."""
        lead = visible_or_404(self, request, object_id)
        replies = InboundMessage.objects.visible_to(request.user).filter(lead=lead).select_related("device")
        shown = list(replies.defer("device__credentials").order_by("-pk")[: LATEST + 1])
        context = {
            **self.history_context(request, lead),
            "replies": shown[:LATEST],
            "more_replies": len(shown) > LATEST,
            "replies_url": list_url(InboundMessage, f"lead__id__exact={lead.pk}"),
        }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})


admin.site.unregister(Lead)
admin.site.register(Lead, LeadWithReplies)
