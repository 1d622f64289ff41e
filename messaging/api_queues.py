"""Emptying one device's queue over REST; what waits in each is in :mod:`messaging.api_operations`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices.models import Device
from messaging import queues

MOST_HOURS = 10_000


class ExpireQueueSerializer(serializers.Serializer[Any]):
    """Which messages are too old."""

    older_than_hours = serializers.IntegerField(
        min_value=1, max_value=MOST_HOURS, help_text="Messages made longer ago than this expire; younger ones stay."
    )


class EmptiedSerializer(serializers.Serializer[Any]):
    """What it came to."""

    messages = serializers.IntegerField(help_text="How many have ended.")
    waiting = serializers.IntegerField(help_text="How many still wait. Of very many some may be left: ask again.")


class ClearQueueView(APIView):
    """Cancel what a device has not sent."""

    @extend_schema(operation_id="queue_clear", request=None, responses=EmptiedSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Cancel everything that the device has not sent, for good. What is at its gateway now ends as it ends; what an
        earlier attempt may have brought to the phone becomes unknown. To only hold it back, pause the device."""
        device = _mine(request, pk)
        return _told(device, queues.clear(device=device, by=cast("User", request.user)))


class ExpireQueueView(APIView):
    """Expire what has waited for too long."""

    @extend_schema(operation_id="queue_expire", request=ExpireQueueSerializer, responses=EmptiedSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Expire what the device has not sent and was made longer ago than you say, for good."""
        device = _mine(request, pk)
        given = ExpireQueueSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        age = timedelta(hours=given.validated_data["older_than_hours"])
        by = cast("User", request.user)
        return _told(device, queues.expire_old(device=device, older_than=age, now=timezone.now(), by=by))


def _mine(request: Request, pk: int) -> Device:
    """The device, if the caller may change it: one that is shared with them is theirs to look at. Raises Http404."""
    return cast("Device", get_object_or_404(Device.objects.changeable_by(request.user).defer("credentials"), pk=pk))


def _told(device: Device, number: int) -> Response:
    waiting = queues.depths(devices=[device])[device.pk].waiting
    return Response(EmptiedSerializer({"messages": number, "waiting": waiting}).data)
