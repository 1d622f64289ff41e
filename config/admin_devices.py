"""A test message from a device's page: sent at once, ahead of everything else, to a number one types."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from unfold.decorators import action
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from devices.admin_pages import change_url, page, visible_or_404
from devices.models import Device, DeviceState
from messaging.services import SendRefused, send_single


class TestForm(forms.Form):
    """To whom, and what."""

    phone = forms.CharField(
        max_length=40, widget=UnfoldAdminTextInputWidget(attrs={"dir": "ltr"}), help_text="As +60123456789."
    )
    text = forms.CharField(
        max_length=1000, widget=UnfoldAdminTextareaWidget(attrs={"dir": "auto", "rows": 3}), initial="A test."
    )


class TestSend:
    """Mixed into whatever admin devices have."""

    @action(description="Send a test", icon="send", permissions=["change"])
    def test_device(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """A form; on yes, a message like any other, which its page shows."""
        device: Device = visible_or_404(self, request, object_id)
        form = TestForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            try:
                message = send_single(
                    owner=device.owner,
                    device=device,
                    phone=form.cleaned_data["phone"],
                    text=form.cleaned_data["text"],
                    now=timezone.now(),
                )
            except SendRefused as refused:
                form.add_error(refused.field if refused.field in form.fields else None, refused.text)
            else:
                self.log_change(request, device, "Sent a test.")
                self.message_user(
                    request, "The test goes out now; this page tells what became of it.", messages.SUCCESS
                )
                return HttpResponseRedirect(change_url(message))
        waits = device.state != DeviceState.ACTIVE
        state = str(device.get_state_display()).lower()
        context = {
            "form": form,
            "form_media": form.media,
            "facts": (("Device", str(device)), ("State", device.get_state_display())),
            "warnings": (f"The device is {state}: the test waits until it is connected.",) if waits else (),
            "hidden": (),
            "button": "Send",
            "danger": False,
            "back": change_url(device),
            "original": device,
        }
        title = f"Send a test by {device}"
        return page(request, model_admin=self, template="admin/leads/bulk_form.html", title=title, context=context)


def _with_test_send() -> None:
    registered: Any = type(admin.site.get_model_admin(Device))
    admin.site.unregister(Device)
    actions = (*registered.actions_detail, "test_device")
    members = {"__module__": __name__, "actions_detail": actions}
    admin.site.register(Device, type(registered.__name__, (TestSend, registered), members))


_with_test_send()
