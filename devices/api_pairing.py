"""Linking devices to phones, over REST."""

from __future__ import annotations

import base64
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from devices import pairing, services
from devices.access import may_change_row
from devices.api_base import Conflict
from devices.models import Device, PairingAttempt, PairingState


@extend_schema_field(serializers.ChoiceField(choices=PairingState.choices), component_name="PairingState")
class PairingStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


class PairingSerializer(serializers.ModelSerializer[PairingAttempt]):
    """One attempt to link a device to a phone."""

    state = PairingStateField(choices=PairingState.choices, read_only=True)
    qr_png = serializers.SerializerMethodField(
        help_text="The picture, as base64, where the gateway gives no text to draw one from."
    )

    class Meta:
        model = PairingAttempt
        fields = [
            "id", "state", "phone", "qr", "qr_png", "code", "expires_at", "problem", "text", "started_at", "ended_at",
        ]  # fmt: skip
        read_only_fields = fields
        extra_kwargs = {
            "phone": {"help_text": "The number to link by code; empty: by picture."},
            "qr": {"help_text": "The text behind the QR code to scan; another one comes before `expires_at`."},
            "code": {"help_text": "What to type on the phone."},
            "problem": {"help_text": "A stable code for why it failed."},
            "ended_at": {"help_text": "Null while it is under way: ask again every two seconds."},
        }

    def get_qr_png(self, attempt: PairingAttempt) -> str:
        """Base64."""
        return base64.b64encode(bytes(attempt.qr_png)).decode()


class PairingOrderSerializer(serializers.Serializer[Any]):
    """How to link it."""

    phone = serializers.CharField(
        required=False,
        allow_blank=True,
        default="",
        max_length=40,
        help_text="The phone's number with country code, to get a code to type there. Left out: a QR code.",
    )


class PairingActions:
    """What the devices' endpoints get from here. Whoever may scan a code could link a phone of their own, so all of it
    is for those who may change the device."""

    @extend_schema(responses=PairingSerializer, summary="How far the linking is")
    @action(detail=True, methods=["get"], url_path="pairing", url_name="pairing")
    def pairing(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """The device's latest attempt to be linked to a phone. Looking at it moves it on: ask every two seconds."""
        attempt = pairing.latest(device=self._changeable(request))
        if attempt is None:
            raise NotFound("This device was never linked from here: POST begins.")
        return Response(PairingSerializer(pairing.follow(attempt=attempt, now=timezone.now())).data)

    @extend_schema(request=PairingOrderSerializer, responses={201: PairingSerializer}, summary="Link to a phone")
    @pairing.mapping.post
    def start_pairing(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Begin to link the device to a phone; an attempt that is under way is stopped."""
        device = self._changeable(request)
        order = PairingOrderSerializer(data=request.data)
        order.is_valid(raise_exception=True)
        attempt = pairing.start(device=device, phone=order.validated_data["phone"], now=timezone.now())
        return Response(PairingSerializer(attempt).data, status=201)

    @extend_schema(responses={204: None}, summary="Stop linking")
    @pairing.mapping.delete
    def stop_pairing(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """End the attempt that is under way, if there is one."""
        pairing.stop(device=self._changeable(request), now=timezone.now())
        return Response(status=204)

    @extend_schema(request=None, responses={202: None}, summary="Log out")
    @action(detail=True, methods=["post"], url_path="log-out", url_name="log-out")
    def log_out(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Unlink the device from its phone. Sessions are unlinked some seconds later: see `state_reason`."""
        pairing.log_out(device=self._changeable(request), now=timezone.now())
        return Response(status=202)

    @extend_schema(request=None, responses={204: None}, summary="Clear the session")
    @action(detail=True, methods=["post"], url_path="clear-session", url_name="clear-session")
    def clear_session(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Forget the stored session without asking the phone, which keeps a dead entry among its linked devices."""
        pairing.clear_session(device=self._changeable(request), now=timezone.now())
        return Response(status=204)

    @extend_schema(request=None, responses={202: None}, summary="Refresh")
    @action(detail=True, methods=["post"], url_path="refresh", url_name="refresh")
    def refresh(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Have the device connected anew, within seconds. What came of it is in its state."""
        device = self._changeable(request)
        if not services.ask_refresh(devices=Device.objects.filter(pk=device.pk)):
            raise Conflict(f"{device.name} is “{device.get_state_display()}”, so this does not apply.", "wrong_state")
        return Response(status=202)

    def _changeable(self, request: Request) -> Device:
        device: Device = self.get_object()  # type: ignore[attr-defined]
        if not may_change_row(request.user, device):
            raise PermissionDenied
        return device
