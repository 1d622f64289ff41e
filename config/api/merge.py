"""Merging two leads over REST."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from config import merging
from leads.changes import Channel
from leads.models import Lead


class MergeSerializer(serializers.Serializer[Any]):
    """Who is to become part of this lead."""

    other = serializers.IntegerField(min_value=1, max_value=2**63 - 1, help_text="The lead that goes.")
    dry_run = serializers.BooleanField(default=False, help_text="Only say what would be the result.")


class MergeAnswerSerializer(serializers.Serializer[Any]):
    """The lead as it is, or would be, and what came over."""

    lead = serializers.DictField(help_text="Its columns.")
    messages = serializers.IntegerField()
    waiting = serializers.IntegerField(help_text="How many of them had not left.")
    replies = serializers.IntegerField()
    enrolments = serializers.IntegerField()
    cancelled = serializers.IntegerField(help_text="Waiting messages the lead would have had twice.", allow_null=True)
    dry_run = serializers.BooleanField()


class MergeView(APIView):
    """Make two leads one."""

    @extend_schema(operation_id="lead_merge", request=MergeSerializer, responses=MergeAnswerSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """This lead stays, with its number; the other's details, history and enrolments come over. Any opt-out stays,
        for both numbers. For good."""
        mine = Lead.objects.changeable_by(request.user)
        survivor = get_object_or_404(mine, pk=pk)
        form = MergeSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        other = mine.filter(pk=form.validated_data["other"]).first()
        if other is None:
            raise serializers.ValidationError({"other": "It does not exist, or you may not see it."}, "does_not_exist")
        told, cancelled = merging.outlook(survivor=survivor, other=other), None
        dry_run = form.validated_data["dry_run"]
        columns = told.columns
        if not dry_run:
            user = cast("User", request.user)
            done = merging.merge(survivor=survivor, other=other, by=user, channel=Channel.API, now=timezone.now())
            cancelled = done.cancelled
            columns = {name: getattr(survivor, name) for name in columns}
        return Response(
            {
                "lead": columns, "messages": told.messages, "waiting": told.waiting, "replies": told.replies,
                "enrolments": told.enrolments, "cancelled": cancelled, "dry_run": dry_run,
            }
        )  # fmt: skip
