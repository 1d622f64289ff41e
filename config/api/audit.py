"""The audit trail over REST: to read."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin

from config.audit_models import AuditEntry
from devices.api_base import OwnedViewSet


class AuditEntrySerializer(serializers.ModelSerializer[Any]):
    """Who did what, when, to which row, from where."""

    class Meta:
        model = AuditEntry
        fields = ["id", "at", "user", "address", "action", "event", "table", "object_id", "before", "after"]
        read_only_fields = fields


class AuditViewSet(OwnedViewSet, ListModelMixin, RetrieveModelMixin):
    """What was changed and done. Admins see everybody's entries, staff their own. Nothing here can be changed."""

    queryset = AuditEntry.objects.order_by("-id")
    serializer_class = AuditEntrySerializer
    filterset_fields = ["user", "event", "table", "object_id"]
