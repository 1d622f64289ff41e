"""Senders: devices, the pools they belong to, and who else may look at them."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from devices.access import Access, OwnedQuerySet
from devices.gateways import registry
from devices.gateways.base import Configurable, Gateway
from devices.hook_models import HookKey as HookKey  # noqa: PLC0414 - Django looks for models here
from devices.secrets import SecretsField

MAX_LANES = 50


class Pool(models.Model):
    """Devices that may stand in for one another."""

    access = Access(owner="owner")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="pools")
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "name"], name="pool_owner_name")]
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name


class DeviceState(models.TextChoices):
    """A device can send ("is connected") exactly when it is ACTIVE; an open socket is not required."""

    ACTIVE = "active", "Connected"
    PAUSED = "paused", "Paused"
    NEEDS_ATTENTION = "needs_attention", "Needs attention"
    UNPAIRED = "unpaired", "Not paired"


BANNED, UNREACHABLE = "banned", "unreachable"
"""Codes of why a device needs attention that mean the same for every gateway; any other is the gateway's own."""
LOGGED_OUT, REPLACED = "logged_out", "replaced"
"""Two more: its link to the phone is gone, or another client has taken it over."""
MENDED_BY_CONNECTING = (LOGGED_OUT, REPLACED, UNREACHABLE)
"""Troubles that are over once the gateway says that the device is connected. A ban or a refused token is not."""


class DeviceQuerySet(OwnedQuerySet):
    """Devices, and the questions asked of many of them."""

    def able(self) -> DeviceQuerySet:
        """Devices that can send: not paused, nothing to fix, with credentials or a session."""
        return self.filter(state=DeviceState.ACTIVE)


def gateway_choices() -> list[tuple[str, str]]:
    """Registered gateways as (kind, label): a callable, so that a new driver needs no migration."""
    return registry.choices()


class Device(models.Model):
    """One sender: a WhatsApp session or an account at a messaging gateway.

    Three times decide when it may send next, and they mean different things: ``next_send_at`` is our pacing,
    ``held_until`` a rest (they throttled us, or a reconnect backs off), ``wake_at`` the earliest moment at which the
    release has anything to do here. ``wake_at`` is NULL while nothing waits or every lane is busy, so idle devices
    cost nothing; whatever changes that lowers it in the same transaction. ``new_contacts_held_until`` is a rest from
    people to whom this device has not written before; the others hear from it meanwhile.
    """

    access = Access(owner="owner", device="self")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="devices")
    pool = models.ForeignKey(Pool, on_delete=models.SET_NULL, null=True, blank=True, related_name="devices")
    name = models.CharField(max_length=100)
    phone = models.CharField(max_length=20, blank=True, help_text="The device's own number, as +628110000001.")
    session_phone = models.CharField(max_length=20, blank=True, default="", db_default="", editable=False)
    gateway = models.CharField(max_length=32, choices=gateway_choices)
    base_url = models.URLField(blank=True, help_text="Leave empty for the gateway's usual address.")
    credentials = SecretsField(blank=True, default=dict)
    options = models.JSONField(default=dict, blank=True)
    config_version = models.PositiveIntegerField(default=1, editable=False)

    state = models.CharField(max_length=16, choices=DeviceState, default=DeviceState.ACTIVE)
    state_reason = models.CharField(max_length=300, blank=True)
    attention_code = models.CharField(
        max_length=60, blank=True, default="", db_default="", editable=False, help_text="Why it needs attention."
    )
    reconnect_failures = models.PositiveSmallIntegerField(default=0, editable=False)

    lanes = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_LANES)],
        help_text="Sends at the same time: 1 for a WhatsApp session, more for a gateway that takes parallel calls.",
    )
    delay_min_seconds = models.FloatField(default=10, validators=[MinValueValidator(0)])
    delay_max_seconds = models.FloatField(default=30, validators=[MinValueValidator(0)])
    cap_per_hour = models.PositiveIntegerField(null=True, blank=True, help_text="Empty: no hourly cap.")
    cap_per_day = models.PositiveIntegerField(null=True, blank=True, default=300, help_text="Empty: no daily cap.")

    warm_up = models.BooleanField(
        null=True,
        blank=True,
        help_text="Start with 20 messages a day and grow from day to day. Left open: on for new WhatsApp sessions.",
    )
    window_start = models.TimeField(null=True, blank=True, help_text="Sends only from this time of day …")
    window_end = models.TimeField(null=True, blank=True, help_text="… to this one; past midnight if it is earlier.")
    time_zone = models.CharField(
        max_length=64,
        blank=True,
        help_text="Zone of the sending window, as Asia/Kuala_Lumpur. Empty: the installation's.",
    )

    next_send_at = models.DateTimeField(null=True, blank=True, editable=False)
    held_until = models.DateTimeField(null=True, blank=True, editable=False)
    hold_reason = models.CharField(max_length=200, blank=True, editable=False)
    new_contacts_held_until = models.DateTimeField(null=True, blank=True, editable=False)
    wake_at = models.DateTimeField(null=True, blank=True, editable=False)
    refresh_asked_at = models.DateTimeField(null=True, blank=True, editable=False)
    refreshed_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_sent_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = DeviceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="device_owner_name"),
            # Two sessions of one number in one process overwrite each other, and both write to the same people.
            models.UniqueConstraint(
                fields=["gateway", "session_phone"], name="device_session_phone", condition=~Q(session_phone="")
            ),
            models.CheckConstraint(condition=Q(state__in=DeviceState.values), name="device_state_known"),
            models.CheckConstraint(condition=Q(lanes__gte=1, lanes__lte=MAX_LANES), name="device_lanes_sane"),
            models.CheckConstraint(
                condition=Q(delay_min_seconds__gte=0, delay_max_seconds__gte=F("delay_min_seconds")),
                name="device_delay_ordered",
            ),
        ]
        indexes = [
            # release, statement 1: devices that are able and due, in the order they became due
            models.Index(
                fields=["wake_at"], name="device_due", condition=Q(state=DeviceState.ACTIVE, wake_at__isnull=False)
            ),
            # the tick that passes on what people asked to be refreshed
            models.Index(
                fields=["refresh_asked_at"], name="device_refresh", condition=Q(refresh_asked_at__isnull=False)
            ),
        ]
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name

    @property
    def queue(self) -> str:
        """Name of this device's Celery queue."""
        return f"device.{self.pk}"

    def clean(self) -> None:
        """Problems a person can fix, each at its field."""
        errors: dict[str, str] = {}
        if self.delay_max_seconds < self.delay_min_seconds:
            errors["delay_max_seconds"] = (
                f"The longest delay must not be shorter than the shortest ({self.delay_min_seconds:g} s)."
            )
        if self.gateway in registry.kinds():
            errors |= self._gateway_problems(registry.driver_for(self.gateway))
        if (self.window_start is None) != (self.window_end is None):
            errors["window_end" if self.window_end is None else "window_start"] = (
                "A sending window has a start and an end: fill in both, or neither."
            )
        if self.time_zone and self.time_zone not in available_timezones():
            errors["time_zone"] = f"“{self.time_zone}” is not a time zone; use a name like Asia/Kuala_Lumpur."
        if errors:
            raise ValidationError(errors)

    def _gateway_problems(self, driver: Gateway) -> dict[str, str]:
        """What this gateway needs and does not have, by field."""
        errors: dict[str, str] = {}
        if driver.transport == "http":
            missing = [f.label for f in driver.credential_fields if f.required and not self.credentials.get(f.name)]
            if missing:
                errors["credentials"] = f"{driver.label} needs: {', '.join(missing)}."
            if not (self.base_url or driver.default_base_url or driver.kind in settings.FLOTILLA_GATEWAY_URLS):
                errors["base_url"] = f"{driver.label} has no usual address: enter the one of your account."
        elif self.lanes != 1:
            errors["lanes"] = "A WhatsApp session sends one message at a time: set lanes to 1."
        if not isinstance(self.options, dict):
            errors["options"] = "Write an object, as {}."
        elif isinstance(driver, Configurable) and (wrong := driver.option_problems(self.options)):
            errors["options"] = " ".join(wrong)
        return errors

    def save(self, **kwargs: Any) -> None:
        """Store the row; live clients notice changed credentials by ``config_version``."""
        if self._state.adding and self.warm_up is None and self.gateway in registry.kinds():
            self.warm_up = registry.driver_for(self.gateway).transport == "session"
        if self._state.adding and self.state == DeviceState.ACTIVE and self._must_be_paired():
            self.state, self.state_reason = DeviceState.UNPAIRED, "It is not linked to a phone: pair it."
        fields = kwargs.get("update_fields")
        if self.pk and (fields is None or {"credentials", "base_url", "options", "gateway"} & set(fields)):
            self.config_version += 1
            if fields is not None:
                kwargs["update_fields"] = {*fields, "config_version"}
        super().save(**kwargs)

    def _must_be_paired(self) -> bool:
        """Whether it is a session that only a phone can give."""
        if self.gateway not in registry.kinds():
            return False
        driver = registry.driver_for(self.gateway)
        return driver.transport == "session" and bool(driver.pairing) and not self.credentials.get("jid")


class DeviceShare(models.Model):
    """Lets somebody look at one device and what hangs on it."""

    access = Access(owner="device__owner")

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="shares")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="device_shares")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["device", "user"], name="share_device_user")]

    def __str__(self) -> str:
        return f"{self.device} → {self.user}"


class GatewayRest(models.Model):
    """An address that several calls in a row found nobody at: none of its devices is released to until then.

    The row stays, past ``until``, until a call meets somebody there. ``strikes`` counts rests since the last answer; 0
    is a short wait because too many calls hang there.
    """

    access = Access(owner=None)

    gateway = models.CharField(max_length=32)
    base_url = models.URLField(blank=True, help_text="As the devices have it; empty: the gateway's usual address.")
    since = models.DateTimeField()
    until = models.DateTimeField()
    strikes = models.PositiveSmallIntegerField(default=0)
    reason = models.CharField(max_length=300, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["gateway", "base_url"], name="rest_gateway_url")]
        ordering = ["gateway", "base_url"]

    def __str__(self) -> str:
        return f"{self.gateway} {self.base_url}".strip()


from devices.pairing_models import PairingAttempt, PairingState  # noqa: E402, F401 - found here
from devices.session_models import Incident, RiskyCall, SessionHost, SessionShard  # noqa: E402, F401 - found here
from devices.status_models import StatusLink  # noqa: E402, F401 - found here
