"""The audit trail over REST: to read."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin

from config.audit_models import AuditEntry
from devices.api_base import OwnedViewSet


@extend_schema_field({"type": ["object", "null"], "additionalProperties": True})
class _Row(serializers.JSONField):
    """Fields of a row by name, or null."""


class AuditEntrySerializer(serializers.ModelSerializer[Any]):
    """Who did what, when, to which row, from where."""

    before = _Row(read_only=True, help_text="Fields as they were; of a change, only those that changed.")
    after = _Row(read_only=True, help_text="Fields as they became. Secrets are hidden.")

    class Meta:
        model = AuditEntry
        fields = ["id", "at", "user", "address", "action", "event", "table", "object_id", "before", "after"]
        read_only_fields = fields


class AuditViewSet(OwnedViewSet, ListModelMixin, RetrieveModelMixin):
    """What was changed and done. Admins see everybody's entries, staff their own. Nothing here can be changed."""

    queryset = AuditEntry.objects.order_by("-id")
    serializer_class = AuditEntrySerializer
    filterset_fields = ["user", "event", "table", "object_id"]
