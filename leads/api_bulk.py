"""Many leads at once over REST: choosing them by ids or filter, and editing them."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices.api_base import Conflict
from devices.api_choosing import ChoosingSerializer
from devices.models import Device
from leads import bulk
from leads.api import LeadFilter
from leads.cells import clean_tags
from leads.changes import Channel
from leads.columns import KEY_LENGTH
from leads.models import Lead, LeadStatus


class ChoiceSerializer(ChoosingSerializer):
    """Which leads: ``ids``, or ``filter`` with what the list of leads takes."""

    filterset = LeadFilter

    expect = serializers.IntegerField(
        required=False, min_value=0, help_text="How many it should be; otherwise nothing is done (409)."
    )


def chosen(user: User, form: ChoiceSerializer) -> tuple[QuerySet[Lead], int]:
    """The leads, and how many. Raises ValidationError and Conflict."""
    leads: QuerySet[Lead] = form.chosen_of(Lead.objects.changeable_by(user))
    given = form.validated_data
    number = leads.order_by()[: bulk.MOST + 1].count()
    if number > bulk.MOST:
        raise serializers.ValidationError(
            {"filter": f"More than {bulk.MOST:,} leads match: choose fewer at a time."}, "too_many"
        )
    if given.get("expect") not in (None, number):
        raise Conflict(f"It is {number:,} leads, not {given['expect']:,}: look again.", "count_changed")
    return leads, number


def own_device(leads: QuerySet[Lead], device: Device, field: str = "device") -> None:
    """Raises ValidationError where one of the leads has another owner than the device."""
    if leads.exclude(owner_id=device.owner_id).exists():
        raise serializers.ValidationError(
            {field: "Some of these leads belong to somebody else than the device."}, "other_owner"
        )


class TagsSerializer(serializers.Serializer[Any]):
    """Exact tags."""

    niches = serializers.ListField(child=serializers.CharField(max_length=60), default=list, max_length=100)
    triggers = serializers.ListField(child=serializers.CharField(max_length=60), default=list, max_length=100)


class SetSerializer(serializers.Serializer[Any]):
    """Values for all of them."""

    status = serializers.ChoiceField(choices=LeadStatus.choices, required=False)
    device = serializers.IntegerField(required=False, allow_null=True, help_text="A device's id; null: none.")
    custom = serializers.DictField(required=False, help_text="Fields of your own to set; null removes one.")

    def validate_custom(self, value: dict[str, Any]) -> dict[str, Any]:
        """Names that a message can use."""
        for key in value:
            if not key.isidentifier() or len(key) > KEY_LENGTH:
                text = f"“{key[:KEY_LENGTH]}” cannot be a field's name: use letters, digits and underscores."
                raise serializers.ValidationError(text, "bad_name")
        return value


class BulkSerializer(ChoiceSerializer):
    """Which leads, and what is to become of them. Waiting messages stay where they are: see transfer."""

    set = SetSerializer(required=False)
    add = TagsSerializer(required=False)
    remove = TagsSerializer(required=False)


class BulkAnswerSerializer(serializers.Serializer[Any]):
    """What came of it."""

    leads = serializers.IntegerField(help_text="How many were chosen.")
    changed = serializers.IntegerField(help_text="How many of them changed.")
    dry_run = serializers.BooleanField()


class BulkView(APIView):
    """Edit many leads."""

    @extend_schema(operation_id="leads_bulk", request=BulkSerializer, responses=BulkAnswerSerializer)
    def post(self, request: Request) -> Response:
        """Set the status, the device or own fields, add or remove tags. Each lead's history says who did it."""
        form = BulkSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        user = cast("User", request.user)
        wanted = _edit_of(given)
        leads, number = chosen(user, form)
        if wanted.device_id is not None:
            device = Device.objects.changeable_by(user).filter(pk=wanted.device_id).defer("credentials").first()
            if device is None:
                raise serializers.ValidationError(
                    {"set": {"device": "It does not exist, or you may not see it."}}, "does_not_exist"
                )
            own_device(leads, device, "set.device")
        changed = 0
        if not given["dry_run"]:
            changed = bulk.edit(leads=leads, edit=wanted, channel=Channel.API, by=user, now=timezone.now())
        return Response({"leads": number, "changed": changed, "dry_run": given["dry_run"]})


def _edit_of(given: dict[str, Any]) -> bulk.Edit:
    """Raises ValidationError where it says nothing, or a tag twice."""
    values, add, remove = given.get("set", {}), given.get("add", {}), given.get("remove", {})
    for kind in ("niches", "triggers"):
        if both := set(clean_tags(add.get(kind, []))) & set(clean_tags(remove.get(kind, []))):
            raise serializers.ValidationError({"add": {kind: f"“{min(both)}” is added and removed: choose."}})
    custom = values.get("custom", {})
    wanted = bulk.Edit(
        status=values.get("status", ""),
        add_niches=clean_tags(add.get("niches", [])),
        remove_niches=clean_tags(remove.get("niches", [])),
        add_triggers=clean_tags(add.get("triggers", [])),
        remove_triggers=clean_tags(remove.get("triggers", [])),
        device_id=values.get("device"),
        without_device="device" in values and values["device"] is None,
        custom={name: value for name, value in custom.items() if value is not None},
        remove_custom=tuple(name for name, value in custom.items() if value is None),
    )
    if wanted.is_empty:
        raise serializers.ValidationError({"set": "Say what is to change: set, add or remove."}, "required")
    return wanted
