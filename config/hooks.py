"""``/hooks/<gateway>`` and ``/hooks/<gateway>/<key>``: where gateways post receipts and replies.

No session, no CSRF: a signature decides, or that nobody else knows the address. An answer to a device's own address is
empty even when it is a refusal, since some gateways pass what it says on to the person who wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from config.api.problems import Problem
from devices.gateways.news import BadSignature, Malformed
from messaging import hooks

PROBLEM = "X-Flotilla-Problem"
"""The header that names the problem's code where there is no body to say it."""
REFUSALS = (hooks.NoSuchHook, hooks.TryLater, BadSignature, Malformed, UnreadablePostError)


@dataclass(frozen=True, slots=True)
class _Refused:
    """A problem on its way out."""

    problem: Problem
    headers: Mapping[str, str] = field(default_factory=dict)

    def aloud(self) -> HttpResponse:
        """As a problem document."""
        return self.problem.response(self.headers)

    def silently(self) -> HttpResponse:
        """As a status, and a header for whoever looks for the reason."""
        return HttpResponse(status=self.problem.http_status(), headers={**self.headers, PROBLEM: self.problem.code})


@csrf_exempt
def receive(request: HttpRequest, gateway: str) -> HttpResponse:
    """204 once it is written down, or a problem; anything but 2xx and the gateway tells it again."""
    if request.method != "POST":
        return _wrong_method("POST").aloud()
    refused = _take(request, gateway)
    return refused.aloud() if refused else HttpResponse(status=204)


@csrf_exempt
def receive_for_device(request: HttpRequest, gateway: str, key: str) -> HttpResponse:
    """The same at a device's own address, which some gateways ask by GET, beforehand, whether it is ours."""
    match request.method:
        case "GET":
            return _challenged(request, gateway, key)
        case "POST":
            refused = _take(request, gateway, key)
            return refused.silently() if refused else HttpResponse(status=204)
    return _wrong_method("GET, POST").silently()


def _challenged(request: HttpRequest, gateway: str, key: str) -> HttpResponse:
    try:
        told = hooks.challenge(gateway=gateway, key=key, query=request.GET.dict())
    except REFUSALS as refused:
        return _said(refused).silently()
    return HttpResponse(told, content_type="text/plain")


def _take(request: HttpRequest, gateway: str, key: str = "") -> _Refused | None:
    if int(request.META.get("CONTENT_LENGTH") or 0) > hooks.MAX_BODY_BYTES:
        return _Refused(Problem("too_large", f"The body is larger than {hooks.MAX_BODY_BYTES} bytes."))
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        hooks.receive(gateway=gateway, key=key, headers=headers, body=request.body, now=timezone.now())
    except REFUSALS as refused:
        return _said(refused)
    return None


def _wrong_method(allowed: str) -> _Refused:
    return _Refused(Problem("method_not_allowed", "Gateways post here."), {"Allow": allowed})


def _said(refused: Exception) -> _Refused:
    """One of :data:`REFUSALS` as a problem."""
    match refused:
        case hooks.NoSuchHook():
            return _Refused(Problem("not_found", "There is no gateway of that name."))
        case BadSignature():
            return _Refused(Problem(refused.code, refused.text, status=401))
        case Malformed():
            return _Refused(Problem(refused.code, refused.text, status=422))
        case hooks.TryLater():
            text = "It could not be written down: tell it again."
            return _Refused(Problem("unavailable", text), {"Retry-After": "5"})
    return _Refused(Problem("bad_request", "The body ended too early."))
