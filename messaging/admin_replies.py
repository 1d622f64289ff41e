"""Replies in the admin: all of them as a list, and a lead's on the lead's own page."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from devices.admin_base import InfinitePaginator, ReadOnlyAdmin, ReadOnlyInline
from devices.admin_filters import VisibleSelectFilter
from devices.admin_text import isolated, moment_column, person
from leads.admin import LeadAdmin
from leads.models import Lead
from messaging.models import InboundMessage

SHOWN = 200
"""Characters of a reply in a list."""


@admin.register(InboundMessage)
class InboundMessageAdmin(ReadOnlyAdmin):
    """What people wrote back."""

    list_display = ("sender", "words", "device", "received")
    list_filter = (("device", VisibleSelectFilter),)
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


class ReplyInline(ReadOnlyInline):
    """What a lead wrote back, the newest first."""

    model = InboundMessage
    fields = ("received", "device", "text")
    readonly_fields = ("received",)
    ordering = ("-id",)
    verbose_name_plural = "replies"
    hide_title = True
    per_page = 20

    received = moment_column("received_at", "Received", in_full=True)

    def get_queryset(self, request: HttpRequest) -> QuerySet[InboundMessage]:
        """With the devices' names."""
        return super().get_queryset(request).select_related("device").defer("device__credentials")


class LeadWithReplies(LeadAdmin):
    """A lead's page with what hangs on it up here: leads know nothing of messages."""

    inlines = (*LeadAdmin.inlines, ReplyInline)


admin.site.unregister(Lead)
admin.site.register(Lead, LeadWithReplies)
