"""Outgoing webhooks in the admin: who is told what, and what came of it. A secret is shown once."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display

from devices.access import may_change
from devices.admin_base import InfinitePaginator, OwnedForm, ReadOnlyAdmin
from devices.admin_filters import VisibleSelectFilter
from devices.admin_pages import Question, ask, back_to, change_url, confirmed, visible_or_404
from devices.admin_rotating import RotatingSecretAdmin
from devices.admin_text import label, moment_column
from messaging.outgoing import subscribing
from messaging.outgoing.kinds import SUBSCRIBABLE
from messaging.outgoing.models import Delivery, Subscriber

_COLOURS = {"waiting": "info", "delivered": "success", "dead": "danger"}


class SubscriberForm(OwnedForm):
    """Events are ticked."""

    kinds = forms.MultipleChoiceField(
        choices=[(kind.value, f"{kind.label} ({kind.value})") for kind in SUBSCRIBABLE],
        widget=forms.CheckboxSelectMultiple(attrs={"class": "fl-choices"}),
        label="Events",
    )

    class Meta:
        model = Subscriber
        fields = ["owner", "name", "url", "kinds", "enabled"]


@admin.register(Subscriber)
class SubscriberAdmin(RotatingSecretAdmin):
    """Who is told what happens."""

    form = SubscriberForm
    list_display = ("name", "state_label", "url", "waiting_shown", "dead_shown", "last_called")
    list_filter = ("enabled",)
    search_fields = ("name", "url")
    search_help_text = "Name or address"
    empty_value_display = "–"
    empty_hint = "A subscriber is told what happens, by a signed call to its address."
    actions_detail = ("send_test", "replay_dead", "rotate_secret")
    on_rotation = (
        "For a day calls are signed with both, so that the other side can be changed in peace. If the old one has"
        " leaked, end it at once over the API (keep_hours 0)."
    )
    readonly_fields = ("state_label", "last_error", "disabled_reason", "failing", "held", "called", "previous_until")
    fieldsets = (
        (None, {"fields": ["owner", "name", "url", "kinds", "enabled"]}),
        ("Calls", {"fields": ["state_label", "called", "failing", "held", "last_error", "disabled_reason"]}),
        ("Secret", {"fields": ["previous_until"]}),
    )

    last_called = moment_column("last_called_at", "Last call")
    called = moment_column("last_called_at", "Last call", in_full=True)
    failing = moment_column("failing_since", "Failing since", in_full=True)
    held = moment_column("held_until", "Called again", in_full=True)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscriber]:
        """Without secrets: no page needs them."""
        return super().get_queryset(request).defer("secrets")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[tuple[str | None, dict[str, Any]]]:
        """How it goes, once there is something to tell."""
        return super().get_fieldsets(request, obj)[: None if obj is not None else 1]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """One that is enabled again is called at once."""
        super().save_model(request, obj, form, change)
        if change and "enabled" in form.changed_data and obj.enabled:
            subscribing.resume(subscriber=obj)

    def attach(self, request: HttpRequest, rows: list[Subscriber]) -> None:
        """What waits and what was given up, of the rows of this page: indexes delivery_waiting and delivery_dead."""
        numbers = {}
        for state in (Delivery.State.WAITING, Delivery.State.DEAD):
            found = Delivery.objects.filter(subscriber__in=rows, state=state).order_by().values_list("subscriber_id")
            numbers[state] = dict(found.annotate(Count("id")))
        for row in rows:
            row.waiting_number = numbers[Delivery.State.WAITING].get(row.pk, 0)  # type: ignore[attr-defined]
            row.dead_number = numbers[Delivery.State.DEAD].get(row.pk, 0)  # type: ignore[attr-defined]

    @display(description="State")
    def state_label(self, row: Subscriber) -> SafeString:
        """Whether it is called, and whether that works."""
        if not row.enabled:
            given_up = bool(row.disabled_reason)
            return label("Given up", colour="danger") if given_up else label("Disabled", colour="default")
        return label("Failing", colour="warning") if row.failing_since else label("Enabled", colour="success")

    @display(description="Waiting")
    def waiting_shown(self, row: Any) -> str:
        """Events it has not been told yet."""
        return f"{row.waiting_number:,}"

    @display(description="Dead letters")
    def dead_shown(self, row: Any) -> str:
        """Events that were given up."""
        return f"{row.dead_number:,}"

    @action(description="Send a test", icon="send", permissions=["change"])
    def send_test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asks, since a link's GET changes nothing."""
        row: Subscriber = visible_or_404(self, request, object_id)
        if not confirmed(request):
            question = Question(
                title=f"Send a test to {row}?",
                text="It is told that this is a test, after what already waits for it.",
                button="Send",
                back=change_url(row),
            )
            return ask(request, model_admin=self, obj=row, question=question)
        made = subscribing.test(subscriber=row, now=timezone.now())
        messages.success(request, "The test is on its way; this page says what comes of it.")
        return HttpResponseRedirect(change_url(made))

    @action(description="Replay dead letters", icon="replay", permissions=["change"])
    def replay_dead(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Everything that was given up."""
        row: Subscriber = visible_or_404(self, request, object_id)
        if not confirmed(request):
            number = Delivery.objects.filter(subscriber=row, state=Delivery.State.DEAD).count()
            question = Question(
                title=f"Tell {row} its dead letters again?",
                text=f"{number:,} events were given up. They are told again, in the order in which they happened.",
                button="Tell them again" if number else "",
                back=change_url(row),
            )
            return ask(request, model_admin=self, obj=row, question=question)
        number = subscribing.replay(subscriber=row)
        self.log_change(request, row, f"{number:,} dead letters replayed.")
        messages.success(request, f"{number:,} events are told again.")
        return back_to(row)

    def secret_use(self, row: Subscriber) -> str:
        """How a call is believed."""
        return (
            "Each call carries X-Flotilla-Timestamp and X-Flotilla-Signature: the HMAC-SHA256, by this secret, of the"
            " timestamp, a full stop and the body. Refuse calls without it, and those that are older than five minutes."
        )


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """What subscribers were told, newest first."""

    list_display = ("__str__", "subscriber", "subject", "state_label", "attempts", "answered", "happened")
    list_filter = (
        ("state", ChoicesDropdownFilter),
        ("kind", ChoicesDropdownFilter),
        ("subscriber", VisibleSelectFilter),
    )
    empty_value_display = "–"
    paginator = InfinitePaginator
    sortable_by = ()
    actions = ("tell_again",)
    fields = (
        "subscriber", "kind", "subject", "state_label", "attempts", "answered", "error", "happened_in_full",
        "tried_in_full", "ended_in_full",
    )  # fmt: skip
    readonly_fields = ("state_label", "happened_in_full", "tried_in_full", "ended_in_full")

    happened = moment_column("happened_at", "Happened")
    happened_in_full = moment_column("happened_at", "Happened", in_full=True)
    tried_in_full = moment_column("tried_at", "Tried", in_full=True)
    ended_in_full = moment_column("ended_at", "Ended", in_full=True)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        """With the names that the list shows."""
        return super().get_queryset(request).select_related("subscriber").defer("subscriber__secrets")

    def has_replay_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits a delivery; those who may change things may have it told again."""
        return may_change(request.user)

    @display(description="State")
    def state_label(self, row: Delivery) -> SafeString:
        """Where it is."""
        return label(str(row.get_state_display()), colour=_COLOURS[row.state])

    @admin.action(description="Tell the chosen events again", permissions=["replay"])
    def tell_again(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        """Delivered ones as well: their ``id`` lets receivers know them."""
        chosen: dict[int, list[int]] = {}
        for pk, subscriber_id in queryset.order_by("pk").values_list("pk", "subscriber_id")[:1000]:
            chosen.setdefault(subscriber_id, []).append(pk)
        number = sum(
            subscribing.replay(subscriber=row, deliveries=chosen[row.pk])
            for row in Subscriber.objects.filter(pk__in=chosen).order_by("pk")
        )
        messages.success(request, f"{number:,} events are told again.")
