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
from devices.models import Device

IDS_MOST = 10_000
MOVES: Final[dict[str, Callable[[QuerySet[Device]], int]]] = {
    "pause": lambda devices: services.pause(devices=devices),
    "resume": lambda devices: services.resume(devices=devices),
    "refresh": lambda devices: services.ask_refresh(devices=devices),
}


class DevicesBulkSerializer(serializers.Serializer[Any]):
    """What is to be done, and with which devices: ``ids``, or ``filter`` with what the list of devices takes."""

    do = serializers.ChoiceField(choices=sorted(MOVES), help_text="Those in a state it does not apply to are left out.")
    ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        required=False,
        max_length=IDS_MOST,
        allow_empty=False,
    )
    filter = serializers.DictField(
        required=False, help_text='As the list of devices: {"pool": 3, "state": "active"}. {} means all.'
    )
    dry_run = serializers.BooleanField(default=False, help_text="Only count.")

    def validate_filter(self, value: dict[str, Any]) -> dict[str, Any]:
        """Names that do not exist would choose every device."""
        known = set(DeviceFilter.base_filters)
        if unknown := sorted(set(value) - known):
            raise serializers.ValidationError(
                f"No filter is called “{unknown[0][:60]}”: use {', '.join(sorted(known))}.", "unknown_filter"
            )
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of the two."""
        if ("ids" in attrs) == ("filter" in attrs):
            raise serializers.ValidationError({"ids": "Give either ids or a filter."}, "required")
        return attrs


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
        devices = _chosen(cast("User", request.user), given)
        number = devices.count()
        changed = 0 if given["dry_run"] else MOVES[given["do"]](devices)
        return Response({"devices": number, "changed": changed, "dry_run": given["dry_run"]})


def _chosen(user: User, given: dict[str, Any]) -> QuerySet[Device]:
    """Raises ValidationError."""
    mine: QuerySet[Device] = Device.objects.changeable_by(user)
    if "ids" in given:
        wanted = set(given["ids"])
        devices = mine.filter(pk__in=wanted)
        if missing := sorted(wanted - set(devices.values_list("pk", flat=True))):
            raise serializers.ValidationError(
                {"ids": f"{missing[0]} does not exist, or you may not change it."}, "does_not_exist"
            )
        return devices
    form = DeviceFilter(data=given["filter"], queryset=mine)
    if not form.is_valid():
        raise serializers.ValidationError({"filter": form.errors})
    found: QuerySet[Device] = mine.filter(pk__in=form.qs.order_by().values("pk"))
    return found
