"""The admin's health page: whether everything moves, what failed and what nobody knows, with what to do about each."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from config.attention import findings, unknown_of
from config.dashboard import devices_by_state, health_of, todays_counts
from devices.access import AnyUser, Role, may_change, role_of
from devices.admin_pages import Question, ask, confirmed, fragment, list_url, page
from devices.models import SessionHost
from messaging import failures, halting, health, retrying
from messaging.admin_retry import question_about, tell
from messaging.health import Numbers
from messaging.models import Message
from messaging.states import State

FAILED_SHOWN, UNKNOWN_SHOWN = 25, 10
SETTLING = (
    ("settle_as_sent", "Count as sent"),
    ("settle_as_failed", "Count as failed"),
    ("settle_by_resending", "Send again"),
)
"""Actions of the list of messages, which asks before it does them."""


def urls() -> list[URLPattern]:
    """Addresses below ``/admin/``."""
    wrap = admin.site.admin_view
    return [
        path("health/", wrap(health_view), name="health"),
        path("health/state/", wrap(state_view), name="health_state"),
        path("health/failed/", wrap(require_POST(failed_view)), name="health_failed"),
        path("health/retry-all/", wrap(retry_all_view), name="health_retry_all"),
    ]


def health_view(request: HttpRequest) -> HttpResponse:
    """The whole page; the lists of messages stay as they are until it is loaded again, so that ticks are kept."""
    role = role_of(request.user)
    if role is None:
        raise PermissionDenied
    shown: dict[str, Any] = {"opts": None, "role": role, "cards": state_of(user=request.user, now=timezone.now())}
    if role is not Role.OPS:
        failed = _failed(request.user).order_by("-id")
        unknown = _mine(request.user).filter(state=State.UNKNOWN, presumed_at__isnull=True).order_by("-id")
        shown |= {
            "failed": list(_with_names(failed)[:FAILED_SHOWN]),
            "unknown": list(_with_names(unknown)[:UNKNOWN_SHOWN]),
            "may_change": may_change(request.user),
            "settling": SETTLING,
            "messages_url": list_url(Message),
        }
    return page(request, model_admin=_message_admin(), template="admin/health.html", title="Health", context=shown)


def state_view(request: HttpRequest) -> JsonResponse:
    """The moving part."""
    if role_of(request.user) is None:
        raise PermissionDenied
    cards = state_of(user=request.user, now=timezone.now())
    return fragment(template="admin/health_state.html", context={"cards": cards, "here": True})


def state_of(*, user: AnyUser, now: datetime) -> dict[str, Any]:
    """What the moving part shows. Figures of the installation for everybody, of messages for those who see messages."""
    numbers, halt = health.gather(now=now), halting.current()
    hosts = SessionHost.objects.filter(lease_until__gt=now)
    sessions = hosts.aggregate(sessions=Sum("sessions"))["sessions"] or 0
    known: dict[str, Any] = {"numbers": numbers, "hosts": hosts.count(), "sessions": sessions}
    if role_of(user) is Role.OPS:
        found = findings(user=user, numbers=numbers, halt=halt, states=None, failed=0)
        return {**known, **health_of(found), "queues": _everybodys_queues(numbers)}
    today = todays_counts(user=user, now=now)
    devices = devices_by_state(user=user)
    states = {each["state"]: each["number"] for each in devices}
    found = findings(user=user, numbers=numbers, halt=halt, states=states, failed=today.failed)
    queues = [
        ("Pending", today.pending, "fl-pending", "waiting for their time and device"),
        ("Queued", today.queued, "fl-queued", "released, or at a gateway"),
        ("Sent", today.sent, "fl-sent", "by batches of today"),
        ("Failed", today.failed, "fl-failed", "by batches of today"),
        ("Unknown", unknown_of(user), "fl-unknown", "nobody knows whether they arrived"),
    ]
    return {**known, **health_of(found), "queues": queues, "devices": devices}


def failed_view(request: HttpRequest) -> HttpResponse:
    """Retry, archive or delete what was chosen. Retrying harms nobody and is done at once; deleting asks."""
    if not may_change(request.user):
        raise PermissionDenied
    what, _, only = request.POST.get("do", "").partition(":")  # a row's own button names its message
    chosen = _chosen(request.user, [only] if only else request.POST.getlist("chosen"))
    back = HttpResponseRedirect(f"{reverse('admin:health')}#failed")
    if not chosen:
        messages.warning(request, "None of the failed messages was chosen: tick some first.")
    elif what == "retry":
        tell(_message_admin(), request, retrying.retry_failed(message_ids=chosen, now=timezone.now()))
    elif what == "archive":
        number = failures.archive_chosen(message_ids=chosen, now=timezone.now())
        messages.success(request, f"{number:,} put into the archive: the list of messages still finds them.")
    elif what == "delete":
        return _delete(request, chosen[0], back)
    return back


def retry_all_view(request: HttpRequest) -> HttpResponse:
    """Everything that failed and is not archived, as far as one may see it."""
    if not may_change(request.user):
        raise PermissionDenied
    ids = list(_failed(request.user).order_by("-id").values_list("pk", flat=True)[: retrying.LIMIT])
    if not confirmed(request):
        question = question_about(ids, back=f"{reverse('admin:health')}#failed")
        return ask(request, model_admin=_message_admin(), question=question)
    tell(_message_admin(), request, retrying.retry_failed(message_ids=ids, now=timezone.now()))
    return HttpResponseRedirect(f"{reverse('admin:health')}#failed")


def _delete(request: HttpRequest, message_id: int, back: HttpResponse) -> HttpResponse:
    message = _with_names(_failed(request.user)).get(pk=message_id)
    if not confirmed(request):
        question = Question(
            title="Delete this failed message?",
            text="It goes for good, with the record of its attempts. To only put it out of sight, archive it.",
            button="Delete for good",
            back=f"{reverse('admin:health')}#failed",
            facts=(
                ("To", f"{message.lead.name} {message.phone}".strip() if message.lead else message.phone),
                ("By", str(message.device)),
                ("Why it failed", message.error_text or message.error_code or "–"),
                ("Attempts", f"{message.attempts:,}"),
            ),
            hidden=(("do", f"delete:{message_id}"),),
            danger=True,
        )
        return ask(request, model_admin=_message_admin(), question=question)
    try:
        failures.delete(message_id=message_id, by=cast("User", request.user))
    except failures.NotFailed as refused:  # somebody has retried it meanwhile
        messages.warning(request, refused.text)
    else:
        messages.success(request, "The message is deleted.")
    return back


def _chosen(user: AnyUser, asked: list[str]) -> list[int]:
    """Those of the ids asked for that are failed messages which the person may see."""
    ids = [int(each) for each in asked if each.isascii() and each.isdigit() and len(each) < 19]
    return list(_failed(user).filter(pk__in=ids).order_by("pk").values_list("pk", flat=True))


def _everybodys_queues(numbers: Numbers) -> list[tuple[str, int, str, str]]:
    """For those who see no messages: how many are on their way, of whomever."""
    return [
        ("Queued", numbers.queued, "fl-queued", "released, not taken by a worker yet"),
        ("Sending", numbers.sending, "fl-queued", "at a gateway"),
        ("Unknown", numbers.unknown, "fl-unknown", "nobody knows whether they arrived"),
        ("Failed", numbers.failed_last_hour, "fl-failed", "in the last hour"),
    ]


def _mine(user: AnyUser) -> QuerySet[Message]:
    return Message.objects.visible_to(user)


def _failed(user: AnyUser) -> QuerySet[Message]:
    """Index message_troubled."""
    return _mine(user).filter(state=State.FAILED, archived_at__isnull=True)


def _with_names(found: QuerySet[Message]) -> QuerySet[Message]:
    return found.select_related("device", "lead").defer("device__credentials", "device__options", "lead__custom")


def _message_admin() -> Any:
    return admin.site.get_model_admin(Message)
