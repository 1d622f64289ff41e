"""A device's own webhook address over REST: look at it, change it."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices import hook_keys
from devices.access import may_change_row
from devices.hook_models import HookKey
from devices.models import Device


class WebhookSerializer(serializers.Serializer[Any]):
    """Where this device's gateway posts receipts and replies. Whoever knows the address may post there."""

    address = serializers.CharField(
        allow_null=True, help_text="Null before one was made, or where it cannot be read with the keys in use."
    )
    created_at = serializers.DateTimeField(allow_null=True)
    previous_until = serializers.DateTimeField(
        allow_null=True, help_text="Until when an address before this one still works."
    )


class RotateWebhookSerializer(serializers.Serializer[Any]):
    """How long the address before the new one still works."""

    keep_hours = serializers.FloatField(
        min_value=0, max_value=24 * 30, required=False, help_text="0: no longer. Left out: the installation's setting."
    )


class WebhookView(APIView):
    """The address of one device, for those who may change the device."""

    @extend_schema(operation_id="device_webhook", responses=WebhookSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """The address, if one was made."""
        device = self._device(request, pk)
        return self._answer(request, device, hook_keys.current(device=device))

    @extend_schema(
        operation_id="device_webhook_rotate", request=RotateWebhookSerializer, responses={200: WebhookSerializer}
    )
    def post(self, request: Request, pk: int) -> Response:
        """Make the address, or change it; the one before still works for `keep_hours`."""
        device = self._device(request, pk)
        given = RotateWebhookSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        keep_hours = given.validated_data.get("keep_hours")
        made = hook_keys.rotate(device=device, now=timezone.now(), keep_hours=keep_hours)
        return self._answer(request, device, made)

    def _device(self, request: Request, pk: int) -> Device:
        """Somebody with whom a device is shared sees it, but not where its news comes in."""
        device: Device = get_object_or_404(Device.objects.visible_to(request.user).defer("credentials"), pk=pk)
        if not may_change_row(request.user, device):
            raise PermissionDenied("You may look at this device, but not at its webhook address.")
        return device

    def _answer(self, request: Request, device: Device, key: HookKey | None) -> Response:
        path = hook_keys.path_of(gateway=device.gateway, key=key) if key else ""
        told = {
            "address": request.build_absolute_uri(path) if path else None,
            "created_at": key.created_at if key else None,
            "previous_until": hook_keys.older_until(device=device, now=timezone.now()),
        }
        return Response(WebhookSerializer(told).data, headers={"Cache-Control": "no-store"})
