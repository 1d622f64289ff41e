"""Many devices at once over REST: paused, resumed or connected anew, chosen by ids or filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from django.contrib.auth.models import User
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices import services
from devices.api import DeviceFilter
from devices.api_choosing import ChoosingSerializer
from devices.models import Device

MOVES: Final[dict[str, Callable[[QuerySet[Device]], int]]] = {
    "pause": lambda devices: services.pause(devices=devices),
    "resume": lambda devices: services.resume(devices=devices),
    "refresh": lambda devices: services.ask_refresh(devices=devices),
}


class DevicesBulkSerializer(ChoosingSerializer):
    """What is to be done, and with which devices: ``ids``, or ``filter`` with what the list of devices takes."""

    filterset = DeviceFilter

    do = serializers.ChoiceField(choices=sorted(MOVES), help_text="Those in a state it does not apply to are left out.")


class DevicesBulkAnswerSerializer(serializers.Serializer[Any]):
    """What came of it."""

    devices = serializers.IntegerField(help_text="How many were chosen.")
    changed = serializers.IntegerField(help_text="With how many of them it was done.")
    dry_run = serializers.BooleanField()


class DevicesBulkView(APIView):
    """Act on many devices."""

    @extend_schema(operation_id="devices_bulk", request=DevicesBulkSerializer, responses=DevicesBulkAnswerSerializer)
    def post(self, request: Request) -> Response:
        """Pause, resume or refresh the devices that are chosen, of those that you may change."""
        form = DevicesBulkSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        devices = form.chosen_of(Device.objects.changeable_by(cast("User", request.user)))
        number = devices.count()
        changed = 0 if given["dry_run"] else MOVES[given["do"]](devices)
        return Response({"devices": number, "changed": changed, "dry_run": given["dry_run"]})
