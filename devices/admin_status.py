"""The public link of a device: made and revoked on its page, opened by whoever was given it."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action

from devices import status_links
from devices.admin_pages import Question, ask, change_url, confirmed, page, visible_or_404
from devices.models import StatusLink


class StatusLinkMixin:
    """What :class:`~devices.admin.DeviceAdmin` gets from here."""

    @action(description="Status link", icon="link", permissions=["change"])
    def status_link(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """Make a link, or revoke the one there is. The address is shown in this answer only: it is stored nowhere."""
        device = visible_or_404(self, request, object_id)
        made = StatusLink.objects.filter(pk=device.pk).first()
        if not confirmed(request):
            return ask(request, model_admin=self, obj=device, question=_question(device, made))
        if request.POST.get("revoke"):
            if status_links.revoke(device=device):
                self.log_change(request, device, "Revoked the status link.")
                messages.success(request, "The status link has stopped working.")
            return HttpResponseRedirect(change_url(device))
        key = status_links.make(device=device, by=cast("User", request.user), now=timezone.now())
        self.log_change(request, device, "Made a status link.")
        context = {
            "address": request.build_absolute_uri(reverse("device-status", args=[key])),
            "revoke_url": request.path,
            "back": change_url(device),
            "original": device,
        }
        title = f"Status link of {device}"
        answer = page(
            request, model_admin=self, template="admin/devices/status_link.html", title=title, context=context
        )
        answer["Cache-Control"] = "no-store"
        return answer


def _question(device: Any, made: StatusLink | None) -> Question:
    text = (
        "Whoever has the link sees this device's name, its state, when it last sent, how much it has sent today and how"
        " much waits. No numbers, no texts, and nothing can be changed."
    )
    if made is None:
        return Question(title=f"Make a public status link for {device}?", text=text, button="Make the link",
                        back=change_url(device))  # fmt: skip
    return Question(
        title=f"Replace the status link of {device}?",
        text=text,
        button="Make a new link",
        back=change_url(device),
        facts=(("The present link was made", f"{timezone.localtime(made.created_at):%Y-%m-%d %H:%M %Z}"),),
        warnings=("The present link stops working at once.",),
        danger=True,
    )
