"""Devices and pools over REST."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from devices import services
from devices.api_base import Conflict, OwnedSerializer, OwnedViewSet
from devices.api_pairing import PairingActions
from devices.gateways import registry
from devices.models import Device, DeviceState, Pool, gateway_choices


class PoolSerializer(OwnedSerializer):
    """A pool; its devices name it."""

    class Meta:
        model = Pool
        fields = ["id", "owner", "name", "created_at"]
        read_only_fields = ["owner", "created_at"]


@extend_schema_field(serializers.ChoiceField(choices=DeviceState.choices), component_name="DeviceState")
class DeviceStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


@extend_schema_field(serializers.DictField())
class OptionsField(serializers.JSONField):
    """An object; what it may hold is the gateway's affair."""


class DeviceSerializer(OwnedSerializer):
    """A device. Credentials go in and never come out."""

    options = OptionsField(required=False, help_text="What else the gateway can be told, by name.")

    credentials = serializers.DictField(
        child=serializers.CharField(allow_blank=True, trim_whitespace=True, max_length=10_000),
        write_only=True,
        required=False,
        help_text="Values by name; which names depends on the gateway. Names left out keep their value, an empty "
        "value removes one. Changing the gateway or the address keeps none of them: give all again in the same "
        "request. Stored encrypted, never returned.",
    )
    state = DeviceStateField(choices=DeviceState.choices, read_only=True)

    class Meta:
        model = Device
        fields = [
            "id", "owner", "name", "phone", "gateway", "base_url", "credentials", "options", "pool", "state",
            "state_reason", "lanes", "delay_min_seconds", "delay_max_seconds", "cap_per_hour", "cap_per_day",
            "warm_up", "window_start", "window_end", "time_zone", "held_until", "hold_reason",
            "last_sent_at", "queue", "created_at",
        ]  # fmt: skip
        read_only_fields = ["owner", "state_reason", "held_until", "hold_reason", "last_sent_at", "created_at"]
        extra_kwargs = {
            "warm_up": {
                "help_text": "Start with 20 messages a day and grow from day to day. Null when creating: on for "
                "WhatsApp sessions, off for the rest."
            },
            "window_start": {
                "help_text": "The device sends only from this time of day, as 09:00, in `time_zone`. Null, together "
                "with `window_end`: around the clock."
            },
            "window_end": {
                "help_text": "The device sends only until this time of day; the next day's if it is earlier than "
                "`window_start`."
            },
            "time_zone": {"help_text": "Zone of the sending window, as Asia/Kuala_Lumpur. Empty: the installation's."},
            "held_until": {"help_text": "Connected, but resting until then; null or past: not resting."},
            "hold_reason": {"help_text": "Why it rests or rested last."},
        }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Merge new credentials into the stored ones before the model looks at the whole."""
        device = self.instance or Device()
        place = {
            "gateway": str(attrs.get("gateway", device.gateway)),
            "base_url": str(attrs.get("base_url", device.base_url)),
        }
        moved = self.instance is not None and not services.keeps_credentials(device=device, **place)
        if moved or "credentials" in attrs:
            entered = self._known(place["gateway"], attrs.get("credentials", {}))
            attrs["credentials"] = services.merged_credentials(device=device, entered=entered, **place)
        if moved:
            self._demand(place["gateway"], attrs["credentials"])
        return super().validate(attrs)

    def validate_options(self, value: Any) -> Any:
        """Options are a mapping."""
        if not isinstance(value, dict):
            raise serializers.ValidationError("Give an object, as {}.", "not_an_object")
        return value

    def update(self, instance: Device, validated_data: dict[str, Any]) -> Device:
        """Store what was validated against the row as it was read, and wake the device where its rhythm changed."""
        with transaction.atomic():
            if services.CONFIGURATION & set(validated_data) and not services.locked_as_read(device=instance):
                raise Conflict(services.CHANGED_MEANWHILE, "changed_meanwhile")
            device: Device = super().update(instance, validated_data)
            services.wake_if_rhythm_changed(device=device, columns=validated_data)
        return device

    def _known(self, kind: str, given: dict[str, str]) -> dict[str, str]:
        """``given``, if the gateway knows all its names."""
        known = (
            {field.name for field in registry.driver_for(kind).credential_fields} if kind in registry.kinds() else set()
        )
        unknown = sorted(set(given) - known)
        if unknown:
            raise serializers.ValidationError(
                {"credentials": f"This gateway knows no {', '.join(unknown)}; it takes: {', '.join(sorted(known))}."},
                "unknown_name",
            )
        return given

    def _demand(self, kind: str, credentials: Mapping[str, str]) -> None:
        """Whoever changes the gateway or the address gives again what the gateway needs."""
        if kind not in registry.kinds():
            return
        driver = registry.driver_for(kind)
        needs = [field.name for field in driver.credential_fields if field.required]
        if driver.transport == "http" and not all(credentials.get(name) for name in needs):
            raise serializers.ValidationError({"credentials": services.ENTER_AGAIN}, "enter_again")


class ReconnectingSerializer(serializers.Serializer[Any]):
    """What was asked for; the devices' rows show what comes of it."""

    devices = serializers.IntegerField(help_text="How many devices are being connected anew.")


class DeviceFilter(django_filters.FilterSet):
    """Which devices to list."""

    state = django_filters.ChoiceFilter(choices=DeviceState.choices)
    gateway = django_filters.ChoiceFilter(choices=gateway_choices)
    pool = django_filters.NumberFilter(field_name="pool_id")
    name = django_filters.CharFilter(lookup_expr="icontains", label="Part of the name, in any case.")

    class Meta:
        model = Device
        fields: list[str] = []


class PoolViewSet(
    OwnedViewSet, mixins.CreateModelMixin, mixins.UpdateModelMixin, mixins.DestroyModelMixin,
    mixins.RetrieveModelMixin, mixins.ListModelMixin,
):  # fmt: skip
    """Devices that may stand in for one another."""

    queryset = Pool.objects.all()
    serializer_class = PoolSerializer


@extend_schema_view(
    pause=extend_schema(request=None, responses=DeviceSerializer),
    resume=extend_schema(request=None, responses=DeviceSerializer),
    reconnect=extend_schema(request=None, responses={202: ReconnectingSerializer}),
)
class DeviceViewSet(
    PairingActions, OwnedViewSet, mixins.CreateModelMixin, mixins.UpdateModelMixin, mixins.DestroyModelMixin,
    mixins.RetrieveModelMixin, mixins.ListModelMixin,
):  # fmt: skip
    """Senders. Reading one never touches its credentials."""

    queryset = Device.objects.defer("credentials")
    serializer_class = DeviceSerializer
    filterset_class = DeviceFilter

    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Send nothing more through this device until it is resumed. Messages wait."""
        return self._moved(services.pause, DeviceState.PAUSED)

    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Go on sending, after a pause or once what needed attention is mended."""
        return self._moved(services.resume, DeviceState.ACTIVE)

    @action(detail=False, methods=["post"], pagination_class=None, filterset_class=None)
    def reconnect(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """Connect all devices anew that could not be reached or are still being tried, as after an outage."""
        return Response(
            {"devices": services.reconnect_all(devices=self.get_queryset().changeable_by(self.user))}, status=202
        )

    def _moved(self, move: Any, target: DeviceState) -> Response:
        """Move the device; being there already is fine, anything else is a conflict."""
        device: Device = self.get_object()
        rows: QuerySet[Device] = Device.objects.filter(pk=device.pk)
        moved = move(devices=rows)
        device.refresh_from_db(fields=["state", "state_reason"])
        if not moved and device.state != target:
            raise Conflict(f"{device.name} is “{device.get_state_display()}”, so this does not apply.", "wrong_state")
        return Response(self.get_serializer(device).data)
