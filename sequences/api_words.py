"""What the API of sequences says and takes, apart from the rows themselves."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from devices.api_base import OwnedRelation
from messaging.api_counts import CountsSerializer
from sequences.models import EnrolmentState, EntrySource, OnReply, SequenceState, Step, StepVersion, Version

_STEP_FIELDS = [
    "position", "delay_minutes", "window_start", "window_end", "weekdays", "on_reply", "reply_goes_to", "wait_minutes",
    "silence_goes_to", "ends",
]  # fmt: skip


@extend_schema_field(serializers.ChoiceField(choices=SequenceState.choices), component_name="SequenceState")
class SequenceStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


@extend_schema_field(serializers.ChoiceField(choices=EnrolmentState.choices), component_name="EnrolmentState")
class EnrolmentStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


@extend_schema_field(serializers.ChoiceField(choices=EntrySource.choices), component_name="EntrySource")
class EntrySourceField(serializers.ChoiceField):
    """How a lead came in, as one named set in the description of the API."""


@extend_schema_field(serializers.ChoiceField(choices=OnReply.choices), component_name="OnReply")
class OnReplyField(serializers.ChoiceField):
    """What a reply does, as one named set in the description of the API."""


_CONTENT_FIELDS = ["content_type", "text", "media", "template", "greeting", "on_missing"]


@extend_schema_field(OpenApiTypes.OBJECT)
class StepTemplateField(serializers.JSONField):
    """An approved template as an object; the model says what is wrong with it."""


class StepsSerializer(serializers.ListSerializer[Step]):
    """Steps in a list: what says nothing of its position has the one in the list."""

    def to_internal_value(self, data: Any) -> Any:
        """Positions count from 1."""
        if isinstance(data, list):
            data = [{"position": n, **each} if isinstance(each, dict) else each for n, each in enumerate(data, 1)]
        return super().to_internal_value(data)


class StepSerializer(serializers.ModelSerializer[Step]):
    """One step of the draft. ``key`` names one that is there already; without it the step is new."""

    serializer_related_field = OwnedRelation
    template = StepTemplateField(required=False, allow_null=True)
    key = serializers.IntegerField(source="pk", required=False, min_value=1, help_text="Of a step that is there.")
    on_reply = OnReplyField(choices=OnReply.choices, default="", allow_blank=True)
    position = serializers.IntegerField(
        required=False, min_value=1, max_value=1000, help_text="Left out: its place in the list, from 1."
    )

    class Meta:
        model = Step
        list_serializer_class = StepsSerializer
        fields = ["key", *_STEP_FIELDS, *_CONTENT_FIELDS]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Let the model judge the step as it would be."""
        Step(**{name: value for name, value in attrs.items() if name != "pk"}).clean()
        return attrs


class StepVersionSerializer(serializers.ModelSerializer[StepVersion]):
    """One step as it was in force."""

    on_reply = OnReplyField(choices=OnReply.choices, read_only=True)
    content = serializers.DictField(read_only=True)

    class Meta:
        model = StepVersion
        fields = ["key", "revision", *_STEP_FIELDS, "content"]
        read_only_fields = fields


class VersionSerializer(serializers.ModelSerializer[Version]):
    """The steps that were in force from one moment on."""

    steps = StepVersionSerializer(many=True, read_only=True)

    class Meta:
        model = Version
        fields = ["number", "made_at", "made_by", "steps"]
        read_only_fields = fields


class EnteredSerializer(serializers.Serializer[Any]):
    """Who came in."""

    enrolments = serializers.ListField(child=serializers.IntegerField())
    left_out = serializers.DictField(child=serializers.IntegerField(), help_text="How many leads, by reason.")


class RetriedStepsSerializer(serializers.Serializer[Any]):
    """What a retry did."""

    retried = serializers.IntegerField()
    left_alone = serializers.DictField(child=serializers.IntegerField(), help_text="How many, by reason.")


class ChangeSerializer(serializers.Serializer[Any]):
    """What would happen to one step."""

    kind = serializers.CharField(help_text="added, removed, text, timing or moved")
    position = serializers.IntegerField()
    text = serializers.CharField()
    ahead = serializers.IntegerField(help_text="Leads that have it ahead of them, or would.")
    waiting = serializers.IntegerField(help_text="Leads whose message of it waits to be sent.")


class DraftProblemSerializer(serializers.Serializer[Any]):
    """Something to mend before the draft can be applied."""

    field = serializers.CharField()
    code = serializers.CharField()
    text = serializers.CharField()


class EditPreviewSerializer(serializers.Serializer[Any]):
    """What applying the draft would change."""

    digest = serializers.CharField(help_text="Stands for this draft: apply with it.")
    live = serializers.IntegerField(help_text="Leads that are in it now.")
    changes = ChangeSerializer(many=True)
    problems = DraftProblemSerializer(many=True)


class AppliedSerializer(serializers.Serializer[Any]):
    """The version in force now; ``applied`` is false when the draft was it already."""

    applied = serializers.BooleanField()
    version = VersionSerializer()


class StepCountsSerializer(CountsSerializer):
    """Messages of one step, all of its contents together."""


class StepProgressSerializer(serializers.Serializer[Any]):
    """One step. A step that was taken out has position 0."""

    key = serializers.IntegerField()
    position = serializers.IntegerField()
    text = serializers.CharField()
    ahead = serializers.IntegerField(help_text="Leads that have it ahead of them.")
    completed = serializers.IntegerField(help_text="Leads that came to the end with it.")
    replied = serializers.IntegerField(help_text="Leads that left by a reply to it.")
    exited = serializers.IntegerField(help_text="Leads that left after it, for whatever reason.")
    failed = serializers.IntegerField(help_text="Leads that failed with it.")
    messages = StepCountsSerializer()


class DeviceProgressSerializer(serializers.Serializer[Any]):
    """The messages of one device."""

    device_id = serializers.IntegerField()
    name = serializers.CharField()
    total = serializers.IntegerField()
    waiting = serializers.IntegerField()
    sent = serializers.IntegerField()
    delivered = serializers.IntegerField()
    read = serializers.IntegerField()
    failed = serializers.IntegerField()
    unknown = serializers.IntegerField()


class SequenceProgressSerializer(serializers.Serializer[Any]):
    """Leads by state, steps and devices."""

    total = serializers.IntegerField()
    active = serializers.IntegerField()
    paused = serializers.IntegerField()
    waiting_for_device = serializers.IntegerField(help_text="Of the paused: by themselves, until their device is back.")
    completed = serializers.IntegerField()
    exited = serializers.IntegerField()
    failed = serializers.IntegerField()
    exits = serializers.DictField(child=serializers.IntegerField(), help_text="Why they left: reply, opted_out, goal …")
    percent = serializers.FloatField(help_text="Share of leads with nothing ahead, 0 to 100.")
    ends_at = serializers.DateTimeField(allow_null=True, help_text="When the last of them may be through.")
    steps = StepProgressSerializer(many=True)
    devices = DeviceProgressSerializer(many=True)
