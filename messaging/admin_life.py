"""A message's page: its life as a line of time, what it says, and why it has not been sent yet. Follows by itself."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils import timezone

from devices.access import AnyUser
from devices.admin_pages import fragment, visible_or_404
from messaging.life import life_of
from messaging.models import Message
from messaging.states import FINAL, State
from messaging.why import why_not_sent

STATE_COLOURS = {
    State.PENDING: "default",
    State.QUEUED: "info",
    State.SENDING: "info",
    State.SENT: "success",
    State.DELIVERED: "success",
    State.READ: "success",
    State.FAILED: "danger",
    State.UNKNOWN: "warning",
    State.CANCELLED: "danger",
    State.EXPIRED: "danger",
}
SETTLED = FINAL | {State.FAILED}
"""Nothing more comes by itself, or hardly ever: the page does not ask again."""


class LifeViews:
    """Part of :class:`messaging.admin.MessageAdmin`."""

    change_form_outer_before_template = "admin/messaging/message_life.html"

    def change_view(
        self: Any, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The row, below what happened to it. Somebody else's is as if it were not there."""
        message = self.get_object(request, object_id)
        context: dict[str, Any] = {}
        if message is not None:
            context = _state_of(message, request.user)
            context["poll_url"] = reverse("admin:messaging_message_life", args=[message.pk])
        answer: HttpResponse = super().change_view(  # type: ignore[misc]
            request, object_id, form_url, {**context, **(extra_context or {})}
        )
        return answer

    def life_view(self: Any, request: HttpRequest, object_id: int) -> JsonResponse:
        """The moving part of that page."""
        context = _state_of(visible_or_404(self, request, str(object_id)), request.user)
        return fragment(template="admin/messaging/message_state.html", context=context, done=context["done"])


def _state_of(message: Message, user: AnyUser) -> dict[str, Any]:
    now = timezone.now()
    return {
        "message": message,
        "life": life_of(message, user=user, now=now),
        "why": why_not_sent(message, now=now),
        "colour": STATE_COLOURS[State(message.state)],
        "done": message.state in SETTLED,
    }
