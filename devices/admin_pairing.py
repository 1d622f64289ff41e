"""The page that links a device to a phone, and what takes the link away again."""

from __future__ import annotations

import base64
from typing import Any

import segno
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_POST
from unfold.decorators import action

from devices import pairing, services
from devices.access import may_change_row
from devices.admin_pages import Question, ask, change_url, confirmed, page, visible_or_404
from devices.admin_text import label
from devices.gateways import registry
from devices.models import Device, DeviceState, PairingAttempt, PairingState

COLOURS = {
    PairingState.CONNECTED: "success",
    PairingState.EXPIRED: "warning",
    PairingState.FAILED: "danger",
    PairingState.STOPPED: "warning",
}
DONE = {
    "log-out": "{device} is being unlinked from its phone.",
    "clear-session": "The session of {device} is forgotten.",
    "refresh": "{device} is connected anew within seconds.",
    "stop": "Stopped.",
}


class PairingPages:
    """What :class:`~devices.admin.DeviceAdmin` gets from here."""

    def get_urls(self) -> list[URLPattern]:
        """The page, its moving part, and what its buttons lead to."""
        site: Any = self.admin_site  # type: ignore[attr-defined]

        def at(route: str, view: Any, name: str) -> URLPattern:
            return path(f"<int:object_id>/pairing/{route}", site.admin_view(view), name=f"devices_device_{name}")

        return [
            at("", self.pairing_view, "pairing"),
            at("state/", self.pairing_state_view, "pairing_state"),
            at("start/", require_POST(self.pairing_start_view), "pairing_start"),
            at("<slug:what>/", self.pairing_do_view, "pairing_do"),
            *super().get_urls(),  # type: ignore[misc]
        ]

    @action(description="Link to a phone", icon="qr_code_2", permissions=["change"])
    def link_device(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """From a device's page to the one that pairs it."""
        return _to_page(visible_or_404(self, request, object_id))

    def pairing_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """The whole page."""
        device = self._device(request, object_id)
        state = _state_of(device, pairing.latest(device=device))
        return page(
            request,
            model_admin=self,
            template="admin/devices/pairing.html",
            title=f"Link {device} to a phone",
            context={**state, "poll_url": _url(device, "pairing_state"), "original": device, **_buttons(device)},
        )

    def pairing_state_view(self, request: HttpRequest, object_id: int) -> JsonResponse:
        """The moving part. Looking at it is what asks a platform's gateway."""
        device = self._device(request, object_id)
        attempt = pairing.latest(device=device)
        if attempt is not None:
            attempt = pairing.follow(attempt=attempt, now=timezone.now())
            device.refresh_from_db(fields=["state", "state_reason", "phone"])
        context = _state_of(device, attempt)
        html = render_to_string("admin/devices/pairing_state.html", context, request=request)
        return JsonResponse({"html": html, "done": context["done"]})

    def pairing_start_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Begin, by picture or by a code for the phone given."""
        device = self._device(request, object_id)
        try:
            # A form for a code without a number must not fall back to a picture.
            phone = request.POST.get("phone", "").strip() or ("none" if "by_code" in request.POST else "")
            pairing.start(device=device, phone=phone, now=timezone.now())
        except pairing.CannotPair as refused:
            messages.error(request, refused.text)
        else:
            self.log_change(request, device, "Began to link it to a phone.")  # type: ignore[attr-defined]
        return _to_page(device)

    def pairing_do_view(self, request: HttpRequest, object_id: int, what: str) -> HttpResponse:
        """Ask, then do."""
        device = self._device(request, object_id)
        question = _question(device, what)
        if question is None:
            raise Http404
        if not confirmed(request):
            return ask(request, model_admin=self, obj=device, question=question)
        try:
            _do(device, what)
        except pairing.CannotPair as refused:
            messages.error(request, refused.text)
        else:
            self.log_change(request, device, f"{question.button}.")  # type: ignore[attr-defined]
            if what in DONE:
                messages.success(request, DONE[what].format(device=device))
        return _to_page(device)

    def _device(self, request: HttpRequest, object_id: int) -> Device:
        """The device, for those who may change it. Raises Http404 and PermissionDenied."""
        device: Device = visible_or_404(self, request, str(object_id))
        if not may_change_row(request.user, device):
            raise PermissionDenied
        if not registry.driver_for(device.gateway).pairing:
            raise Http404
        return device


def can_be_linked(device: Device) -> bool:
    """Whether its gateway links devices to phones here."""
    return device.gateway in registry.kinds() and bool(registry.driver_for(device.gateway).pairing)


def _do(device: Device, what: str) -> None:
    now = timezone.now()
    match what:
        case "log-out":
            pairing.log_out(device=device, now=now)
        case "clear-session":
            pairing.clear_session(device=device, now=now)
        case "reset":
            pairing.reset(device=device, now=now)
        case "stop":
            pairing.stop(device=device, now=now)
        case _:
            if not services.ask_refresh(devices=Device.objects.filter(pk=device.pk)):
                text = f"{device} is {device.get_state_display().lower()}, so there is nothing to connect anew."
                raise pairing.CannotPair("wrong_state", text)


def _question(device: Device, what: str) -> Question | None:
    """What is asked before the button does it; None for a button that there is not."""
    back = _url(device, "pairing")
    waits = "What waits for it goes on waiting."
    match what:
        case "log-out":
            text = f"The device is unlinked from its phone and sends nothing until it is linked again. {waits}"
            return Question(title=f"Log {device} out?", text=text, button="Log out", back=back, danger=True)
        case "clear-session" if registry.driver_for(device.gateway).transport == "session":
            text = (
                "The stored session is forgotten without asking the phone: for phones that are lost, and sessions that"
                f" do not log out. The phone keeps a dead entry under Linked devices. {waits}"
            )
            return Question(
                title=f"Clear {device}'s session?", text=text, button="Clear session", back=back, danger=True
            )
        case "reset":
            text = f"Whatever link there is goes, and a new code is shown at once. {waits}"
            return Question(title=f"Link {device} from scratch?", text=text, button="Reset", back=back, danger=True)
        case "refresh":
            text = "The device is connected anew; what is being sent ends first. A device that needs attention goes on."
            return Question(title=f"Refresh {device} now?", text=text, button="Refresh now", back=back)
        case "stop":
            text = "The code is not good any more. The device stays as it is."
            return Question(title="Stop linking?", text=text, button="Stop linking", back=back)
        case _:
            return None


def _state_of(device: Device, attempt: PairingAttempt | None) -> dict[str, Any]:
    """What the moving part shows. It must come out the same while nothing changes, so that nothing flickers."""
    driver = registry.driver_for(device.gateway)
    done = attempt is None or attempt.ended_at is not None
    return {
        "attempt": attempt,
        "state": label(attempt.get_state_display(), colour=COLOURS.get(PairingState(attempt.state), "info"))
        if attempt is not None
        else "",
        "device_label": label(device.get_state_display(), colour="success" if _is_on(device) else "warning"),
        "device": device,
        "done": done,
        "by_qr": "qr" in driver.pairing,
        "by_code": "code" in driver.pairing,
        "picture": _picture(attempt) if attempt is not None else "",
        "start_url": _url(device, "pairing_start"),
        "stop_url": reverse("admin:devices_device_pairing_do", args=[device.pk, "stop"]),
    }


def _is_on(device: Device) -> bool:
    return device.state == DeviceState.ACTIVE


def _picture(attempt: PairingAttempt) -> SafeString | str:
    """The code to scan: drawn here, or the gateway's own picture. Dark on white in any theme: cameras want that."""
    if attempt.qr:
        code = segno.make(attempt.qr, error="l", micro=False)
        drawn = code.svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True, svgclass="fl-qr")
        return mark_safe(drawn)  # noqa: S308 - drawn here, from modules; the text is not in it
    if attempt.qr_png:
        data = base64.b64encode(bytes(attempt.qr_png)).decode()
        return mark_safe(f'<img class="fl-qr" alt="QR code" src="data:image/png;base64,{data}">')  # noqa: S308 - base64
    return ""


def _buttons(device: Device) -> dict[str, str]:
    """Addresses of what can be done besides."""
    names = ["refresh", "log-out", "reset"]
    if registry.driver_for(device.gateway).transport == "session":
        names.append("clear-session")
    urls = {
        f"{name.replace('-', '_')}_url": reverse("admin:devices_device_pairing_do", args=[device.pk, name])
        for name in names
    }
    return {**urls, "back_url": change_url(device)}


def _url(device: Device, name: str) -> str:
    return reverse(f"admin:devices_device_{name}", args=[device.pk])


def _to_page(device: Device) -> HttpResponseRedirect:
    return HttpResponseRedirect(_url(device, "pairing"))
