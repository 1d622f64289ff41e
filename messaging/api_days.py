"""What happened on each day, over REST: read from counters, however many messages there are."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices.access import Role, role_of
from devices.models import Device
from messaging import days

MOST_DAYS = 366
BY_DEFAULT = 14


class DaySerializer(serializers.Serializer[Any]):
    """One day by the installation's clock. Each number is of what happened on it, whenever the message was made."""

    day = serializers.DateField()
    sent = serializers.IntegerField()
    delivered = serializers.IntegerField()
    read = serializers.IntegerField()
    failed = serializers.IntegerField()
    replied = serializers.IntegerField()


class DaysSerializer(serializers.Serializer[Any]):
    """The last days, oldest first, those on which nothing happened as well."""

    days = DaySerializer(many=True)


class _Asked(serializers.Serializer[Any]):
    days = serializers.IntegerField(min_value=1, max_value=MOST_DAYS, default=BY_DEFAULT)
    device = serializers.IntegerField(min_value=1, max_value=2**63 - 1, required=False)


class DaysView(APIView):
    """Analytics."""

    @extend_schema(
        operation_id="stats_days",
        parameters=[
            OpenApiParameter("days", {"type": "integer", "minimum": 1, "maximum": MOST_DAYS, "default": BY_DEFAULT}),
            OpenApiParameter("device", {"type": "integer", "minimum": 1}, description="One device; else all you see."),
        ],
        responses=DaysSerializer,
    )
    def get(self, request: Request) -> Response:
        """Messages sent, delivered, read and failed, and replies, day by day, of the devices that you may see (of all,
        for operators)."""
        asked = _Asked(data=request.query_params)
        asked.is_valid(raise_exception=True)
        device = asked.validated_data.get("device")
        of_all = role_of(request.user) is Role.OPS  # numbers are the operators' business, as in the other figures
        devices = Device.objects.all() if of_all else Device.objects.visible_to(request.user)
        if device is not None and not devices.filter(pk=device).exists():
            raise serializers.ValidationError({"device": "It does not exist, or you may not see it."}, "does_not_exist")
        found = days.last_days(
            user=request.user,
            days=asked.validated_data["days"],
            now=timezone.now(),
            device_id=device,
            of_all=of_all,
        )
        return Response(DaysSerializer({"days": found}).data)
