"""How the installation is, over REST: one word with reasons, and figures."""

from __future__ import annotations

from typing import Any

from django.db.models import Count
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from config.dashboard import counts_today
from devices.access import AnyUser, Role, role_of
from devices.models import Device, DeviceState
from messaging import health
from messaging.health import Health, Level
from messaging.models import Message, Stream

LEVELS = [level.value for level in Level]


@extend_schema_field(serializers.ChoiceField(choices=LEVELS), component_name="HealthLevel")
class LevelField(serializers.ChoiceField):
    """The level as one named set in the description of the API."""


class HealthReasonSerializer(serializers.Serializer[Any]):
    """One thing that is not as it should be."""

    code = serializers.CharField(help_text="Stable; the runbook has a part for each.")
    level = LevelField(choices=LEVELS)
    text = serializers.CharField()


class QueueSerializer(serializers.Serializer[Any]):
    """What is on its way, and what ended badly, in the whole installation."""

    queued = serializers.IntegerField()
    sending = serializers.IntegerField()
    unknown = serializers.IntegerField(help_text="Counted up to 10,001.")
    failed_last_hour = serializers.IntegerField(help_text="Counted up to 10,001.")
    leases_expired = serializers.IntegerField()
    oldest_due_seconds = serializers.FloatField(allow_null=True)
    oldest_queued_seconds = serializers.FloatField(allow_null=True)


class HealthSerializer(serializers.Serializer[Any]):
    """The worst reason decides ``overall``."""

    overall = LevelField(choices=LEVELS)
    reasons = HealthReasonSerializer(many=True)
    at = serializers.DateTimeField()
    halted = serializers.BooleanField()
    database = serializers.BooleanField()
    broker = serializers.BooleanField()
    workers = serializers.IntegerField()
    sessions = serializers.DictField(
        child=serializers.IntegerField(), help_text="Devices by state: all for admin and ops, else those you may see."
    )
    queue = QueueSerializer(allow_null=True, help_text="For admin and ops; null for others.")


class StatsSerializer(serializers.Serializer[Any]):
    """Messages of batches that are live, or began or ended today; whose: as with ``sessions`` of the health."""

    total = serializers.IntegerField()
    pending = serializers.IntegerField()
    queued = serializers.IntegerField()
    sent = serializers.IntegerField()
    delivered = serializers.IntegerField()
    read = serializers.IntegerField()
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()
    expired = serializers.IntegerField()
    unknown = serializers.IntegerField()
    presumed = serializers.IntegerField()
    percent = serializers.FloatField(help_text="Share of them that have nothing ahead, 0 to 100.")
    sent_per_minute = serializers.IntegerField(
        allow_null=True, help_text="In the whole installation; null unless you are admin or ops."
    )
    devices = serializers.DictField(child=serializers.IntegerField(), help_text="By state.")


def _sees_all(user: AnyUser) -> bool:
    """Operators see no lead and no message, but how many there are is their business."""
    return role_of(user) in {Role.ADMIN, Role.OPS}


def _devices(user: AnyUser) -> dict[str, int]:
    found = Device.objects.all() if _sees_all(user) else Device.objects.visible_to(user)
    numbers = dict(found.order_by().values_list("state").annotate(Count("id")))
    return {state: numbers.get(state, 0) for state in DeviceState.values}


class HealthView(APIView):
    """One word and its reasons."""

    @extend_schema(operation_id="health", responses=HealthSerializer)
    def get(self, request: Request) -> Response:
        """How the installation is: healthy, degraded, warning or critical, and why."""
        found: Health = health.look(now=timezone.now())
        numbers = found.numbers
        body = {
            "overall": found.overall.value,
            "reasons": [{"code": r.code, "level": r.level.value, "text": r.text} for r in found.reasons],
            "at": found.at,
            "halted": numbers.halted,
            "database": numbers.database,
            "broker": numbers.broker.answers,
            "workers": numbers.workers,
            "sessions": _devices(request.user),
            "queue": numbers if _sees_all(request.user) else None,
        }
        return Response(HealthSerializer(body).data)


class StatsView(APIView):
    """Figures of today."""

    @extend_schema(operation_id="stats", responses=StatsSerializer)
    def get(self, request: Request) -> Response:
        """How many messages are where."""
        user, now = request.user, timezone.now()
        if _sees_all(user):
            counts = counts_today(streams=Stream.objects.all(), messages=Message.objects.all(), now=now)
            rate = health.gather(now=now).sent_per_minute
        else:
            counts = counts_today(
                streams=Stream.objects.visible_to(user), messages=Message.objects.visible_to(user), now=now
            )
            rate = None
        figures = {name: getattr(counts, name) for name in (*counts.__slots__, "percent")}
        return Response(StatsSerializer({**figures, "sent_per_minute": rate, "devices": _devices(user)}).data)
