"""Batches over REST: what a run, a step or a single send has made, and what may be done to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from devices.api_base import Conflict, OwnedViewSet
from messaging import services
from messaging.api_counts import CountsSerializer
from messaging.models import Batch, BatchState, Priority


class BatchSerializer(serializers.ModelSerializer[Batch]):
    """Messages with one content, and how far they are."""

    state = serializers.ChoiceField(choices=BatchState.choices, read_only=True)
    priority = serializers.ChoiceField(choices=Priority.choices, read_only=True)
    content = serializers.DictField(read_only=True, help_text="Before variables are filled in.")
    counts = CountsSerializer(read_only=True)

    class Meta:
        model = Batch
        fields = [
            "id", "owner", "name", "state", "reason", "priority", "content", "delay_min_seconds", "delay_max_seconds",
            "failover", "counts", "expires_at", "created_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class BatchFilter(django_filters.FilterSet):
    """Which batches to list."""

    state = django_filters.ChoiceFilter(choices=BatchState.choices)
    priority = django_filters.ChoiceFilter(choices=Priority.choices)

    class Meta:
        model = Batch
        fields: list[str] = []


class BatchViewSet(OwnedViewSet, mixins.RetrieveModelMixin, mixins.ListModelMixin):
    """What runs, steps and single sends have made."""

    queryset = Batch.objects.all()
    serializer_class = BatchSerializer
    filterset_class = BatchFilter

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """Batches, newest first, with their progress."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(self._shown(page))

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """One batch with its progress."""
        return Response(self._shown([self.get_object()])[0])

    @extend_schema(request=None, responses=BatchSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Send nothing more of it until it is resumed."""
        batch: Batch = self.get_object()
        return self._moved(batch, services.pause_batch(batch_id=batch.pk), BatchState.PAUSED)

    @extend_schema(request=None, responses=BatchSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Go on with exactly what is left."""
        batch: Batch = self.get_object()
        return self._moved(batch, services.resume_batch(batch_id=batch.pk), BatchState.RUNNING)

    @extend_schema(request=None, responses=BatchSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """End it: what has not been sent never will be. The way to take back a single message that still waits."""
        batch: Batch = self.get_object()
        ended = services.end_batch(
            batch_id=batch.pk, state=BatchState.CANCELLED, now=timezone.now(), reason="Cancelled by hand."
        )
        return self._moved(batch, ended, BatchState.CANCELLED)

    def _moved(self, batch: Batch, moved: bool, target: BatchState) -> Response:
        """The batch as it is now; being there already is fine, anything else is a conflict."""
        fresh = self.get_queryset().get(pk=batch.pk)
        if not moved and fresh.state != target:
            raise Conflict(f"This batch is “{fresh.get_state_display()}”, so this does not apply.", "wrong_state")
        return Response(self._shown([fresh])[0])

    def _shown(self, rows: Sequence[Any]) -> Any:
        """With their counters: two queries for the page."""
        counts = services.counts_of([row.pk for row in rows])
        for row in rows:
            row.counts = counts[row.pk]
        return BatchSerializer(rows, many=True, context=self.get_serializer_context()).data
