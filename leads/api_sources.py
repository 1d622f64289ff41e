"""Sources of leads over REST: make one, change its secret, disable it. What they post is :mod:`leads.sources`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from devices.api_base import OwnedSerializer, OwnedViewSet
from leads import sources
from leads.api_fields import RegionField
from leads.models import LeadSource


class LeadSourceSerializer(OwnedSerializer):
    """Somebody who posts leads to ``address``, signed with a secret that is shown once."""

    region = RegionField(required=False)
    address = serializers.SerializerMethodField(help_text="Where it posts to.")

    class Meta:
        model = LeadSource
        fields = [
            "id", "owner", "name", "address", "region", "device", "pool", "consent_source", "rate_per_minute",
            "enabled", "previous_until", "created_at",
        ]  # fmt: skip
        read_only_fields = ["owner", "previous_until", "created_at"]

    def get_address(self, source: LeadSource) -> str:
        """The path, on this installation's address."""
        return reverse("lead-hook", [source.key], request=self.context.get("request"))

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """A new source counts numbers as the installation does, unless told otherwise."""
        if self.instance is None:
            attrs.setdefault("region", settings.FLOTILLA_DEFAULT_REGION)
        return super().validate(attrs)


class NewLeadSourceSerializer(LeadSourceSerializer):
    """A source that was made just now, with its secret: it is not readable again."""

    secret = serializers.CharField(read_only=True)

    class Meta(LeadSourceSerializer.Meta):
        fields = [*LeadSourceSerializer.Meta.fields, "secret"]


class RotateSerializer(serializers.Serializer[Any]):
    """How long the secret before the new one still signs."""

    keep_hours = serializers.FloatField(min_value=0, max_value=24 * 30, default=sources.KEEP_SECRET_HOURS)


class SecretSerializer(serializers.Serializer[Any]):
    """A new secret: it is not readable again."""

    secret = serializers.CharField()
    previous_until = serializers.DateTimeField(allow_null=True)


class LeadSourceViewSet(
    OwnedViewSet, mixins.CreateModelMixin, mixins.UpdateModelMixin, mixins.DestroyModelMixin,
    mixins.RetrieveModelMixin, mixins.ListModelMixin,
):  # fmt: skip
    """Where leads come in by webhook."""

    queryset = LeadSource.objects.defer("secrets")
    serializer_class = LeadSourceSerializer

    @extend_schema(responses={201: NewLeadSourceSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """Make a source. The answer holds its secret, this once."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        source = LeadSource(owner=self.user, **serializer.validated_data)
        secret = sources.equip(source)
        source.save()
        return Response(
            {**self.get_serializer(source).data, "secret": secret},
            status=status.HTTP_201_CREATED,
            headers={
                "Location": reverse("lead-source-detail", [source.pk], request=request),
                "Cache-Control": "no-store",
            },
        )

    @extend_schema(request=RotateSerializer, responses=SecretSerializer)
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """A new secret; the one before still signs for `keep_hours` (0: no longer)."""
        source: LeadSource = self.get_object()
        given = RotateSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        secret = sources.rotate(source=source, now=timezone.now(), keep_hours=given.validated_data["keep_hours"])
        return Response(
            {"secret": secret, "previous_until": source.previous_until}, headers={"Cache-Control": "no-store"}
        )
