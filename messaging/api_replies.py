"""What people wrote back, over REST."""

from __future__ import annotations

import django_filters  # type: ignore[import-untyped]
from rest_framework import mixins, serializers

from devices.api_base import OwnedViewSet
from messaging.models import InboundMessage


class ReplySerializer(serializers.ModelSerializer[InboundMessage]):
    """Something that somebody wrote to a device."""

    class Meta:
        model = InboundMessage
        fields = ["id", "device", "lead", "phone", "text", "external_id", "written_at", "received_at"]
        read_only_fields = fields
        extra_kwargs = {
            "lead": {"help_text": "Null where the device's owner has no lead with this number."},
            "external_id": {"help_text": "The gateway's own."},
        }


class ReplyFilter(django_filters.FilterSet):
    """Which replies to list."""

    device = django_filters.NumberFilter(field_name="device_id")
    lead = django_filters.NumberFilter(field_name="lead_id")

    class Meta:
        model = InboundMessage
        fields: list[str] = []


class ReplyViewSet(OwnedViewSet, mixins.RetrieveModelMixin, mixins.ListModelMixin):
    """What people wrote back, newest first."""

    queryset = InboundMessage.objects.all()
    serializer_class = ReplySerializer
    filterset_class = ReplyFilter
