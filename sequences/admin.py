"""Sequences in the admin: their steps, their life, and how far they are."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from devices.access import may_change
from devices.admin_base import OwnedAdmin, OwnedStackedInline
from devices.admin_guide import GuideMixin
from devices.admin_guide import Step as Part
from devices.admin_pages import Question, ask, back_to, change_url, confirmed, fragment, visible_or_404
from devices.admin_text import label
from messaging.admin_preview import PreviewMixin
from messaging.admin_report import report_view
from sequences import editing, progress, services
from sequences.admin_enrolments import EnrolmentAdmin
from sequences.admin_words import SEQUENCE_COLOURS, differs, edit_question, saved_check, state_of, subject_of, timeline
from sequences.models import Sequence, SequenceState, Step

__all__ = ["EnrolmentAdmin", "SequenceAdmin"]


class StepInline(PreviewMixin, OwnedStackedInline):
    """The messages, in their order: a draft, once the sequence has been active. One after the other, as they go out."""

    model = Step
    fieldsets = (
        (None, {"fields": [("position", "delay_minutes"), ("text", "message_preview")]}),
        (
            "Attachment, template, greeting",
            {"fields": [("content_type", "media"), "template", ("greeting", "on_missing")], "classes": ["collapse"]},
        ),
        ("Hours and weekdays", {"fields": [("window_start", "window_end"), "weekdays"], "classes": ["collapse"]}),
        (
            "After a reply, or without one",
            {"fields": [("on_reply", "reply_goes_to"), ("wait_minutes", "silence_goes_to"), "ends"],
             "classes": ["collapse"]},
        ),
    )  # fmt: skip
    autocomplete_fields = ("media",)
    readonly_fields = ("message_preview",)
    ordering = ("position",)
    verbose_name_plural = "steps"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Step]:
        """With the sequence, which each step is named by: else it is read again for every one."""
        return super().get_queryset(request).select_related("sequence")

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Texts are short: several steps are to be seen at once."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and db_field.name in {"text", "template"}:
            field.widget.attrs["rows"] = 4
        return field


@admin.register(Sequence)
class SequenceAdmin(GuideMixin, OwnedAdmin):
    """Messages that follow one another."""

    guide = (
        Part("who", "Who", "What to call the sequence, and who comes into it.", (None, "Coming in")),
        Part("what", "Steps", "What goes out, one after the other, and when.", (), ("steps",)),
        Part("out", "Going out", "What ends it early for somebody, and what comes after.", ("Going out",)),
        Part("pace", "How fast", "The rhythm of each device, and what becomes of steps that are late.", ("Pacing",)),
        Part("check", "Check", "What stands in the way of the steps as they are saved. Saving sends nothing."),
    )
    guide_done = "Save and go on"

    list_display = ("name", "state_label", "trigger", "steps", "active", "completed", "percent", "created_at")
    list_filter = (("state", ChoicesDropdownFilter),)
    search_fields = ("name",)
    search_help_text = "Name of the sequence"
    empty_hint = "A sequence sends its steps one after the other to each lead that enters."
    autocomplete_fields = ("next_sequence",)
    inlines = (StepInline,)
    readonly_fields = ("state_label", "way")
    actions_detail = ("activate_sequence", "apply_sequence", "pause_sequence", "resume_sequence")
    change_form_outer_before_template = "admin/sequences/sequence_progress.html"
    fieldsets = (
        (None, {"fields": ["owner", "name", "state_label", "way"]}),
        ("Coming in", {"fields": ["trigger", "re_entry"]}),
        ("Going out", {"fields": ["exit_on_reply", "goal", "on_failure", "next_sequence"]}),
        ("Pacing", {"fields": ["delay_min_seconds", "delay_max_seconds", "late_hours", "time_zone"]}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[tuple[str | None, dict[str, Any]]]:
        """A sequence has no state and no way before it exists; the way stands above where the steps are in force."""
        fieldsets = super().get_fieldsets(request, obj)
        shut = {"state_label", "way"} if obj is None else {"way"} if not differs(obj) else set[str]()
        (_, first), *rest = fieldsets
        fields = [name for name in first["fields"] if name not in shut]
        return [(None, {**first, "fields": fields}), *rest]

    def guide_check(self, obj: Sequence | None) -> dict[str, Any]:
        """Of the steps as they are saved: a draft that nobody has saved yet is told of on the next page."""
        return saved_check(obj)

    def guide_next(self, obj: Sequence) -> str:
        """The question before the steps are put in force."""
        name = "activate" if obj.state == SequenceState.DRAFT else "apply"
        return reverse(f"admin:sequences_sequence_{name}_sequence", args=[obj.pk])

    def get_urls(self) -> list[URLPattern]:
        """The moving part of a sequence's page."""
        view = self.admin_site.admin_view(self.progress_view)
        report = self.admin_site.admin_view(self.report_view)
        return [
            path("<int:object_id>/progress/", view, name="sequences_sequence_progress"),
            path("<int:object_id>/report/", report, name="sequences_sequence_report"),
            *super().get_urls(),
        ]

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[Any]:
        """Only what applies to the sequence as it is."""
        sequence = self.get_queryset(request).filter(pk=object_id).first() if str(object_id).isdecimal() else None
        apply = {
            SequenceState.DRAFT: {"activate_sequence"},
            SequenceState.ACTIVE: {"apply_sequence", "pause_sequence"},
            SequenceState.PAUSED: {"apply_sequence", "resume_sequence"},
        }
        wanted = apply[SequenceState(sequence.state)] if sequence is not None else set[str]()
        found = super().get_actions_detail(request, object_id)
        return [each for each in found if any(each.action_name.endswith(f"_{name}") for name in wanted)]

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Those who may change things."""
        return may_change(request.user)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only what never was active and nobody has been enrolled in: what was sent keeps its history."""
        used = isinstance(obj, Sequence) and (obj.version_id is not None or obj.enrolments.exists())
        return super().has_delete_permission(request, obj) and not used

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The sequence, below how far it is. Somebody else's is as if it were not there."""
        sequence = self.get_object(request, object_id)
        context: dict[str, Any] = {}
        if sequence is not None:
            context = {
                **state_of(sequence, now=timezone.now()),
                "poll_url": reverse("admin:sequences_sequence_progress", args=[sequence.pk]),
            }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def progress_view(self, request: HttpRequest, object_id: int) -> JsonResponse:
        """The moving part of that page."""
        sequence = visible_or_404(self, request, str(object_id))
        return fragment(template="admin/sequences/sequence_state.html", context=state_of(sequence, now=timezone.now()))

    def report_view(self, request: HttpRequest, object_id: int) -> Any:
        """The device report: all of it or one step, device by device, and the leads behind every number."""
        sequence = visible_or_404(self, request, str(object_id))
        return report_view(request, model_admin=self, subject=subject_of(sequence))

    def attach(self, request: HttpRequest, rows: list[Sequence]) -> None:
        """Steps and enrolments of the sequences on this page: four queries, none of them over enrolments."""
        steps = dict(Step.objects.filter(sequence__in=rows).order_by().values_list("sequence_id").annotate(Count("id")))
        found = progress.of(rows, now=timezone.now())
        for row in rows:
            row.step_count = steps.get(row.pk, 0)  # type: ignore[attr-defined]
            row.far = found[row.pk]  # type: ignore[attr-defined]

    @display(description="State", ordering="state")
    def state_label(self, sequence: Sequence) -> SafeString:
        """The state, coloured."""
        return label(sequence.get_state_display(), colour=SEQUENCE_COLOURS[SequenceState(sequence.state)])

    @display(description="The way")
    def way(self, sequence: Sequence) -> Any:
        """The steps of the draft in words."""
        return timeline(sequence)

    @display(description="Steps")
    def steps(self, sequence: Any) -> str:
        """How many messages it has."""
        return f"{sequence.step_count:,}"

    @display(description="Active")
    def active(self, sequence: Any) -> str:
        """Leads that have a step ahead."""
        return f"{sequence.far.active + sequence.far.paused:,}"

    @display(description="Completed")
    def completed(self, sequence: Any) -> str:
        """Leads that came to the end."""
        return f"{sequence.far.completed:,}"

    @display(description="Done")
    def percent(self, sequence: Any) -> str:
        """Share of leads with nothing ahead."""
        return f"{sequence.far.percent:.0f} %" if sequence.far.total else "–"

    @action(description="Activate", icon="play_arrow", permissions=["operate"], variant=ActionVariant.PRIMARY)
    def activate_sequence(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let leads in; what is wrong with the draft is named first."""
        sequence = visible_or_404(self, request, object_id)
        problems = editing.problems_of(sequence)
        if not confirmed(request) or problems:
            trigger = f"Leads with the tag “{sequence.trigger}” enter by themselves. " if sequence.trigger else ""
            question = Question(
                title=f"Activate “{sequence}”?",
                text=f"{trigger}Its steps go out to whoever enters.",
                button="" if problems else "Activate",
                back=change_url(sequence),
                facts=(("Steps", sequence.steps.count()),),
                warnings=tuple(problem.text for problem in problems),
            )
            return ask(request, model_admin=self, obj=sequence, question=question)
        services.activate(sequence=sequence, by=cast("User", request.user), now=timezone.now())
        self._tell(request, sequence, "is active.")
        return back_to(sequence)

    @action(description="Apply the steps", icon="published_with_changes", permissions=["operate"])
    def apply_sequence(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what the draft changes and for how many; on yes, make it the version in force."""
        sequence = visible_or_404(self, request, object_id)
        seen = editing.preview(sequence)
        if not confirmed(request) or seen.problems or request.POST.get("digest") != seen.digest:
            return ask(request, model_admin=self, obj=sequence, question=edit_question(sequence, seen))
        try:
            version = editing.apply(
                sequence=sequence, digest=seen.digest, by=cast("User", request.user), now=timezone.now()
            )
        except (editing.DraftChanged, editing.NotReady):
            return ask(
                request, model_admin=self, obj=sequence, question=edit_question(sequence, editing.preview(sequence))
            )
        words = f"has version {version.number} in force." if version else "was up to date."
        self._tell(request, sequence, words)
        return back_to(sequence)

    @action(description="Pause", icon="pause", permissions=["operate"])
    def pause_sequence(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let nobody in and send nothing more."""
        return self._operate(request, object_id, pauses=True)

    @action(description="Resume", icon="play_arrow", permissions=["operate"])
    def resume_sequence(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go on."""
        return self._operate(request, object_id, pauses=False)

    def _operate(self, request: HttpRequest, object_id: str, *, pauses: bool) -> HttpResponse:
        """Ask, then do."""
        sequence = visible_or_404(self, request, object_id)
        if not confirmed(request):
            far = progress.of([sequence], now=timezone.now())[sequence.pk]
            text = (
                "Nobody enters, and nothing more is sent, until it is resumed."
                if pauses
                else f"Of what became overdue one step per lead goes out; what is later than {sequence.late_hours:,} "
                "hours is skipped."
            )
            question = Question(
                title=f"{'Pause' if pauses else 'Resume'} “{sequence}”?",
                text=text,
                button="Pause" if pauses else "Resume",
                back=change_url(sequence),
                facts=(("Leads that are in it", f"{far.active + far.paused:,}"),),
            )
            return ask(request, model_admin=self, obj=sequence, question=question)
        if pauses:
            services.pause(sequence=sequence)
        else:
            services.resume(sequence=sequence, now=timezone.now())
        self._tell(request, sequence, "is paused." if pauses else "goes on.")
        return back_to(sequence)

    def _tell(self, request: HttpRequest, sequence: Sequence, words: str) -> None:
        self.log_change(request, sequence, f"“{sequence}” {words}")
        self.message_user(request, f"“{sequence}” {words}", messages.SUCCESS)
