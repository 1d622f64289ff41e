"""A lead's history over REST: here and not with the leads, because most of it is messages."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from leads.models import Lead
from messaging import history


class HistoryEntrySerializer(serializers.Serializer[Any]):
    """One thing that happened."""

    at = serializers.DateTimeField(source="place.at")
    kind = serializers.CharField(source="place.kind", help_text="message, reply, consent, change, enrolled or left.")
    title = serializers.CharField()
    text = serializers.CharField(help_text="What was said, or what changed, for a person to read.")
    by = serializers.CharField(help_text="User name, where a person did it.")
    where = serializers.CharField(help_text="The device, or the door it came through.")
    details = serializers.DictField(help_text="By kind; of a change, `values` holds each field's [before, after].")


class HistoryPageSerializer(serializers.Serializer[Any]):
    """A page, newest first."""

    older = serializers.CharField(help_text="Cursor of the next page; empty on the last.")
    entries = HistoryEntrySerializer(many=True)


class HistoryView(APIView):
    """Everything sent, received and changed."""

    @extend_schema(
        operation_id="lead_history",
        responses=HistoryPageSerializer,
        parameters=[
            OpenApiParameter("cursor", str, description="`older` of the page before."),
            OpenApiParameter("page_size", int, description="1 to 200."),
        ],
    )
    def get(self, request: Request, pk: int) -> Response:
        """Messages with their states, replies, consent, changes and sequences of one lead, newest first."""
        lead = get_object_or_404(Lead.objects.visible_to(request.user), pk=pk)
        size = serializers.IntegerField(min_value=1, max_value=200)
        try:
            given = size.run_validation(request.query_params.get("page_size", history.PAGE))
        except serializers.ValidationError as problem:
            raise serializers.ValidationError({"page_size": problem.detail}) from None
        try:
            page = history.timeline(
                lead=lead, user=request.user, cursor=request.query_params.get("cursor", ""), size=given
            )
        except history.BadCursor:
            raise serializers.ValidationError({"cursor": "Take the cursor from older as it is."}) from None
        return Response(HistoryPageSerializer(page).data)
