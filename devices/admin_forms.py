"""The device form: credentials go in and never come out."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from devices import services
from devices.admin_base import OwnedForm
from devices.gateways import registry
from devices.gateways.base import CredentialField, Gateway
from devices.models import Device, DeviceState
from devices.secrets import Secrets

LABELS = {
    "base_url": "Address",
    "delay_min_seconds": "Shortest pause between two messages, in seconds",
    "delay_max_seconds": "Longest pause, in seconds",
    "cap_per_hour": "Most messages per hour",
    "cap_per_day": "Most messages per day",
    "warm_up": "Warm up",
    "lanes": "Messages at the same time",
    "window_start": "Sends only from",
    "window_end": "until",
    "time_zone": "Time zone of these times",
}
HELP_TEXTS = {
    "warm_up": "Start with 20 messages a day and grow from day to day.",
    "lanes": "1 for a WhatsApp session, more for a gateway that takes parallel calls.",
    "window_start": "A time of day.",
    "window_end": "A time of day; the next day's if it is earlier than the first.",
    "time_zone": "As Asia/Kuala_Lumpur. Empty: the installation's.",
}
WARM_UP_CHOICES = (("unknown", "By the gateway: on for new WhatsApp sessions"), ("true", "On"), ("false", "Off"))
UNREADABLE = "The stored credentials cannot be read with the key in use: enter them again."


def drivers() -> list[Gateway]:
    """All gateways, in the order of registration."""
    return [registry.driver_for(kind) for kind, _label in registry.choices()]


def input_name(driver: Gateway, field: CredentialField) -> str:
    """Name of the form field for one credential. A valid name in JavaScript too: the form shows fields by gateway."""
    return f"credential_{driver.kind}_{field.name}".replace("-", "_")


def credential_inputs() -> dict[str, forms.Field]:
    """A form field for every credential of every gateway; none of them ever renders a value."""
    return {
        input_name(driver, field): forms.CharField(
            label=field.label,
            required=False,
            help_text=field.help_text,
            widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"})
            if field.secret
            else UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        )
        for driver in drivers()
        for field in driver.credential_fields
    }


def shown_when() -> dict[str, str]:
    """Which credential is shown for which gateway, as expressions for the form's own script."""
    return {
        input_name(driver, field): f"gateway == '{driver.kind}'"
        for driver in drivers()
        for field in driver.credential_fields
    }


class DeviceForm(OwnedForm):
    """Credentials are write-only: an empty field keeps what is stored.

    Stored values stay with the gateway and address they were entered for (:mod:`devices.services`): whoever changes
    either enters them again.
    """

    new_credentials = False

    class Meta:
        labels = LABELS
        help_texts = HELP_TEXTS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "warm_up" in self.fields:
            self.fields["warm_up"].widget.choices = WARM_UP_CHOICES
        stored, problem = self._stored()
        for driver in drivers():
            for field in driver.credential_fields:
                shown = self.fields.get(input_name(driver, field))
                if shown is None or driver.kind != self.instance.gateway:
                    continue
                if problem:
                    shown.help_text = UNREADABLE
                elif stored.get(field.name):
                    shown.help_text = f"{field.help_text} Stored. Leave empty to keep it.".strip()

    def clean(self) -> dict[str, Any]:
        """Put the credentials together; what is missing is said at its field."""
        cleaned = super().clean()
        kind = cleaned.get("gateway", "")
        if kind not in registry.kinds() or not any(name.startswith("credential_") for name in self.fields):
            return cleaned
        driver = registry.driver_for(kind)
        entered = {
            field.name: value
            for field in driver.credential_fields
            if (value := cleaned.get(input_name(driver, field), ""))
        }
        base_url = cleaned.get("base_url", "")
        device: Any = self.instance
        moved = device.pk is not None and not services.keeps_credentials(device=device, gateway=kind, base_url=base_url)
        credentials = services.merged_credentials(device=device, gateway=kind, base_url=base_url, entered=entered)
        self.new_credentials = bool(entered) or moved
        if device.pk is not None and self.changed_columns() & services.CONFIGURATION:
            self._must_be_as_read(device)
        device.credentials = credentials
        if driver.transport == "http":
            self._demand(driver, credentials, again=moved)
        elif device.pk is None:
            device.state = DeviceState.UNPAIRED
        return cleaned

    def add_error(self, field: str | None, error: Any) -> None:
        """The model reports on ``credentials``, which is several fields here, each with its own error already."""
        if isinstance(error, ValidationError) and hasattr(error, "error_dict") and "credentials" in error.error_dict:
            texts = dict(error.error_dict)
            about_credentials = texts.pop("credentials")
            if not any(name.startswith("credential_") for name in self.errors):
                texts.setdefault(NON_FIELD_ERRORS, []).extend(about_credentials)
            if not texts:
                return
            error = ValidationError(texts)
        super().add_error(field, error)

    def changed_columns(self) -> set[str]:
        """Credentials are written when any of them changed."""
        return super().changed_columns() | ({"credentials"} if self.new_credentials else set())

    def _must_be_as_read(self, device: Device) -> None:
        """An error if another request has written to the device's configuration since this one read it."""
        if not services.locked_as_read(device=device):
            self.add_error(None, services.CHANGED_MEANWHILE)

    def _demand(self, driver: Gateway, credentials: Secrets, *, again: bool) -> None:
        """An error at each field that the gateway needs and nobody entered."""
        for field in driver.credential_fields:
            if field.required and not credentials.get(field.name):
                text = f"{driver.label} needs this."
                self.add_error(input_name(driver, field), f"{text} {services.ENTER_AGAIN}" if again else text)

    def _stored(self) -> tuple[Secrets, str]:
        """What the device has, and why it cannot be read if it cannot."""
        stored: Any = Device.objects.values_list("credentials", flat=True).filter(pk=self.instance.pk).first()
        if not isinstance(stored, Secrets):
            return Secrets(), ""
        return stored, UNREADABLE if stored.unreadable else ""
