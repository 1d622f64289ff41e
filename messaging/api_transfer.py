"""Giving leads to other devices over REST: here and not with the leads, because their messages may move along."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.models import User
from django.db.models import F
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices.models import Device, Pool
from leads.api_bulk import ChoiceSerializer, chosen, own_device
from leads.changes import Channel
from messaging import transferring


class TransferSerializer(ChoiceSerializer):
    """Which leads, and where to: one device, or turn by turn over a pool's."""

    device = serializers.IntegerField(required=False)
    pool = serializers.IntegerField(required=False)
    messages = serializers.ChoiceField(
        choices=[("move", "They move along"), ("stay", "They stay with the old device")],
        default="move",
        help_text="What becomes of messages that wait at the lead's own device.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of the two."""
        if ("device" in attrs) == ("pool" in attrs):
            raise serializers.ValidationError({"device": "Give either a device or a pool."}, "required")
        return super().validate(attrs)


class TransferAnswerSerializer(serializers.Serializer[Any]):
    """What came of it, or would come."""

    leads = serializers.IntegerField(help_text="Leads that have another device; whoever has one of these keeps it.")
    messages = serializers.IntegerField(help_text="Waiting messages that moved along.")
    stay = serializers.IntegerField(help_text="Waiting messages that stay: on their way, in doubt, or of a pool.")
    not_connected = serializers.IntegerField(help_text="How many of the new devices cannot send now.")
    dry_run = serializers.BooleanField()


class TransferView(APIView):
    """Give leads to other devices."""

    @extend_schema(operation_id="leads_transfer", request=TransferSerializer, responses=TransferAnswerSerializer)
    def post(self, request: Request) -> Response:
        """Give leads, chosen or all of a device (`filter`), to a device or turn by turn to a pool's devices."""
        form = TransferSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        given, user = form.validated_data, cast("User", request.user)
        leads, _ = chosen(user, form)
        field, devices = ("device" if "device" in given else "pool"), _devices(user, given)
        own_device(leads, devices[0], field)
        moves = given["messages"] == "move"
        told = transferring.outlook(leads=leads, devices=devices)
        done: transferring.Outlook | transferring.Transferred = told
        if not given["dry_run"]:
            done = transferring.transfer(
                leads=leads, devices=devices, move_messages=moves, channel=Channel.API, by=user, now=timezone.now()
            )
        messages = done.messages if moves else 0
        return Response(
            {
                "leads": done.leads,
                "messages": messages,
                "stay": max(told.messages + told.stay - messages, 0),
                "not_connected": told.not_connected,
                "dry_run": given["dry_run"],
            }
        )


def _devices(user: User, given: dict[str, Any]) -> list[Device]:
    """Raises ValidationError."""
    mine = Device.objects.changeable_by(user).defer("credentials").order_by("pk")
    if "device" in given:
        if not (found := list(mine.filter(pk=given["device"]))):
            raise serializers.ValidationError(
                {"device": f"{given['device']} does not exist, or you may not see it."}, "does_not_exist"
            )
        return found
    if not Pool.objects.changeable_by(user).filter(pk=given["pool"]).exists():
        raise serializers.ValidationError(
            {"pool": f"{given['pool']} does not exist, or you may not see it."}, "does_not_exist"
        )
    found = list(mine.filter(pool_id=given["pool"], owner=F("pool__owner")))
    if not found:
        raise serializers.ValidationError({"pool": "This pool has no device: put one into it first."}, "empty")
    return found
