"""Enrolments in the admin: where each lead is; pausing, going on, taking out."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from devices.access import may_change
from devices.admin_base import InfinitePaginator, ReadOnlyAdmin
from devices.admin_filters import VisibleSelectFilter
from devices.admin_pages import Question, ask, confirmed, list_url
from devices.admin_text import label, many
from leads.admin_search import ByLead
from sequences import exits
from sequences.admin_words import ENROLMENT_COLOURS
from sequences.models import Enrolment, EnrolmentState, StepVersion

AT_ONCE = 10_000


@admin.register(Enrolment)
class EnrolmentAdmin(ByLead, ReadOnlyAdmin):
    """Leads inside sequences."""

    empty_hint = "A lead enters by a sequence's trigger tag, by hand from the list of leads, or by the API."

    list_display = ("lead", "sequence", "state_label", "next_step_no", "due_at", "enrolled_at", "reason")
    list_filter = (("state", ChoicesDropdownFilter), ("sequence", VisibleSelectFilter))
    paginator = InfinitePaginator
    sortable_by = ()  # the newest first is an index; anything else sorts the whole table
    actions = ("pause_enrolments", "resume_enrolments", "remove_enrolments")
    fieldsets = (
        (None, {"fields": ["lead", "sequence", "state_label", "reason", "source"]}),
        ("Now", {"fields": ["next_step_no", "due_at", "message"]}),
        ("Times", {"fields": ["enrolled_at", "finished_at"]}),
    )
    readonly_fields = ("state_label", "next_step_no")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Enrolment]:
        """With the names that the list shows."""
        return super().get_queryset(request).select_related("lead", "sequence", "message")

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits an enrolment; those who may change things may pause, resume and remove it."""
        return may_change(request.user)

    def attach(self, request: HttpRequest, rows: list[Enrolment]) -> None:
        """Positions of the steps ahead: one query for the page."""
        for row, position in zip(rows, _positions(rows), strict=True):
            row.position = position  # type: ignore[attr-defined]

    @display(description="State", ordering="state")
    def state_label(self, enrolment: Enrolment) -> SafeString:
        """The state, coloured."""
        return label(enrolment.get_state_display(), colour=ENROLMENT_COLOURS[EnrolmentState(enrolment.state)])

    @display(description="Next step")
    def next_step_no(self, enrolment: Any) -> str:
        """The position of the step ahead."""
        position = enrolment.position if hasattr(enrolment, "position") else _positions([enrolment])[0]
        return str(position) if position else "–"

    @admin.action(description="Pause the chosen leads in their sequence", permissions=["operate"])
    def pause_enrolments(self, request: HttpRequest, queryset: QuerySet[Enrolment]) -> HttpResponse | None:
        """Nothing more goes out to them until they are resumed."""
        return self._all(request, queryset, "pause")

    @admin.action(description="Resume the chosen leads", permissions=["operate"])
    def resume_enrolments(self, request: HttpRequest, queryset: QuerySet[Enrolment]) -> HttpResponse | None:
        """Go on, with at most one overdue step each."""
        return self._all(request, queryset, "resume")

    @admin.action(description="Take the chosen leads out of their sequence", permissions=["operate"])
    def remove_enrolments(self, request: HttpRequest, queryset: QuerySet[Enrolment]) -> HttpResponse | None:
        """What has not left yet never will."""
        return self._all(request, queryset, "remove")

    def _all(self, request: HttpRequest, queryset: QuerySet[Enrolment], what: str) -> HttpResponse | None:
        ids = list(queryset.order_by("pk").values_list("pk", flat=True)[:AT_ONCE])
        if not confirmed(request):
            verb, text = WORDS[what]
            question = Question(
                title=f"{verb} {many(len(ids), 'lead')}?",
                text=text,
                button=verb,
                back=list_url(Enrolment),
                hidden=(("action", f"{what}_enrolments"), *(("_selected_action", str(pk)) for pk in ids)),
                danger=what == "remove",
            )
            return ask(request, model_admin=self, question=question)
        now = timezone.now()
        match what:
            case "pause":
                number = exits.pause(enrolment_ids=ids)
            case "resume":
                number = exits.resume(enrolment_ids=ids, now=now)
            case _:
                number = exits.remove(enrolment_ids=ids, now=now)
        self.message_user(request, f"{number:,} of {len(ids):,} leads changed.", messages.SUCCESS)
        return None


WORDS = {
    "pause": ("Pause", "Nothing more of the sequence goes out to them until they are resumed."),
    "resume": ("Resume", "They go on where they were, with at most one overdue step each."),
    "remove": ("Take out", "They leave the sequence; what has not been sent yet never will be."),
}


def _positions(rows: list[Enrolment]) -> list[int | None]:
    steps = StepVersion.objects.filter(version__in={row.sequence.version_id for row in rows})
    places = {(version, key): at for version, key, at in steps.values_list("version_id", "key", "position")}
    return [places.get((row.sequence.version_id or 0, row.next_key or 0)) for row in rows]
