"""What an operator looks at, over REST: workers, queues, what failed. Read only."""

from __future__ import annotations

from typing import Any

from django.db.models import Max, Sum
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import mixins, serializers
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices.access import Role, role_of
from devices.api_base import OwnedViewSet
from devices.models import Device, DeviceState
from messaging import days, queues, workers
from messaging.api import MessageSerializer
from messaging.models import DayCount, Message, Stream, WorkerProcess
from messaging.states import State

MOST_QUEUES = 200


class OperatorPermission(BasePermission):
    """Workers are the whole installation's."""

    message = "Only admins and operators see the workers."

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002 - DRF's signature
        return role_of(request.user) in {Role.ADMIN, Role.OPS}


class WorkerSerializer(serializers.ModelSerializer[WorkerProcess]):
    """One worker process. `silent`: it ended without a word."""

    queues = serializers.ListField(child=serializers.CharField())
    silent = serializers.BooleanField()

    class Meta:
        model = WorkerProcess
        fields = [
            "id", "name", "host", "pid", "queues", "threads", "started_at", "seen_at", "last_active_at",
            "active_tasks", "tasks", "sent", "failed", "sent_per_minute", "memory_mb", "silent",
        ]  # fmt: skip
        read_only_fields = fields


class WorkersSerializer(serializers.Serializer[Any]):
    """Every process heard of within the last hour that has not ended by itself."""

    workers = WorkerSerializer(many=True)


class WorkersView(APIView):
    """Who is at work."""

    permission_classes = [OperatorPermission]

    @extend_schema(operation_id="workers", responses=WorkersSerializer)
    def get(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """Worker processes: what each takes from, how busy it is, what it has done."""
        crew = workers.crew(now=timezone.now())
        for silent, rows in ((False, crew.live), (True, crew.silent)):
            for row in rows:
                row.silent = silent
        return Response(WorkersSerializer({"workers": [*crew.live, *crew.silent]}).data)


class QueueOfDeviceSerializer(serializers.Serializer[Any]):
    """The unsent messages of one device. What lies in the broker is only a wake-up per lane."""

    device = serializers.IntegerField()
    name = serializers.CharField()
    queue = serializers.CharField()
    state = serializers.ChoiceField(choices=DeviceState.values)
    waiting = serializers.IntegerField()
    sent_today = serializers.IntegerField(help_text="By the installation's clock.")
    failed_today = serializers.IntegerField()
    tasks = serializers.IntegerField(allow_null=True, help_text="In the broker; null while it is away.")
    bytes = serializers.IntegerField(allow_null=True, help_text="Their size in the broker.")
    wake_at = serializers.DateTimeField(allow_null=True, help_text="When the device is looked at next.")
    held_until = serializers.DateTimeField(allow_null=True)
    served_at = serializers.DateTimeField(help_text="When something was last released, or began to wait.")


class QueuesSerializer(serializers.Serializer[Any]):
    """The longest queues first."""

    waiting = serializers.IntegerField(help_text="In all queues that you may see.")
    queues = QueueOfDeviceSerializer(many=True)


class _Asked(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=1, max_value=MOST_QUEUES, default=50)


class QueuesView(APIView):
    """What waits for which device."""

    @extend_schema(
        operation_id="queues",
        parameters=[OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": MOST_QUEUES})],
        responses=QueuesSerializer,
    )
    def get(self, request: Request) -> Response:
        """The longest queues. Operators see all devices by name, and no messages."""
        asked = _Asked(data=request.query_params)
        asked.is_valid(raise_exception=True)
        everything = role_of(request.user) in {Role.ADMIN, Role.OPS}
        streams = Stream.objects.all() if everything else Stream.objects.visible_to(request.user)
        waiting = streams.filter(is_open=True).order_by()  # index stream_open_by_device
        names = ("name", "state", "wake_at", "held_until")
        rows = list(
            waiting.values("device_id", *(f"device__{name}" for name in names))
            .annotate(number=Sum("waiting"), served_at=Max("served_at"))
            .order_by("-number", "device_id")[: asked.validated_data["limit"]]
        )
        ids = [row["device_id"] for row in rows]
        depths = queues.depths(devices=[Device(pk=pk) for pk in ids])
        done = DayCount.objects.filter(day=days.today(timezone.now()), device_id__in=ids)
        today = {pk: numbers for pk, *numbers in done.values_list("device_id", "sent", "failed")}
        body = {
            "waiting": waiting.aggregate(number=Sum("waiting"))["number"] or 0,
            "queues": [
                {
                    **{name: row[f"device__{name}"] for name in names},
                    "device": row["device_id"],
                    "queue": f"device.{row['device_id']}",
                    "waiting": row["number"],
                    **dict(zip(("sent_today", "failed_today"), today.get(row["device_id"], (0, 0)), strict=True)),
                    "tasks": depths[row["device_id"]].tasks,
                    "bytes": depths[row["device_id"]].bytes,
                    "served_at": row["served_at"],
                }
                for row in rows
            ],
        }
        return Response(QueuesSerializer(body).data)


@extend_schema_view(list=extend_schema(operation_id="failed", description="What failed for good, newest first."))
class FailedViewSet(OwnedViewSet, mixins.ListModelMixin):
    """Failed messages that are not archived: index message_troubled."""

    queryset = Message.objects.filter(state=State.FAILED, archived_at__isnull=True)
    serializer_class = MessageSerializer
