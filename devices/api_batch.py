"""Many devices in one request."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices.api import DeviceSerializer

MOST = 200


class DeviceBatchSerializer(serializers.Serializer[Any]):
    """Devices to create, each as when it is posted alone."""

    devices = DeviceSerializer(many=True, allow_empty=False, max_length=MOST)  # type: ignore[call-arg]  # the list takes it

    def validate_devices(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Names are unique within the request as well."""
        seen: set[str] = set()
        errors: list[dict[str, list[str]]] = []
        for row in rows:
            errors.append({"name": ["Another device in this request has this name."]} if row["name"] in seen else {})
            seen.add(row["name"])
        if any(errors):
            raise serializers.ValidationError(errors)
        return rows


class DeviceBatchView(APIView):
    """Up to 200 devices at once."""

    @extend_schema(operation_id="devices_batch", request=DeviceBatchSerializer, responses={201: DeviceBatchSerializer})
    def post(self, request: Request) -> Response:
        """Create devices: all of them, or none if anything is wrong with one."""
        context = {"request": request, "view": self}
        given = DeviceBatchSerializer(data=request.data, context=context)
        given.is_valid(raise_exception=True)
        one = DeviceSerializer(context=context)
        with transaction.atomic():
            made = [one.create({**row, "owner": request.user}) for row in given.validated_data["devices"]]
        return Response(DeviceBatchSerializer({"devices": made}, context=context).data, status=status.HTTP_201_CREATED)
