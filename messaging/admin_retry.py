"""Retrying failed messages in the admin: one, the chosen ones, or all of a batch. Asks first, with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from unfold.decorators import action

from devices.access import may_change
from devices.admin_pages import Question, ask, change_url, confirmed, list_url, visible_or_404
from messaging import retrying
from messaging.dispatch import holding
from messaging.models import Batch, Message
from messaging.retrying import REASONS, Retried
from messaging.states import State


class RetryMixin:
    """Actions of the list of messages and of one message's page."""

    opts: Any
    admin_site: Any

    def has_retry_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits a message; those who may change things may send a failed one again."""
        return may_change(request.user)

    @admin.action(description="Retry the chosen messages", permissions=["retry"])
    def retry_messages(self, request: HttpRequest, queryset: QuerySet[Message]) -> HttpResponse | None:
        """From the list. What was refused for good stays as it is."""
        ids = list(queryset.order_by("pk").values_list("pk", flat=True)[: retrying.LIMIT])
        if not confirmed(request):
            hidden = [("action", "retry_messages"), ("select_across", request.POST.get("select_across", "0"))]
            hidden += [("_selected_action", pk) for pk in request.POST.getlist("_selected_action")]
            question = question_about(ids, back=list_url(Message), hidden=hidden)
            return ask(request, model_admin=self, question=question)
        freed = holding.try_again(message_ids=ids)
        tell(self, request, with_freed(retrying.retry_failed(message_ids=ids, now=timezone.now()), freed))
        return None

    @action(description="Retry", icon="replay", permissions=["retry"])
    def retry_message(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """From a message's page, where one may insist."""
        message = visible_or_404(self, request, object_id)
        insist = retrying.look_at(message_ids=[message.pk], now=timezone.now()).left_alone == {"rejected_for_good": 1}
        if not confirmed(request):
            question = question_about([message.pk], back=change_url(message), insist=insist, why=message.error_text)
            return ask(request, model_admin=self, obj=message, question=question)
        done = retrying.retry_failed(message_ids=[message.pk], now=timezone.now(), insist=insist)
        tell(self, request, done)
        if done.retried:
            self.log_change(request, message, "Retried.")  # type: ignore[attr-defined]
        return HttpResponseRedirect(change_url(message))

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[Any]:
        """The button stands on the pages of failed messages only."""
        actions: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        failed = Message.objects.filter(pk=object_id, state=State.FAILED).exists()
        return [each for each in actions if failed or not each.action_name.endswith("retry_message")]


def with_freed(done: Retried, freed: int) -> Retried:
    """With the held ones, which did not fail but go on all the same."""
    if not freed:
        return done
    rest = {**done.left_alone, "not_failed": done.left_alone.get("not_failed", 0) - freed}
    return Retried(done.retried + freed, {reason: number for reason, number in rest.items() if number > 0})


def retry_of_batch(model_admin: Any, request: HttpRequest, batch: Batch) -> HttpResponse:
    """Everything of a batch that failed."""
    ids = retrying.failed_of_batch(batch.pk)
    if not confirmed(request):
        return ask(request, model_admin=model_admin, obj=batch, question=question_about(ids, back=change_url(batch)))
    done = retrying.retry_failed(message_ids=ids, now=timezone.now())
    tell(model_admin, request, done)
    if done.retried:
        model_admin.log_change(request, batch, f"{done.retried:,} failed messages retried.")
    return HttpResponseRedirect(change_url(batch))


def question_about(
    ids: Sequence[int], *, back: str, hidden: Sequence[tuple[str, str]] = (), insist: bool = False, why: str = ""
) -> Question:
    """What would happen to these messages."""
    would = retrying.look_at(message_ids=ids, now=timezone.now(), insist=insist)
    number = f"{would.retried:,}"
    warnings = []
    if insist:
        warnings.append("The gateway refused it for good. Trying again is rarely of use and may harm the number.")
    if len(ids) == retrying.LIMIT:
        warnings.append(f"These are the first {retrying.LIMIT:,}; ask again for more.")
    facts = [("Get a new round of attempts", number)]
    facts += [(f"Left alone: they {REASONS[reason]}", f"{n:,}") for reason, n in sorted(would.left_alone.items())]
    return Question(
        title="Send it again?" if len(ids) == 1 else f"Send {number} messages again?",
        text="Their attempts start over; the old ones are kept.",
        button="Retry" if would.retried else "",
        back=back,
        facts=(*((("Why it failed", why),) if why else ()), *facts),
        warnings=tuple(warnings),
        hidden=tuple(hidden),
    )


def tell(model_admin: Any, request: HttpRequest, done: Retried) -> None:
    """What became of it."""
    left = "".join(f" {n:,} {REASONS[reason]}." for reason, n in sorted(done.left_alone.items()))
    level = messages.SUCCESS if done.retried else messages.WARNING
    again = "1 message is sent again." if done.retried == 1 else f"{done.retried:,} messages are sent again."
    model_admin.message_user(request, again + left, level)
