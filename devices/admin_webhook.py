"""A device's own webhook address on its page, with the button that changes it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import action, display

from devices import hook_keys
from devices.admin_pages import Question, ask, back_to, change_url, confirmed, visible_or_404
from devices.admin_text import NOTHING, moment_in_full
from devices.models import Device

NOT_YET = "None yet: “Webhook address” makes one. Receipts and replies of this device are posted there."


class WebhookMixin:
    """For the device's admin: a read-only field and an action."""

    @display(description="Address for receipts and replies")
    def webhook_address(self, device: Device) -> SafeString | str:
        """Where the gateway posts to, and until when an older address works."""
        if not device.pk:
            return NOTHING
        key = hook_keys.current(device=device)
        if key is None:
            return NOT_YET
        path = hook_keys.path_of(gateway=device.gateway, key=key)
        if not path:
            return "It cannot be read with the key in use: make a new one."
        until = hook_keys.older_until(device=device, now=timezone.now())
        older = format_html("<br>The address before it works until {}.", moment_in_full(until)) if until else ""
        return format_html("<code>{}{}</code>{}", settings.FLOTILLA_URL, path, older)

    @action(description="Webhook address", icon="webhook", permissions=["change"])
    def rotate_webhook(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask; on yes, make a new address. The device's page shows it."""
        device: Device = visible_or_404(self, request, object_id)
        if not confirmed(request):
            return ask(request, model_admin=self, obj=device, question=_question(device))
        hook_keys.rotate(device=device, now=timezone.now())
        self.log_change(request, device, "Webhook address changed.")
        self.message_user(request, "The new address is on this page: enter it at the gateway.", messages.SUCCESS)
        return back_to(device)


def _question(device: Device) -> Question:
    first = hook_keys.current(device=device) is None
    hours = f"{settings.FLOTILLA_HOOK_KEY_KEEP_HOURS:g}"
    leaked = "If it has leaked, end it at once over the API (keep_hours 0)."
    return Question(
        title=f"A webhook address for {device}?" if first else f"A new webhook address for {device}?",
        text="Whoever knows it can report receipts and replies of this device, so nobody but the gateway should."
        if first
        else f"The address before it works for another {hours} hours, so that the gateway can be changed in peace. "
        + leaked,
        button="Make an address" if first else "Make a new address",
        back=change_url(device),
    )
