"""Devices, pools and shares in the admin."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display

from devices import services, sharing
from devices.access import may_change, may_change_row
from devices.admin_base import OwnedAdmin, OwnedInline
from devices.admin_filters import VisibleSelectFilter
from devices.admin_forms import DeviceForm, credential_inputs, shown_when
from devices.admin_pages import Question, ask, back_to, change_url, confirmed, list_url, visible_or_404
from devices.admin_pairing import PairingPages, can_be_linked
from devices.admin_status import StatusLinkMixin
from devices.admin_text import NOTHING, label, many, moment_column, moment_in_full, phone
from devices.admin_webhook import WebhookMixin
from devices.models import Device, DeviceShare, DeviceState, Pool

STATE_COLOURS = {
    DeviceState.ACTIVE: "success",
    DeviceState.PAUSED: "warning",
    DeviceState.NEEDS_ATTENTION: "danger",
    DeviceState.UNPAIRED: "info",
}


class DeviceShareInline(OwnedInline):
    """Who else may look at the device."""

    model = DeviceShare
    fields = ["user"]
    verbose_name = "person who may look at this device"
    verbose_name_plural = "shared with"
    tab = True

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Only those to whom a share gives anything."""
        if db_field.name == "user":
            kwargs["queryset"] = sharing.lookers()
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


@admin.register(Device)
class DeviceAdmin(PairingPages, WebhookMixin, StatusLinkMixin, OwnedAdmin):
    """Senders."""

    list_display = ("name", "state_label", "gateway", "pool", "sent_today", "waiting", "last_sent", "pacing", "number")
    list_filter = (
        ("state", ChoicesDropdownFilter),
        ("pool", VisibleSelectFilter),
        ("gateway", ChoicesDropdownFilter),
    )
    search_fields = ("name", "phone")
    search_help_text = "Name or number of the device"
    empty_hint = "A device is one sender: a WhatsApp account, or an account at a messaging gateway."
    autocomplete_fields = ("pool",)
    readonly_fields = (
        *("state_label", "state_reason", "rest", "sent_today", "waiting", "last_sent_in_full", "created"),
        "webhook_address",
    )
    inlines = (DeviceShareInline,)
    actions = ("pause_devices", "resume_devices", "refresh_devices")
    actions_list = ("reconnect_all",)
    actions_detail = (
        *("pause_device", "resume_device", "refresh_device", "link_device", "log_out_device"),
        *("status_link", "rotate_webhook"),
    )
    form = DeviceForm

    @property
    def conditional_fields(self) -> dict[str, str]:
        """Credentials of the chosen gateway only."""
        return shown_when()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        """Without credentials: no page needs them, and one that does not decrypt must not break a list."""
        return super().get_queryset(request).select_related("pool").defer("credentials")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Device | None:
        """With the figures that its page shows beside its state."""
        device: Device | None = super().get_object(request, object_id, from_field)
        if device is not None:
            self.attach(request, [device])
        return device

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """With a field for every credential."""
        kwargs["form"] = type("DeviceForm", (DeviceForm,), credential_inputs())
        return super().get_form(request, obj, change=change, **kwargs)

    fieldsets = (
        (None, {"fields": ["owner", "name", "phone", "pool"]}),
        (
            "Now",
            {
                "fields": [
                    "state_label",
                    "state_reason",
                    "rest",
                    "sent_today",
                    "waiting",
                    "last_sent_in_full",
                    "created",
                ]
            },
        ),
        ("Gateway", {"fields": ["gateway", "base_url"]}),
        (
            "Pacing",
            {"fields": ["delay_min_seconds", "delay_max_seconds", "cap_per_hour", "cap_per_day", "warm_up", "lanes"]},
        ),
        (
            "Sending window",
            {
                "fields": [("window_start", "window_end"), "time_zone"],
                "description": "Leave both times empty to send around the clock.",
            },
        ),
        ("Webhook", {"fields": ["webhook_address"]}),
        ("Advanced", {"fields": ["options"], "classes": ["collapse"]}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Device | None = None) -> list[tuple[str | None, dict[str, Any]]]:
        """Credentials and the webhook only for those who may change them, state only for devices that exist."""
        fieldsets = []
        changes = may_change(request.user) if obj is None else may_change_row(request.user, obj)
        for title, options in super().get_fieldsets(request, obj):
            if title == "Gateway" and changes:
                options = {**options, "fields": [*options["fields"], *credential_inputs()]}  # noqa: PLW2901
            if title == "Webhook" and not changes:
                continue
            if title not in {"Now", "Webhook"} or obj is not None:
                fieldsets.append((title, options))
        return fieldsets

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[Any]:
        """Of pause and resume, the one that the device's state allows; linking where its gateway links."""
        found = super().get_actions_detail(request, object_id)
        device = Device.objects.filter(pk=object_id) if str(object_id).isdecimal() else Device.objects.none()
        row = device.only("state", "gateway").first()
        state = row.state if row else ""
        without = [
            *([] if row and can_be_linked(row) else ["_link_device", "_log_out_device"]),
            *([] if state in services.REFRESHABLE else ["_refresh_device"]),
            *([] if state == DeviceState.ACTIVE else ["_log_out_device"]),
            *([] if state in services.PAUSABLE else ["_pause_device"]),
            *([] if state in services.RESUMABLE else ["_resume_device"]),
        ]
        return [shown for shown in found if not shown.action_name.endswith(tuple(without))]

    def save_model(self, request: HttpRequest, obj: Device, form: Any, change: bool) -> None:
        """Store, and let the release look again where the rhythm changed."""
        super().save_model(request, obj, form, change)
        if change:
            services.wake_if_rhythm_changed(device=obj, columns=form.changed_columns())

    def attach(self, request: HttpRequest, rows: list[Device]) -> None:
        """What waits for the devices on this page and what they have sent: three queries."""
        waiting = dict(
            Device.objects.filter(pk__in=[device.pk for device in rows], streams__is_open=True)
            .order_by()
            .values_list("pk")
            .annotate(Sum("streams__waiting"))
        )
        sent = self._sent_today(rows)
        for device in rows:
            device.waiting_messages = waiting.get(device.pk, 0)  # type: ignore[attr-defined]
            device.sent_messages = sent.get(device.pk, 0)  # type: ignore[attr-defined]

    def _sent_today(self, rows: list[Device]) -> dict[int, int]:
        """Of devices with a daily cap what counts against it, which is a rolling day; of others, the day's counter.

        Index attempt_device_started, and no more of it than the caps allow.
        """
        now = timezone.now()
        capped = [device.pk for device in rows if device.cap_per_day]
        free = [device.pk for device in rows if not device.cap_per_day]
        day = timezone.localtime(now, timezone.get_default_timezone()).date()
        of_day = Device.objects.filter(pk__in=free, day_counts__day=day).values_list("pk", "day_counts__sent")
        since = Device.objects.filter(pk__in=capped, attempts__started_at__gt=now - timedelta(days=1)).order_by()
        return {**dict(of_day.order_by()), **dict(since.values_list("pk").annotate(Count("attempts")))}

    last_sent = moment_column("last_sent_at", "Last sent")
    last_sent_in_full = moment_column("last_sent_at", "Last sent", in_full=True)
    created = moment_column("created_at", "Created", in_full=True)

    @display(description="State", ordering="state")
    def state_label(self, device: Device) -> SafeString:
        """The state, coloured."""
        return label(device.get_state_display(), colour=STATE_COLOURS[DeviceState(device.state)])

    @display(description="Phone", ordering="phone")
    def number(self, device: Device) -> SafeString:
        """The device's own number."""
        return phone(device.phone)

    @display(description="Rest")
    def rest(self, device: Device) -> SafeString:
        """Until when it sends nothing although it is connected, and why."""
        if device.held_until is None or device.held_until <= timezone.now():
            return NOTHING
        until = moment_in_full(device.held_until)
        because = format_html(" because: {}", device.hold_reason) if device.hold_reason else ""
        return format_html("Rests until {}{}", until, because)

    @display(description="Waiting")
    def waiting(self, device: Any) -> str:
        """Messages that wait for this device."""
        return f"{device.waiting_messages:,}" if device.waiting_messages else "–"

    @display(description="Sent today")
    def sent_today(self, device: Any) -> SafeString:
        """Beside its cap, which counts the last 24 hours."""
        if not device.cap_per_day:
            return format_html("{}", f"{device.sent_messages:,}")
        return format_html(
            '<span title="In the last 24 hours, of at most {} a day">{} / {}</span>',
            *(f"{device.cap_per_day:,}", f"{device.sent_messages:,}", f"{device.cap_per_day:,}"),
        )

    @display(description="Pacing")
    def pacing(self, device: Device) -> str:
        """The rhythm and the caps, in a few words."""
        low, high = device.delay_min_seconds, device.delay_max_seconds
        words = [f"{low:g} s" if low == high else f"{low:g}–{high:g} s"]
        words += [f"{device.cap_per_hour:,}/h"] if device.cap_per_hour else []
        words += [f"{device.cap_per_day:,}/day"] if device.cap_per_day else []
        return " · ".join(words)

    @admin.action(description="Pause the chosen devices", permissions=["change"])
    def pause_devices(self, request: HttpRequest, queryset: QuerySet[Device]) -> None:
        """From the list."""
        self._tell(request, queryset.count(), services.pause(devices=queryset), "paused")

    @admin.action(description="Resume the chosen devices", permissions=["change"])
    def resume_devices(self, request: HttpRequest, queryset: QuerySet[Device]) -> None:
        """From the list."""
        self._tell(request, queryset.count(), services.resume(devices=queryset), "resumed")

    @admin.action(description="Refresh the chosen devices", permissions=["change"])
    def refresh_devices(self, request: HttpRequest, queryset: QuerySet[Device]) -> None:
        """From the list."""
        chosen, number = queryset.count(), services.ask_refresh(devices=queryset)
        self._tell(request, chosen, number, f"{'is' if number == 1 else 'are'} being connected anew")

    @action(description="Reconnect all", icon="sync", permissions=["change"])
    def reconnect_all(self, request: HttpRequest) -> HttpResponse:
        """From above the list: one click after an outage."""
        if not confirmed(request):
            return ask(request, model_admin=self, question=_reconnect_question(self.get_queryset(request)))
        number = services.reconnect_all(devices=self.get_queryset(request))
        words = f"{number:,} devices are being connected anew." if number else "No device waits to be connected anew."
        self.message_user(request, words, messages.SUCCESS if number else messages.WARNING)
        return HttpResponseRedirect(list_url(Device))

    @action(description="Pause", icon="pause", permissions=["change"])
    def pause_device(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """From a device's page."""
        device = visible_or_404(self, request, object_id)
        if not confirmed(request):
            return ask(request, model_admin=self, obj=device, question=_pause_question(device))
        if services.pause(devices=self.get_queryset(request).filter(pk=device.pk)):
            self.log_change(request, device, "Paused.")
            self.message_user(request, f"{device} is paused.", messages.SUCCESS)
        else:
            self.message_user(request, f"{device} is not connected, so there is nothing to pause.", messages.WARNING)
        return back_to(device)

    @action(description="Resume", icon="play_arrow", permissions=["change"])
    def resume_device(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """From a device's page."""
        device = visible_or_404(self, request, object_id)
        if not confirmed(request):
            return ask(request, model_admin=self, obj=device, question=_resume_question(device))
        if services.resume(devices=self.get_queryset(request).filter(pk=device.pk)):
            self.log_change(request, device, "Resumed.")
            self.message_user(request, f"{device} is connected and goes on sending.", messages.SUCCESS)
        elif device.state == DeviceState.UNPAIRED:
            self.message_user(request, f"{device} is not paired yet, so it cannot be resumed.", messages.WARNING)
        else:
            self.message_user(request, f"{device} is connected already.", messages.WARNING)
        return back_to(device)

    @action(description="Refresh", icon="sync", permissions=["change"])
    def refresh_device(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Connect it anew: changes nothing and sends nothing, but what is being sent ends first, so it asks."""
        device = visible_or_404(self, request, object_id)
        if not confirmed(request):
            return ask(request, model_admin=self, obj=device, question=_refresh_question(device))
        if services.ask_refresh(devices=self.get_queryset(request).filter(pk=device.pk)):
            self.log_change(request, device, "Refreshed.")
            self.message_user(request, f"{device} is connected anew within seconds.", messages.SUCCESS)
        else:
            state = str(device.get_state_display()).lower()
            words = f"{device} is {state}, so there is nothing to connect anew."
            self.message_user(request, words, messages.WARNING)
        return back_to(device)

    @action(description="Log out", icon="logout", permissions=["change"])
    def log_out_device(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """To the question that takes the link to its phone away."""
        device = visible_or_404(self, request, object_id)
        return HttpResponseRedirect(reverse("admin:devices_device_pairing_do", args=[device.pk, "log-out"]))

    def _tell(self, request: HttpRequest, chosen: int, number: int, done: str) -> None:
        """Say how many of the chosen changed."""
        left = chosen - number
        unchanged = f" {left:,} were not in a state for that." if left else ""
        self.message_user(
            request, f"{many(number, 'device')} {done}.{unchanged}", messages.SUCCESS if number else messages.WARNING
        )


@admin.register(Pool)
class PoolAdmin(OwnedAdmin):
    """Groups of devices that stand in for one another."""

    list_display = ("name", "size", "connected", "created_at")
    search_fields = ("name",)
    search_help_text = "Name of the pool"
    empty_hint = "A pool is several devices that share the work of a campaign."
    fields = ("owner", "name")

    def attach(self, request: HttpRequest, rows: list[Pool]) -> None:
        """How many devices the pools on this page have, by state: one query."""
        found = Device.objects.filter(pool__in=rows).order_by().values_list("pool_id", "state").annotate(Count("id"))
        sizes: dict[int, dict[str, int]] = {}
        for pool_id, state, number in found:
            sizes.setdefault(pool_id, {})[state] = number
        for pool in rows:
            pool.by_state = sizes.get(pool.pk, {})  # type: ignore[attr-defined]

    @display(description="Devices")
    def size(self, pool: Any) -> int:
        """All of them."""
        return sum(pool.by_state.values())

    @display(description="Connected")
    def connected(self, pool: Any) -> int:
        """Those that can send."""
        return pool.by_state.get(DeviceState.ACTIVE, 0)


def _pause_question(device: Device) -> Question:
    return Question(
        title=f"Pause {device}?",
        text="Nothing more is sent through this device until it is resumed. Its messages keep waiting.",
        button="Pause",
        back=change_url(device),
    )


def _reconnect_question(devices: QuerySet[Device]) -> Question:
    return Question(
        title="Reconnect all devices?",
        text="Every device that could not be reached, or is still being tried, is connected anew within seconds. "
        "Those that come back go on sending. What was logged out, banned or paused stays as it is.",
        button="Reconnect all",
        back=list_url(Device),
        facts=(("Devices that wait for it", f"{services.troubled(devices=devices).count():,}"),),
    )


def _refresh_question(device: Device) -> Question:
    return Question(
        title=f"Refresh {device} now?",
        text="The device is connected anew; what is being sent ends first. A device that needs attention goes on.",
        button="Refresh now",
        back=change_url(device),
        facts=(("Why it stopped", device.state_reason),) if device.state_reason else (),
    )


def _resume_question(device: Device) -> Question:
    return Question(
        title=f"Resume {device}?",
        text="The device goes on sending what waits for it, in its own rhythm.",
        button="Resume",
        back=change_url(device),
        facts=(("Why it stopped", device.state_reason),) if device.state_reason else (),
    )
