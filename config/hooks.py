"""``POST /hooks/<gateway>``: where gateways post receipts and replies. No session, no CSRF: the signature decides.

An answer says nothing, since some gateways pass what it says on to the person who wrote.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from config.api.problems import Problem
from devices.gateways.base import BadSignature, Malformed
from messaging import hooks


@csrf_exempt
def receive(request: HttpRequest, gateway: str) -> HttpResponse:
    """204 once it is written down, or a problem; anything but 2xx and the gateway tells it again."""
    if request.method != "POST":
        return Problem("method_not_allowed", "Gateways post here.").response({"Allow": "POST"})
    if int(request.META.get("CONTENT_LENGTH") or 0) > hooks.MAX_BODY_BYTES:
        return Problem("too_large", f"The body is larger than {hooks.MAX_BODY_BYTES} bytes.").response()
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        hooks.receive(gateway=gateway, headers=headers, body=request.body, now=timezone.now())
    except hooks.NoSuchHook:
        return Problem("not_found", "There is no gateway of that name.").response()
    except BadSignature as refused:
        return Problem(refused.code, refused.text, status=401).response()
    except Malformed as refused:
        return Problem(refused.code, refused.text, status=422).response()
    except UnreadablePostError:
        return Problem("bad_request", "The body ended too early.").response()
    except hooks.TryLater:
        return Problem("unavailable", "It could not be written down: tell it again.").response({"Retry-After": "5"})
    return HttpResponse(status=204)
