"""Batches and messages in the admin: to look at, and to pause, resume or cancel; never to edit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from devices.access import may_change
from devices.admin_base import InfinitePaginator, ReadOnlyAdmin, ReadOnlyInline
from devices.admin_filters import VisibleSelectFilter
from devices.admin_pages import Question, ask, back_to, change_url, confirmed, fragment, visible_or_404
from devices.admin_text import label, moment_column, person, phone
from leads.models import Lead
from leads.phones import PhoneProblem, parse_phone
from messaging import admin_halt as admin_halt  # noqa: PLC0414 - it registers itself
from messaging import admin_media as admin_media  # noqa: PLC0414 - the same
from messaging import admin_outgoing as admin_outgoing  # noqa: PLC0414 - the same
from messaging import services
from messaging.admin_erase import EraseViews
from messaging.admin_filters import GroupFilter, StateFilter
from messaging.admin_life import STATE_COLOURS, LifeViews
from messaging.admin_progress import BATCH_COLOURS, bar, parts
from messaging.admin_replies import InboundMessageAdmin
from messaging.admin_retry import RetryMixin, retry_of_batch
from messaging.admin_settling import SettlingActions
from messaging.life import OUTCOMES
from messaging.models import Attempt, Batch, BatchState, Message
from messaging.states import State

__all__ = ["BatchAdmin", "InboundMessageAdmin", "MessageAdmin"]

TIMES = (
    *("created_in_full", "due_in_full", "queued_in_full"),
    *("sent_in_full", "delivered_in_full", "read_in_full", "presumed_in_full", "failed_in_full", "archived_in_full"),
)
LIVE = (BatchState.RUNNING, BatchState.PAUSED)


class AttemptInline(ReadOnlyInline):
    """Every call to a gateway for one message."""

    model = Attempt
    fields = ("which", "device", "started", "finished", "result", "error", "text")
    readonly_fields = ("which", "started", "finished", "result", "error")
    ordering = ("release_no",)  # as they happened, over all rounds
    verbose_name_plural = "attempts"
    hide_title = True

    started = moment_column("started_at", "Started", in_full=True)
    finished = moment_column("finished_at", "Finished")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Attempt]:
        """With the devices' names."""
        return super().get_queryset(request).select_related("device").defer("device__credentials")

    @display(description="Attempt")
    def which(self, attempt: Attempt) -> str:
        """Its number; an operator's retry begins another round."""
        return f"{attempt.number}" if attempt.round == 1 else f"{attempt.number}, round {attempt.round}"

    @display(description="Outcome")
    def result(self, attempt: Attempt) -> SafeString:
        """What came of it, coloured."""
        words, colour = OUTCOMES.get(attempt.outcome, (attempt.outcome, "default"))
        return label(words, colour=colour)

    @display(description="Error")
    def error(self, attempt: Attempt) -> str:
        """What the gateway or the network said."""
        return " ".join(part for part in (attempt.error_text, f"({attempt.error_code})") if part.strip("()")) or "–"


class ArchiveFilter(admin.SimpleListFilter):
    """What failed long ago is left out of the list unless somebody asks for it."""

    title = "archive"
    parameter_name = "archived"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Instead of everything else, or beside it."""
        return [("only", "Archived"), ("all", "With archived")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Django calls the choice of nothing “All”."""
        first, *others = super().choices(changelist)
        yield {**first, "display": "Without archived"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: QuerySet[Message]) -> QuerySet[Message]:
        """By default what is not archived."""
        if self.value() == "all":
            return queryset
        return queryset.filter(archived_at__isnull=self.value() != "only")


@admin.register(Message)
class MessageAdmin(LifeViews, RetryMixin, SettlingActions, EraseViews, ReadOnlyAdmin):
    """Everything that was, is or will be sent."""

    list_display = ("recipient", "state_label", "device", "batch", "due", "sent", "trouble")
    list_filter = (
        StateFilter,
        ("device", VisibleSelectFilter),
        ("batch", VisibleSelectFilter),
        GroupFilter,
        ArchiveFilter,
    )
    search_fields = ("phone",)
    search_help_text = "A whole phone number"
    empty_hint = "Messages come from campaigns, from sequences, and one by one from the API or a test."
    paginator = InfinitePaginator
    sortable_by = ()  # the newest first is an index; anything else sorts the whole table
    inlines = (AttemptInline,)
    actions = ("retry_messages", "settle_as_sent", "settle_by_resending", "settle_as_failed")
    actions_detail = ("retry_message",)
    fieldsets = (
        (None, {"fields": ["lead", "number", "device", "batch", "trouble"]}),
        ("Times", {"fields": list(TIMES), "classes": ["collapse"]}),
        ("At the gateway", {"fields": ["external_id", "attempts", "round", "uid"], "classes": ["collapse"]}),
    )
    readonly_fields = ("number", "trouble", *TIMES)

    due = moment_column("due_at", "Due")
    sent = moment_column("sent_at", "Sent")
    created_in_full = moment_column("created_at", "Created", in_full=True)
    due_in_full = moment_column("due_at", "Due", in_full=True)
    queued_in_full = moment_column("queued_at", "Queued", in_full=True)
    sent_in_full = moment_column("sent_at", "Sent", in_full=True)
    delivered_in_full = moment_column("delivered_at", "Delivered", in_full=True)
    read_in_full = moment_column("read_at", "Read", in_full=True)
    failed_in_full = moment_column("failed_at", "Failed", in_full=True)
    archived_in_full = moment_column("archived_at", "Archived", in_full=True)
    presumed_in_full = moment_column("presumed_at", "Presumed sent", in_full=True)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        """With the names that the list and the page show, and without the devices' secrets."""
        found = super().get_queryset(request).select_related("device", "batch", "lead")
        return found.defer("device__credentials", "batch__content")

    def get_urls(self) -> list[URLPattern]:
        """The page that erases a lead strips its messages, so it stands here; and the moving part of a message's."""
        erase = self.admin_site.admin_view(self.erase_view)
        life = self.admin_site.admin_view(self.life_view)
        return [
            path("erase-lead/<int:object_id>/", erase, name="messaging_erase_lead"),
            path("<int:object_id>/life/", life, name="messaging_message_life"),
            *super().get_urls(),
        ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Message], search_term: str
    ) -> tuple[QuerySet[Message], bool]:
        """Messages to one number, by way of its leads.

        There is no index on a message's phone; the one on its lead is there anyway, and finds messages whose lead was
        deleted (NULL) as well.
        """
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            phone = parse_phone(term, region=settings.FLOTILLA_DEFAULT_REGION)
        except PhoneProblem as problem:
            self.message_user(request, f"“{term}” is not a phone number: {problem.text}", messages.WARNING)
            return queryset.none(), False
        leads = list(Lead.objects.visible_to(request.user).filter(phone=phone).values_list("pk", flat=True))
        return queryset.filter(Q(lead__in=leads) | Q(lead__isnull=True, phone=phone)), False

    @display(description="To")
    def recipient(self, message: Message) -> SafeString:
        """The lead's name and number."""
        return person(name=message.lead.name if message.lead else "", number=message.phone)

    @display(description="Phone")
    def number(self, message: Message) -> SafeString:
        """The number it goes to."""
        return phone(message.phone)

    @display(description="State")
    def state_label(self, message: Message) -> SafeString:
        """The state, coloured."""
        return label(str(message.get_state_display()), colour=STATE_COLOURS[State(message.state)])

    @display(description="Error")
    def trouble(self, message: Message) -> str:
        """What went wrong last."""
        return message.error_text or message.error_code or "–"


@admin.register(Batch)
class BatchAdmin(ReadOnlyAdmin):
    """What a run, a step or a single send produced."""

    list_display = ("name", "state_label", "progress", "priority", "created_at", "finished_at")
    list_filter = (("state", ChoicesDropdownFilter), ("priority", ChoicesDropdownFilter))
    search_fields = ("name",)
    search_help_text = "Name of the batch"
    empty_hint = "A batch is what one run, one step or one single send produced."
    actions_detail = ("pause_batch", "resume_batch", "retry_batch", "cancel_batch")
    change_form_outer_before_template = "admin/messaging/batch_progress.html"
    fieldsets = (
        (None, {"fields": ["name", "owner", "priority", "reason", "text"]}),
        ("Pacing", {"fields": ["delay_min_seconds", "delay_max_seconds", "failover"]}),
        ("Times", {"fields": ["created_at", "filled_at", "finished_at", "expires_at"]}),
    )
    readonly_fields = ("text",)

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[Any]:
        """The buttons stand in the moving part instead, where they follow the batch's state."""
        return []

    def attach(self, request: HttpRequest, rows: list[Batch]) -> None:
        """Counts of the batches on this page: two queries."""
        counts = services.counts_of([batch.pk for batch in rows])
        for batch in rows:
            batch.counts = counts[batch.pk]  # type: ignore[attr-defined]

    def get_urls(self) -> list[URLPattern]:
        """The moving part of a batch's page."""
        view = self.admin_site.admin_view(self.progress_view)
        return [path("<int:object_id>/progress/", view, name="messaging_batch_progress"), *super().get_urls()]

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits a batch; those who may change things may pause, resume and cancel it."""
        return may_change(request.user)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The row, below how far it is."""
        batch = visible_or_404(self, request, object_id)
        context = {**_state_of(batch, request), "poll_url": reverse("admin:messaging_batch_progress", args=[batch.pk])}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def progress_view(self, request: HttpRequest, object_id: int) -> JsonResponse:
        """The moving part of that page."""
        context = _state_of(visible_or_404(self, request, str(object_id)), request)
        return fragment(template="admin/messaging/batch_state.html", context=context, done=context["done"])

    @display(description="State", ordering="state", label=BATCH_COLOURS)
    def state_label(self, batch: Batch) -> tuple[str, str]:
        """The state, coloured."""
        return batch.state, batch.get_state_display()

    @display(description="Progress")
    def progress(self, batch: Any) -> SafeString:
        """How far it is."""
        return bar(batch.counts)

    @display(description="Text")
    def text(self, batch: Batch) -> str:
        """What is sent, before a lead's details are filled in."""
        return str(batch.content.get("text", ""))

    @action(description="Pause", icon="pause", permissions=["operate"])
    def pause_batch(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """No message of this batch is claimed any more."""
        return self._operate(request, object_id, "pause")

    @action(description="Resume", icon="play_arrow", permissions=["operate"])
    def resume_batch(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go on with what is left."""
        return self._operate(request, object_id, "resume")

    @action(description="Retry failed", icon="replay", permissions=["operate"])
    def retry_batch(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Everything of it that failed."""
        return retry_of_batch(self, request, visible_or_404(self, request, object_id))

    @action(description="Cancel", icon="cancel", permissions=["operate"], variant=ActionVariant.DANGER)
    def cancel_batch(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End it and cancel what has not been sent."""
        return self._operate(request, object_id, "cancel")

    def _operate(self, request: HttpRequest, object_id: str, what: str) -> HttpResponse:
        """Ask, then do."""
        batch = visible_or_404(self, request, object_id)
        if not confirmed(request):
            counts = services.counts_of([batch.pk])[batch.pk]
            question = question_about(what, name=str(batch), counts=counts, back=change_url(batch))
            return ask(request, model_admin=self, obj=batch, question=question)
        match what:
            case "pause":
                changed = services.pause_batch(batch_id=batch.pk)
            case "resume":
                changed = services.resume_batch(batch_id=batch.pk)
            case _:
                changed = services.end_batch(
                    batch_id=batch.pk, state=BatchState.CANCELLED, now=timezone.now(), reason="Cancelled by hand."
                )
        tell(self, request, batch, what=what, changed=changed)
        return back_to(batch)


DONE = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}


def question_about(what: str, *, name: str, counts: services.Counts, back: str) -> Question:
    """Pause, resume or cancel: what it means, with numbers."""
    left = counts.pending + counts.queued
    texts = {
        "pause": "Nothing more of it is sent until it is resumed. What is at a gateway right now ends as it ends.",
        "resume": "Sending goes on with exactly what is left.",
        "cancel": "Everything that has not been sent is cancelled. This cannot be undone.",
    }
    return Question(
        title=f"{what.capitalize()} “{name}”?",
        text=texts[what],
        button={"pause": "Pause", "resume": "Resume", "cancel": "Cancel what is left"}[what],
        back=back,
        facts=(("Not sent yet", f"{left:,}"), ("Sent", f"{counts.sent:,}"), ("All messages", f"{counts.total:,}")),
        danger=what == "cancel",
    )


def tell(model_admin: Any, request: HttpRequest, obj: Any, *, what: str, changed: bool) -> None:
    """Say what became of it, and keep a note of who did it."""
    if changed:
        model_admin.log_change(request, obj, f"{DONE[what].capitalize()}.")
        model_admin.message_user(request, f"“{obj}” is {DONE[what]}.", messages.SUCCESS)
    else:
        model_admin.message_user(
            request, f"“{obj}” was not {DONE[what]}: it is not in a state for that.", messages.WARNING
        )


def _state_of(batch: Batch, request: HttpRequest) -> dict[str, Any]:
    """What the moving part shows."""
    counts = services.counts_of([batch.pk])[batch.pk]
    operable = batch.state in LIVE and may_change(request.user)
    return {
        "batch": batch,
        "counts": counts,
        "parts": parts(counts),
        "bar": bar(counts),
        "messages_url": f"{reverse('admin:messaging_message_changelist')}?batch__id__exact={batch.pk}",
        "colour": BATCH_COLOURS[BatchState(batch.state)],
        "can_pause": operable and batch.state == BatchState.RUNNING,
        "can_resume": operable and batch.state == BatchState.PAUSED,
        "can_cancel": operable,
        "can_retry": counts.failed > 0 and may_change(request.user),
        "pause_url": reverse("admin:messaging_batch_pause_batch", args=[batch.pk]),
        "resume_url": reverse("admin:messaging_batch_resume_batch", args=[batch.pk]),
        "cancel_url": reverse("admin:messaging_batch_cancel_batch", args=[batch.pk]),
        "retry_url": reverse("admin:messaging_batch_retry_batch", args=[batch.pk]),
        "done": batch.state not in LIVE,
    }
