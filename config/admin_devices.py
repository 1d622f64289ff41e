"""What a device's page has from further up: a test message to a number one types, and who serves the device."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from config.admin_workers import served_by
from devices.admin_pages import change_url, page, visible_or_404
from devices.models import Device, DeviceState
from messaging import days
from messaging.models import DayCount
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


class AtWork:
    """The same: beside a device's state, who serves it and what failed today."""

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[tuple[str | None, dict[str, Any]]]:
        """In front, the worker; after what it sent, what failed."""
        beside = {"state_reason": ("state_reason", "worker"), "sent_today": ("sent_today", "failed_today")}
        return [
            (title, {**each, "fields": [more for name in each["fields"] for more in beside.get(name, (name,))]})
            for title, each in super().get_fieldsets(request, obj)  # type: ignore[misc]
        ]

    @display(description="Failed today")
    def failed_today(self, device: Device) -> str:
        """For good, by the installation's clock."""
        counted = DayCount.objects.filter(device=device, day=days.today(timezone.now()))
        return f"{sum(counted.values_list('failed', flat=True)):,}"

    @display(description="Worker")
    def worker(self, device: Device) -> SafeString:
        """Who takes what is released for it, as a way to all that serve and are served."""
        names = ", ".join(served_by(device, now=timezone.now()))
        address = f"{reverse('admin:workers')}?{urlencode({'q': device.name})}"
        return format_html('<a class="fl-link" href="{}">{}</a>', address, names or "Nobody takes its queue now")


def _with_what_is_above() -> None:
    registered: Any = type(admin.site.get_model_admin(Device))
    admin.site.unregister(Device)
    members = {
        "__module__": __name__,
        "actions_detail": (*registered.actions_detail, "test_device"),
        "readonly_fields": (*registered.readonly_fields, "failed_today", "worker"),
    }
    admin.site.register(Device, type(registered.__name__, (TestSend, AtWork, registered), members))


_with_what_is_above()
