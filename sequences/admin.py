"""Sequences and enrolments in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from devices.admin_base import InfinitePaginator, OwnedAdmin, OwnedInline, ReadOnlyAdmin
from devices.admin_filters import VisibleSelectFilter
from devices.admin_text import label
from sequences.models import Enrolment, EnrolmentState, Sequence, SequenceState, Step, StepVersion

SEQUENCE_COLOURS = {
    SequenceState.DRAFT: "default",
    SequenceState.ACTIVE: "success",
    SequenceState.PAUSED: "warning",
}
ENROLMENT_COLOURS = {
    EnrolmentState.ACTIVE: "info",
    EnrolmentState.PAUSED: "warning",
    EnrolmentState.COMPLETED: "success",
    EnrolmentState.EXITED: "default",
    EnrolmentState.FAILED: "danger",
}


class StepInline(OwnedInline):
    """The messages, in their order."""

    model = Step
    fields = ("position", "delay_minutes", "text")
    ordering = ("position",)


@admin.register(Sequence)
class SequenceAdmin(OwnedAdmin):
    """Messages that follow one another."""

    list_display = ("name", "state_label", "trigger", "steps", "active", "completed", "created_at")
    list_filter = (("state", ChoicesDropdownFilter),)
    search_fields = ("name",)
    search_help_text = "Name of the sequence"
    autocomplete_fields = ("next_sequence",)
    inlines = (StepInline,)
    fieldsets = (
        (None, {"fields": ["owner", "name", "state", "trigger", "next_sequence"]}),
        ("Pacing", {"fields": ["delay_min_seconds", "delay_max_seconds"]}),
    )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only while nobody has been enrolled: what was sent keeps its history."""
        used = isinstance(obj, Sequence) and obj.enrolments.exists()
        return super().has_delete_permission(request, obj) and not used

    def attach(self, request: HttpRequest, rows: list[Sequence]) -> None:
        """Steps and enrolments of the sequences on this page: two queries."""
        steps = dict(Step.objects.filter(sequence__in=rows).order_by().values_list("sequence_id").annotate(Count("id")))
        enrolled: dict[tuple[int, str], int] = {
            (sequence_id, state): number
            for sequence_id, state, number in Enrolment.objects.filter(sequence__in=rows)
            .order_by()
            .values_list("sequence_id", "state")
            .annotate(Count("id"))
        }
        for row in rows:
            row.step_count = steps.get(row.pk, 0)  # type: ignore[attr-defined]
            row.active_count = enrolled.get((row.pk, EnrolmentState.ACTIVE), 0)  # type: ignore[attr-defined]
            row.completed_count = enrolled.get((row.pk, EnrolmentState.COMPLETED), 0)  # type: ignore[attr-defined]

    @display(description="State", ordering="state", label=SEQUENCE_COLOURS)
    def state_label(self, sequence: Sequence) -> tuple[str, str]:
        """The state, coloured."""
        return sequence.state, sequence.get_state_display()

    @display(description="Steps")
    def steps(self, sequence: Any) -> str:
        """How many messages it has."""
        return f"{sequence.step_count:,}"

    @display(description="Active")
    def active(self, sequence: Any) -> str:
        """Leads that have a step ahead."""
        return f"{sequence.active_count:,}"

    @display(description="Completed")
    def completed(self, sequence: Any) -> str:
        """Leads that came to the end."""
        return f"{sequence.completed_count:,}"


@admin.register(Enrolment)
class EnrolmentAdmin(ReadOnlyAdmin):
    """Leads inside sequences."""

    list_display = ("lead", "sequence", "state_label", "next_step_no", "due_at", "enrolled_at", "reason")
    list_filter = (("state", ChoicesDropdownFilter), ("sequence", VisibleSelectFilter))
    paginator = InfinitePaginator
    sortable_by = ()  # the newest first is an index; anything else sorts the whole table
    fieldsets = (
        (None, {"fields": ["lead", "sequence", "state_label", "reason"]}),
        ("Now", {"fields": ["next_step_no", "due_at", "message"]}),
        ("Times", {"fields": ["enrolled_at", "finished_at"]}),
    )
    readonly_fields = ("state_label", "next_step_no")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Enrolment]:
        """With the names that the list shows."""
        return super().get_queryset(request).select_related("lead", "sequence")

    @display(description="State", ordering="state")
    def state_label(self, enrolment: Enrolment) -> SafeString:
        """The state, coloured."""
        return label(enrolment.get_state_display(), colour=ENROLMENT_COLOURS[EnrolmentState(enrolment.state)])

    def attach(self, request: HttpRequest, rows: list[Enrolment]) -> None:
        """Positions of the steps ahead: one query for the page."""
        steps = StepVersion.objects.filter(version__in=[row.sequence.version_id for row in rows])
        places = {(step.version_id, step.key): step.position for step in steps}
        for row in rows:
            row.position = places.get((row.sequence.version_id or 0, row.next_key or 0))  # type: ignore[attr-defined]

    @display(description="Next step")
    def next_step_no(self, enrolment: Any) -> str:
        """The position of the step ahead."""
        if not hasattr(enrolment, "position"):
            self.attach(None, [enrolment])  # type: ignore[arg-type]
        return str(enrolment.position) if enrolment.position else "–"
