"""Sources of leads over REST: make one, change its secret, disable it. What they post is :mod:`leads.sources`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.reverse import reverse

from devices.api_base import OwnedSerializer
from devices.api_rotating import RotatingSecretViewSet
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


@extend_schema_view(create=extend_schema(responses={201: NewLeadSourceSerializer}))
class LeadSourceViewSet(RotatingSecretViewSet):
    """Where leads come in by webhook."""

    queryset = LeadSource.objects.defer("secrets")
    serializer_class = LeadSourceSerializer
