"""``POST /hooks/leads/<key>``: where forms, shops and chat bots post leads. The signature decides."""

from __future__ import annotations

from django.db import DataError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import ValidationError

from config.api.idempotency import REPLAY_HEADER
from config.api.problems import Problem, problem_of
from devices.gateways.news import BadSignature, Malformed
from leads import sources

REFUSALS = (
    sources.NoSuchSource, sources.SourceClosed, sources.TooMany, sources.KeyReused, BadSignature, Malformed,
    ValidationError, DataError, OperationalError, InterfaceError, UnreadablePostError,
)  # fmt: skip


@csrf_exempt
def receive(request: HttpRequest, key: str) -> HttpResponse:
    """201 for a new lead, 200 for one that was there, or a problem."""
    if request.method != "POST":
        return Problem("method_not_allowed", "Leads are posted here.").response({"Allow": "POST"})
    if int(request.META.get("CONTENT_LENGTH") or 0) > sources.MAX_BODY_BYTES:
        return Problem("too_large", f"The body is larger than {sources.MAX_BODY_BYTES} bytes.").response()
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        answer = sources.receive(key=key, headers=headers, body=request.body, now=timezone.now())
    except REFUSALS as refused:
        return _said(refused)
    return JsonResponse(
        dict(answer.body), status=answer.status, headers={REPLAY_HEADER: "true"} if answer.replay else None
    )


def _said(refused: Exception) -> HttpResponse:
    """One of :data:`REFUSALS` as a problem document."""
    match refused:
        case sources.NoSuchSource():
            return Problem("not_found", "There is no source of leads at this address.").response()
        case BadSignature():
            return Problem(refused.code, refused.text, status=401).response()
        case Malformed():
            return Problem(refused.code, refused.text, status=400).response()
        case sources.SourceClosed():
            return Problem("permission_denied", "This source is disabled: enable it in Flotilla.").response()
        case sources.TooMany():
            text = f"This source takes no more requests this minute: try again in {refused.wait_seconds} s."
            return Problem("throttled", text).response({"Retry-After": str(refused.wait_seconds)})
        case sources.KeyReused():
            text = "This key came with another body before: use a new key for a new event."
            return Problem("idempotency_key_reused", text).response()
        case OperationalError() | InterfaceError():
            return Problem("unavailable", "It could not be written down: tell it again.").response({"Retry-After": "5"})
        case UnreadablePostError():
            return Problem("bad_request", "The body ended too early.").response()
    return (problem_of(refused) or Problem("bad_request", "The request cannot be understood.")).response()
