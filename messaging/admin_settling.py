"""Settling unknown outcomes from the list of messages: three actions, each asks first."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from devices.access import may_change
from devices.admin_pages import Question, ask, confirmed, list_url
from messaging import settling
from messaging.models import Message
from messaging.states import State

MAX_CHOSEN = 1000
"""A page that asks carries what was chosen; more at once is for the API, which takes conditions."""

WORDS: dict[settling.VerdictWord, tuple[str, str, str]] = {
    "sent": (
        "Count {} as sent?",
        "Nothing is sent. From now on they count as sent.",
        "Count as sent",
    ),
    "resend": (
        "Send {} again?",
        "They go out again under the same id. Whoever got the message already may get it a second time.",
        "Send again",
    ),
    "failed": (
        "Count {} as failed?",
        "Nothing is sent. They count as failed and can be retried as such.",
        "Count as failed",
    ),
}
REASONS = {
    "not_unknown": "are not unknown",
    "batch_ended": "belong to a batch that was ended",
    "batch_expired": "belong to a batch that has expired",
    "lead_deleted": "have lost their lead",
    "opted_out": "are to people who opted out",
}


class SettlingActions:
    """For the admin of messages."""

    def has_settle_permission(self, request: HttpRequest) -> bool:
        """Those who may change things; messages themselves are never edited."""
        return may_change(request.user)

    @admin.action(description="Unknown outcome: count as sent", permissions=["settle"])
    def settle_as_sent(self, request: HttpRequest, queryset: QuerySet[Message]) -> HttpResponse | None:
        """They arrived."""
        return self._settle(request, queryset, "sent")

    @admin.action(description="Unknown outcome: send again", permissions=["settle"])
    def settle_by_resending(self, request: HttpRequest, queryset: QuerySet[Message]) -> HttpResponse | None:
        """Rather twice than not at all."""
        return self._settle(request, queryset, "resend")

    @admin.action(description="Unknown outcome: count as failed", permissions=["settle"])
    def settle_as_failed(self, request: HttpRequest, queryset: QuerySet[Message]) -> HttpResponse | None:
        """They did not arrive."""
        return self._settle(request, queryset, "failed")

    def _settle(
        self, request: HttpRequest, queryset: QuerySet[Message], verdict: settling.VerdictWord
    ) -> HttpResponse | None:
        """Ask, then do."""
        chosen = list(queryset.order_by("pk").values_list("pk", "state")[:MAX_CHOSEN])
        if not confirmed(request):
            question = _question(chosen, verdict, action=request.POST["action"])
            return ask(request, model_admin=self, question=question)
        user = cast("User", request.user)
        done = settling.settle(message_ids=[pk for pk, _ in chosen], verdict=verdict, user=user, now=timezone.now())
        left = "".join(f" {number:,} {REASONS[reason]}." for reason, number in done.left_alone.items())
        left = f" Left alone:{left}" if left else ""
        model_admin: Any = self
        model_admin.message_user(
            request, f"{done.settled:,} settled.{left}", messages.SUCCESS if done.settled else messages.WARNING
        )
        return None


def _question(chosen: list[tuple[int, str]], verdict: settling.VerdictWord, *, action: str) -> Question:
    unknown = sum(1 for _, state in chosen if state == State.UNKNOWN)
    title, text, button = WORDS[verdict]
    others = len(chosen) - unknown
    return Question(
        title=title.format(f"{unknown:,} messages" if unknown != 1 else "1 message"),
        text=text,
        button=button if unknown else "",
        back=list_url(Message, "state__exact=unknown"),
        facts=(("Unknown outcome", f"{unknown:,}"), *([("Left alone: other states", f"{others:,}")] if others else [])),
        warnings=("Only the first 1,000 are settled at once.",) if len(chosen) == MAX_CHOSEN else (),
        hidden=(("action", action), *(("_selected_action", str(pk)) for pk, _ in chosen)),
        danger=verdict == "resend",
    )
