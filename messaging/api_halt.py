"""STOP ALL over REST."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices.access import Role, role_of
from messaging import halting
from messaging.models import Halt


class HaltPermission(BasePermission):
    """Whoever has a role may ask; admins and operators may stop everything; admins may go on."""

    message = "Only admins and operators may stop everything, and only admins may go on."

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002 - DRF's signature
        role = role_of(request.user)
        if request.method in SAFE_METHODS:
            return role is not None
        return role is Role.ADMIN or (role is Role.OPS and request.method == "POST")


class HaltRequestSerializer(serializers.Serializer[Any]):
    """Why everything stops."""

    reason = serializers.CharField(required=False, allow_blank=True, max_length=300, default="")


class HaltStatusSerializer(serializers.Serializer[Any]):
    """Whether everything is halted, and what would move if it were not."""

    halted = serializers.BooleanField()
    since = serializers.DateTimeField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)
    messages = serializers.IntegerField(help_text="Messages of running batches that wait.")
    batches = serializers.IntegerField()
    devices = serializers.IntegerField()


class HaltView(APIView):
    """STOP ALL: while it is in force nothing is released and nothing is claimed; it survives restarts."""

    permission_classes = [HaltPermission]

    @extend_schema(operation_id="halt_status", responses=HaltStatusSerializer)
    def get(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """Whether everything is halted, with the counts to look at before going on."""
        return Response(_status())

    @extend_schema(operation_id="halt", request=HaltRequestSerializer, responses=HaltStatusSerializer)
    def post(self, request: Request) -> Response:
        """Stop everything. Calling it again changes nothing."""
        given = HaltRequestSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        halting.halt(now=timezone.now(), by=cast("User", request.user), **given.validated_data)
        return Response(_status())

    @extend_schema(operation_id="halt_end", request=None, responses={200: HaltStatusSerializer})
    def delete(self, request: Request) -> Response:
        """Go on: what is due goes out by its usual rhythm."""
        halting.resume(now=timezone.now(), by=cast("User", request.user))
        return Response(_status())


def _status() -> dict[str, Any]:
    halt: Halt | None = halting.current()
    waiting = halting.backlog()
    return {
        "halted": halt is not None,
        "since": halt.started_at if halt else None,
        "reason": halt.reason if halt else "",
        "messages": waiting.messages,
        "batches": waiting.batches,
        "devices": waiting.devices,
    }
