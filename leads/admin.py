"""Leads and their imports in the admin."""

from __future__ import annotations

from typing import Any, cast

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter, TextFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from devices.admin_base import OwnedAdmin, OwnedForm, ReadOnlyAdmin
from devices.admin_filters import VisibleSelectFilter
from devices.admin_text import isolated, phone
from leads import changes, consent, optout
from leads.admin_bulk import BulkMixin
from leads.admin_consent import ADMIN, ConsentMixin
from leads.admin_import import ImportViews
from leads.admin_segments import InSegmentFilter
from leads.admin_sources import LeadSourceAdmin  # noqa: F401 - registers itself
from leads.api_fields import csv_response
from leads.exports import lead_lines
from leads.models import Lead, LeadImport, LeadStatus
from leads.phones import PhoneProblem, parse_phone
from leads.searching import named

TAG_HELP = "Separate tags with commas."
STATUS_COLOURS = {LeadStatus.PROSPECT: "info", LeadStatus.CUSTOMER: "success"}
IMPORT_COLOURS = {
    LeadImport.State.DRAFT: "warning",
    LeadImport.State.WAITING: "info",
    LeadImport.State.RUNNING: "info",
    LeadImport.State.FINISHED: "success",
    LeadImport.State.FAILED: "danger",
}


class TagFilter(TextFilter):
    """Leads that carry one exact tag (the GIN index on the column)."""

    field = ""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Lead]) -> QuerySet[Lead]:
        """Those with the tag."""
        tag = (self.value() or "").strip()
        return queryset.filter(**{f"{self.field}__contains": [tag]}) if tag else queryset


class NicheFilter(TagFilter):
    """By niche."""

    title = "niche"
    parameter_name = field = "niches"


class TriggerFilter(TagFilter):
    """By trigger tag."""

    title = "trigger"
    parameter_name = field = "triggers"


class YesNoFilter(admin.SimpleListFilter):
    """Whether a moment is recorded."""

    field = ""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Yes and no."""
        return [("yes", "Yes"), ("no", "No")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Lead]) -> QuerySet[Lead]:
        """Rows with or without it."""
        if self.value() not in {"yes", "no"}:
            return queryset
        return queryset.filter(**{f"{self.field}__isnull": self.value() == "no"})


class ConsentFilter(YesNoFilter):
    """By recorded consent."""

    title = "consent recorded"
    parameter_name = "consent"
    field = "consent_at"


class OptedOutFilter(YesNoFilter):
    """By opt-out."""

    title = "opted out"
    parameter_name = "opted_out"
    field = "opted_out_at"


class ReviewFilter(YesNoFilter):
    """By what waits for a decision."""

    title = "held for review"
    parameter_name = "in_review"
    field = "review_at"


class LeadForm(OwnedForm):
    """A lead: the number becomes E.164, consent says where it comes from."""

    def clean_phone(self) -> str:
        """The number in E.164, or what is wrong with it."""
        try:
            return parse_phone(self.cleaned_data["phone"], region=settings.FLOTILLA_DEFAULT_REGION)
        except PhoneProblem as problem:
            raise ValidationError(problem.text, code=problem.code) from None

    def clean(self) -> dict[str, Any]:
        """Consent without a source cannot be shown to anybody who asks."""
        cleaned = super().clean()
        if cleaned.get("consent_at") and not cleaned.get("consent_source"):
            self.add_error("consent_source", "Say where and how they agreed.")
        return cleaned


@admin.register(Lead)
class LeadAdmin(ConsentMixin, BulkMixin, OwnedAdmin):
    """People."""

    form = LeadForm
    list_display = ("display_name", "number", "status_label", "tags", "device", "consent", "opted_out")
    list_filter = (
        InSegmentFilter,
        ("status", ChoicesDropdownFilter),
        NicheFilter,
        TriggerFilter,
        OptedOutFilter,
        ConsentFilter,
        ReviewFilter,
        ("device", VisibleSelectFilter),
    )
    search_fields = ("name", "phone")
    search_help_text = "Beginnings of names, or a whole phone number"
    empty_hint = "Import a list, add people one by one, or let a form send them by webhook."
    sortable_by = ()  # the newest first is an index; anything else sorts the whole table
    autocomplete_fields = ("device",)
    actions_list = ("import_leads",)
    actions_detail = ("opt_out", "opt_in", "dismiss_review", "erase")
    actions: tuple[str, ...] = ("export_csv", "edit_leads", "merge_leads", "opt_out_leads", "dismiss_reviews")
    readonly_fields = ("opted_out_at", "review_at", "consent_history")
    fieldsets = (
        (None, {"fields": ["owner", "phone", "name", "status", "device"]}),
        ("Tags", {"fields": ["niches", "triggers"], "description": TAG_HELP}),
        ("Consent", {"fields": ["consent_at", "consent_source", "opted_out_at", "review_at", "consent_history"]}),
        ("More", {"fields": ["notes", "custom", "time_zone"]}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Lead]:
        """With the devices' names, without their secrets."""
        return super().get_queryset(request).select_related("device").defer("device__credentials")

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[Any]:
        """The buttons that make sense for this lead."""
        fitting = self.consent_actions(request, str(object_id))
        found = super().get_actions_detail(request, object_id)
        return [action for action in found if any(action.action_name.endswith(f"_{name}") for name in fitting)]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """What they agreed to before is kept, and a number that is suppressed stays so."""
        now, by = timezone.now(), cast("User", request.user)
        with (
            consent.editing(lead=obj, channel=ADMIN, now=now, by=by),
            changes.noted_edit(lead=obj, channel=changes.Channel.ADMIN, now=now, by=by),
        ):
            super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """A refusal outlives the row."""
        optout.delete_lead(lead=obj, now=timezone.now())

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Lead], search_term: str
    ) -> tuple[QuerySet[Lead], bool]:
        """A phone number is looked up as such, anything else by the words of the name; both have an index."""
        term = search_term.strip()
        if not term:
            return queryset, False
        phone = phone_in(term)
        return queryset.filter(phone=phone) if phone else named(queryset, term), False

    @display(description="Name", ordering="name")
    def display_name(self, lead: Lead) -> SafeString:
        """The name, or the number where there is none."""
        return isolated(lead.name) if lead.name else phone(lead.phone)

    @display(description="Phone", ordering="phone")
    def number(self, lead: Lead) -> SafeString:
        """The number."""
        return phone(lead.phone)

    @display(description="Status", ordering="status", label=STATUS_COLOURS)
    def status_label(self, lead: Lead) -> tuple[str, str]:
        """The status, coloured."""
        return lead.status, lead.get_status_display()

    @display(description="Tags")
    def tags(self, lead: Lead) -> str:
        """Niches, then triggers."""
        return ", ".join([*lead.niches, *lead.triggers]) or "–"

    @display(description="Consent", boolean=True)
    def consent(self, lead: Lead) -> bool:
        """Whether consent is recorded."""
        return lead.consent_at is not None

    @display(description="Opted out", label={"yes": "danger", "review": "warning"})
    def opted_out(self, lead: Lead) -> tuple[str, str] | None:
        """Whether they asked to be left alone, or perhaps did."""
        if lead.opted_out_at:
            return "yes", "Opted out"
        return ("review", "Held for review") if lead.review_at else None

    @admin.action(description="Export as CSV", permissions=["view"])
    def export_csv(self, request: HttpRequest, queryset: QuerySet[Lead]) -> StreamingHttpResponse:
        """What is ticked; "select all" makes it everything that the filters and the search let through."""
        return csv_response(lead_lines(queryset), filename="leads.csv")

    @action(description="Import leads", icon="upload_file", permissions=["add"], variant=ActionVariant.PRIMARY)
    def import_leads(self, request: HttpRequest) -> HttpResponse:
        """To the page that takes a file."""
        return redirect("admin:leads_leadimport_add")


@admin.register(LeadImport)
class LeadImportAdmin(ImportViews, ReadOnlyAdmin):
    """Files of leads: hand one in, watch it, download what could not be taken."""

    list_display = ("filename", "state_label", "rows", "accepted", "merged", "skipped", "rejected", "created_at")
    list_filter = (("state", ChoicesDropdownFilter),)
    search_fields = ("filename",)
    search_help_text = "Name of the file"
    empty_hint = "A CSV or Excel file is looked at first; nothing is taken in before you say so."

    @display(description="State", ordering="state", label=IMPORT_COLOURS)
    def state_label(self, lead_import: LeadImport) -> tuple[str, str]:
        """The state, coloured."""
        return lead_import.state, lead_import.get_state_display()

    @display(description="Rows")
    def rows(self, lead_import: LeadImport) -> str:
        """How far it is."""
        done, total = lead_import.rows_done, lead_import.rows_total
        return f"{done:,}" if total is None or total == done else f"{done:,} of {total:,}"

    def get_urls(self) -> list[URLPattern]:
        """The import's own pages before Django's catch-all."""
        view = self.admin_site.admin_view
        return [
            path("<int:object_id>/progress/", view(self.progress_view), name="leads_leadimport_progress"),
            path("<int:object_id>/problems.csv", view(self.problems_view), name="leads_leadimport_problems"),
            path("<int:object_id>/draft/", view(self.draft_view), name="leads_leadimport_draft"),
            *super().get_urls(),
        ]


def phone_in(term: str) -> str:
    """The E.164 number that ``term`` is, or nothing."""
    try:
        return parse_phone(term, region=settings.FLOTILLA_DEFAULT_REGION)
    except PhoneProblem:
        return ""
