"""Rows with a secret over REST: the answers that make one and change one are the only places that show it."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from devices.api_base import OwnedViewSet
from devices.rotating import KEEP_HOURS, RotatingSecret


class RotateSecretSerializer(serializers.Serializer[Any]):
    """How long the secret before the new one still signs."""

    keep_hours = serializers.FloatField(min_value=0, max_value=24 * 30, default=KEEP_HOURS)


class NewSecretSerializer(serializers.Serializer[Any]):
    """A new secret: it is not readable again."""

    secret = serializers.CharField()
    previous_until = serializers.DateTimeField(allow_null=True)


class RotatingSecretViewSet(
    OwnedViewSet, mixins.UpdateModelMixin, mixins.DestroyModelMixin, mixins.RetrieveModelMixin, mixins.ListModelMixin
):
    """Rows of a :class:`~devices.rotating.RotatingSecret`. The subclass describes what ``create`` answers."""

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """Make one. The answer holds its secret, this once."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        row: RotatingSecret = self.get_queryset().model(owner=self.user, **serializer.validated_data)
        secret = row.equip()
        row.save()
        return Response(
            {**self.get_serializer(row).data, "secret": secret},
            status=status.HTTP_201_CREATED,
            headers={"Location": self.reverse_action("detail", [row.pk]), "Cache-Control": "no-store"},
        )

    @extend_schema(request=RotateSecretSerializer, responses=NewSecretSerializer)
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """A new secret; the one before still signs for `keep_hours` (0: no longer)."""
        row: RotatingSecret = self.get_object()
        given = RotateSecretSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        secret = row.rotate(now=timezone.now(), keep_hours=given.validated_data["keep_hours"])
        return Response({"secret": secret, "previous_until": row.previous_until}, headers={"Cache-Control": "no-store"})
