"""Runs of campaigns in the admin: watch, pause, resume, cancel."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from campaigns import answers, reports, services
from campaigns.admin_assign import AssignMixin
from campaigns.admin_words import RUN_COLOURS, left_out_words, state_words
from campaigns.models import Run, RunState
from campaigns.running import batches_of, progress_of
from campaigns.states import LIVE
from devices.access import may_change
from devices.admin_base import ReadOnlyAdmin
from devices.admin_filters import VisibleSelectFilter
from devices.admin_pages import ask, back_to, change_url, confirmed, fragment, visible_or_404
from messaging.admin import question_about, tell
from messaging.admin_progress import BATCH_COLOURS, bar, parts
from messaging.admin_report import Part, Subject, report_view
from messaging.admin_retry import question_about as retry_question
from messaging.admin_retry import tell as tell_retried
from messaging.models import BatchState
from messaging.retrying import failed_of_batch


@admin.register(Run)
class RunAdmin(AssignMixin, ReadOnlyAdmin):
    """Occurrences of campaigns."""

    list_display = ("campaign", "state_label", "progress", "planned_at", "finished_at", "reason")
    list_display_links = ("campaign",)
    list_filter = (("state", ChoicesDropdownFilter), ("campaign", VisibleSelectFilter))
    search_fields = ("campaign__name",)
    search_help_text = "Name of the campaign"
    empty_hint = "A run begins when a campaign is launched, or when its time has come."
    actions_detail = ("pause_run", "resume_run", "retry_run", "assign_run", "cancel_run")
    change_form_outer_before_template = "admin/campaigns/run_progress.html"
    fieldsets = (
        (None, {"fields": ["campaign", "batch"]}),
        ("Times", {"fields": ["planned_at", "triggered_at", "finished_at", "occurrence"]}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        """With the names that the list and the page show."""
        return super().get_queryset(request).select_related("campaign", "batch").defer("batch__content")

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[Any]:
        """The buttons stand in the moving part instead, where they follow the run's state."""
        return []

    def attach(self, request: HttpRequest, rows: list[Run]) -> None:
        """Counts of the runs on this page: two queries."""
        counts = progress_of(rows)
        for run in rows:
            run.counts = counts[run.pk] if run.batch_id else None  # type: ignore[attr-defined]

    def get_urls(self) -> list[URLPattern]:
        """The moving part of a run's page."""
        view = self.admin_site.admin_view(self.progress_view)
        devices = self.admin_site.admin_view(self.devices_view)
        return [
            path("<int:object_id>/progress/", view, name="campaigns_run_progress"),
            path("<int:object_id>/devices/", devices, name="campaigns_run_devices"),
            *super().get_urls(),
        ]

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits a run; those who may change things may pause, resume and cancel it."""
        return may_change(request.user)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The row, below how far it is."""
        run = visible_or_404(self, request, object_id)
        context = {**_state_of(run, request), "poll_url": reverse("admin:campaigns_run_progress", args=[run.pk])}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def progress_view(self, request: HttpRequest, object_id: int) -> JsonResponse:
        """The moving part of that page."""
        context = _state_of(visible_or_404(self, request, str(object_id)), request)
        return fragment(template="admin/campaigns/run_state.html", context=context, done=context["done"])

    def devices_view(self, request: HttpRequest, object_id: int) -> Any:
        """The device report: how far each of its devices is, and the leads behind every number."""
        run = visible_or_404(self, request, str(object_id))
        return report_view(request, model_admin=self, subject=_subject(run))

    @display(description="State", ordering="state", label=RUN_COLOURS)
    def state_label(self, run: Run) -> tuple[str, str]:
        """The state, coloured."""
        return run.state, state_words(run)

    @display(description="Progress")
    def progress(self, run: Any) -> SafeString | str:
        """How far it is."""
        return bar(run.counts) if run.counts is not None else "–"

    @action(description="Pause", icon="pause", permissions=["operate"])
    def pause_run(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """No message of this run is claimed any more."""
        return self._operate(request, object_id, "pause")

    @action(description="Resume", icon="play_arrow", permissions=["operate"])
    def resume_run(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go on with what is left."""
        return self._operate(request, object_id, "resume")

    @action(description="Retry failed", icon="replay", permissions=["operate"])
    def retry_run(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A new round for everything of it that failed, where that is sensible."""
        run = visible_or_404(self, request, object_id)
        if not confirmed(request):
            ids = [pk for batch_id in batches_of([run])[run.pk] for pk in failed_of_batch(batch_id)]
            question = retry_question(ids, back=change_url(run))
            return ask(request, model_admin=self, obj=run, question=question)
        done = services.retry_failed(run, now=timezone.now())
        tell_retried(self, request, done)
        if done.retried:
            self.log_change(request, run, f"{done.retried:,} failed messages retried.")
        return back_to(run)

    @action(description="Cancel", icon="cancel", permissions=["operate"], variant=ActionVariant.DANGER)
    def cancel_run(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End it and cancel what has not been sent."""
        return self._operate(request, object_id, "cancel")

    def _operate(self, request: HttpRequest, object_id: str, what: str) -> HttpResponse:
        """Ask, then do."""
        run = visible_or_404(self, request, object_id)
        if not confirmed(request):
            question = question_about(what, name=str(run.campaign), counts=services.progress(run), back=change_url(run))
            return ask(request, model_admin=self, obj=run, question=question)
        match what:
            case "pause":
                changed = services.pause(run)
            case "resume":
                changed = services.resume(run, now=timezone.now())
            case _:
                changed = services.cancel(run, now=timezone.now())
        tell(self, request, run, what=what, changed=changed)
        return back_to(run)


def _subject(run: Run) -> Subject:
    """What the device report is about: the run, and its variants where it has any."""
    batches = batches_of([run])[run.pk]
    variants = run.variants.order_by("lower").values_list("batch_id", "name")
    return Subject(
        key=f"run-{run.pk}",
        name=str(run),
        row=run,
        batches=tuple(batches),
        parts=tuple(Part(f"run-{run.pk}-{batch_id}", name, (batch_id,)) for batch_id, name in variants),
        part_word="Variant",
        replied=answers.replied_of(batches),
        answered="run_replied",
        back=change_url(run),
    )


def _state_of(run: Run, request: HttpRequest) -> dict[str, Any]:
    """What the moving part shows."""
    told = reports.report(run, now=timezone.now())
    counts = told.counts
    live = run.state in LIVE
    operable = live and may_change(request.user)
    paused = live and run.batch is not None and run.batch.state == BatchState.PAUSED
    return {
        "run": run,
        "counts": counts,
        "parts": parts(counts),
        "bar": bar(counts),
        "words": state_words(run),
        "colour": BATCH_COLOURS[BatchState.PAUSED] if paused else RUN_COLOURS[RunState(run.state)],
        "left_out": left_out_words(run.left_out),
        "filling": run.batch is not None and run.batch.filled_at is None and live,
        "can_pause": operable and run.batch is not None and not paused,
        "can_resume": operable and paused,
        "can_cancel": operable,
        "can_retry": counts.failed > 0 and may_change(request.user),
        "pause_url": reverse("admin:campaigns_run_pause_run", args=[run.pk]),
        "resume_url": reverse("admin:campaigns_run_resume_run", args=[run.pk]),
        "cancel_url": reverse("admin:campaigns_run_cancel_run", args=[run.pk]),
        "retry_url": reverse("admin:campaigns_run_retry_run", args=[run.pk]),
        "told": told,
        "variants": [(part, bar(part.counts)) for part in told.variants],
        "can_assign": bool(run.unassigned) and may_change(request.user),
        "assign_url": reverse("admin:campaigns_run_assign_run", args=[run.pk]),
        "device_list_url": reverse("admin:campaigns_run_devices", args=[run.pk]),
        "messages_url": f"{reverse('admin:messaging_message_changelist')}?of=run-{run.pk}",
        "done": not live,
    }
