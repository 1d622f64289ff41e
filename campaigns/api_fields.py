"""Campaigns and runs as the API shows and takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from campaigns import planning
from campaigns.checks import Problem
from campaigns.models import Campaign, CampaignState, Run, RunState, Variant
from campaigns.running import progress_of
from devices.api_base import OwnedSerializer
from messaging.api_counts import CountsSerializer
from messaging.models import BatchState
from messaging.services import Counts


@extend_schema_field(serializers.ChoiceField(choices=CampaignState.choices), component_name="CampaignState")
class CampaignStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


@extend_schema_field(serializers.ChoiceField(choices=RunState.choices), component_name="RunState")
class RunStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


@extend_schema_field(serializers.ChoiceField(choices=BatchState.choices), component_name="BatchState")
class BatchStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


@extend_schema_field(OpenApiTypes.OBJECT)
class TemplateField(serializers.JSONField):
    """An approved template as an object; the model says what is wrong with it."""


class VariantSerializer(serializers.ModelSerializer[Variant]):
    """One of the texts that are tried."""

    class Meta:
        model = Variant
        fields = ["name", "share", "text"]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Its text must be readable."""
        Variant(**attrs).clean()
        return attrs


class CampaignSerializer(OwnedSerializer):
    """What to send, to whom, and when."""

    state = CampaignStateField(choices=CampaignState.choices, read_only=True)
    template = TemplateField(required=False, allow_null=True)
    variants = VariantSerializer(many=True, required=False, help_text="Texts to try, with their shares; replaces all.")
    schedule_words = serializers.SerializerMethodField(help_text="As “every Monday 09:00 Asia/Kuala_Lumpur, next: …”.")

    class Meta:
        model = Campaign
        fields = [
            "id", "owner", "name", "state", "content_type", "text", "media", "template", "greeting", "on_missing",
            "variants", "status", "niches", "triggers", "lead_device", "segment", "routing", "pool", "limit_per_device",
            "delay_min_seconds", "delay_max_seconds", "pause_at_percent", "pause_window_minutes", "pause_min_calls",
            "expires_after_days", "schedule", "scheduled_at", "cron", "time_zone", "catch_up", "schedule_words",
            "next_at", "created_at", "launched_at",
        ]  # fmt: skip
        read_only_fields = ["owner", "next_at", "created_at", "launched_at"]

    def get_schedule_words(self, campaign: Campaign) -> str:
        """In words, with what comes next."""
        return planning.words(campaign, now=timezone.now())

    def validate_variants(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each name once; whether the shares make a hundred is asked at the launch."""
        names = [variant["name"] for variant in value]
        if len(set(names)) < len(names):
            raise serializers.ValidationError("Two variants have the same name.", "unique")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The model judges the row; variants are rows of their own."""
        variants = attrs.pop("variants", None)
        attrs = super().validate(attrs)
        return attrs if variants is None else {**attrs, "variants": variants}

    def create(self, validated_data: dict[str, Any]) -> Campaign:
        """The campaign and its variants."""
        variants = validated_data.pop("variants", [])
        with transaction.atomic():
            campaign: Campaign = super().create(validated_data)
            _replace_variants(campaign, variants)
        return campaign

    def update(self, instance: Campaign, validated_data: dict[str, Any]) -> Campaign:
        """The named columns, and all variants where they are named."""
        variants = validated_data.pop("variants", None)
        with transaction.atomic():
            campaign: Campaign = super().update(instance, validated_data)
            if variants is not None:
                _replace_variants(campaign, variants)
        return campaign


def _replace_variants(campaign: Campaign, variants: Iterable[Mapping[str, Any]]) -> None:
    campaign.variants.all().delete()
    Variant.objects.bulk_create(Variant(campaign=campaign, **variant) for variant in variants)


class ProgressSerializer(CountsSerializer):
    """How many messages of a run are where, from maintained counters."""

    percent = serializers.FloatField(help_text="Share with nothing ahead of it, 0 to 100.")


def counts_shown(counts: Counts) -> dict[str, Any]:
    """Counts as ProgressSerializer describes them."""
    return {**asdict(counts), "percent": round(counts.percent, 2)}


class RunSerializer(serializers.ModelSerializer[Run]):
    """One occurrence of a campaign. Needs ``counts`` in the context: progress by the run's id."""

    state = RunStateField(choices=RunState.choices, read_only=True)
    batch_state = BatchStateField(choices=BatchState.choices, source="batch.state", read_only=True, default=None,
                                  allow_null=True, help_text="Whether its messages run or rest.")  # fmt: skip
    batch_reason = serializers.CharField(
        source="batch.reason", read_only=True, default="", help_text="Why it rests, where it paused by itself."
    )
    audience = serializers.DictField(read_only=True, help_text="As it was when the run was triggered.")
    left_out = serializers.DictField(
        child=serializers.IntegerField(), read_only=True, help_text="How many leads were left out, by reason."
    )
    progress = serializers.SerializerMethodField()

    class Meta:
        model = Run
        fields = [
            "id", "campaign", "occurrence", "state", "reason", "batch", "batch_state", "batch_reason", "audience",
            "left_out", "unassigned", "planned_at", "triggered_at", "finished_at", "progress",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(ProgressSerializer)
    def get_progress(self, run: Run) -> dict[str, Any]:
        """Counts of the run's batches; zeros before it has one."""
        counts: Mapping[int, Counts] = self.context["counts"]
        return counts_shown(counts[run.pk])


def shown(*, runs: Iterable[Run], context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Runs with their progress; the counts of all of them are three queries."""
    found = list(runs)
    return list(RunSerializer(found, many=True, context={**context, "counts": progress_of(found)}).data)


class StartSerializer(serializers.Serializer[Any]):
    """The run a launch came to; ``created`` is false when it was there already. A recurring campaign has none yet."""

    run = RunSerializer(allow_null=True)
    created = serializers.BooleanField()


class CampaignProblemSerializer(serializers.Serializer[Problem]):
    """Something to mend before a launch."""

    field = serializers.CharField()
    code = serializers.CharField()
    text = serializers.CharField()


class AudienceCountSerializer(serializers.Serializer[Any]):
    """Whom a campaign would reach now."""

    total = serializers.IntegerField(help_text="Leads that match.")
    eligible = serializers.IntegerField(help_text="Leads that would be written to.")
    left_out = serializers.DictField(child=serializers.IntegerField(), help_text="How many, by reason.")
    without_consent = serializers.IntegerField(help_text="Eligible only because an admin waived recorded consent.")
    devices = serializers.IntegerField(help_text="Connected devices that would send.")
    excluded = serializers.IntegerField(help_text="Connected devices of the pool that have been failing.")
    unassigned = serializers.IntegerField(help_text="Eligible, but beyond the limit per device.")


class LaunchPreviewSerializer(AudienceCountSerializer):
    """Whom a launch would reach now, who would be left out and why, and what stands in its way."""

    problems = CampaignProblemSerializer(many=True)
    finish_at = serializers.DateTimeField(allow_null=True, help_text="When a launch now would be done, estimated.")
    next_at = serializers.ListField(child=serializers.DateTimeField(), help_text="The next occurrences.")


class AskedAudienceSerializer(OwnedSerializer):
    """An audience and a routing that nobody has saved."""

    class Meta:
        model = Campaign
        fields = ["status", "niches", "triggers", "lead_device", "segment", "routing", "pool", "limit_per_device"]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Counting needs no text and no schedule."""
        return attrs


class ShownSerializer(serializers.Serializer[Any]):
    """What one lead would get from one variant."""

    variant = serializers.CharField(help_text="Empty for a campaign without variants.")
    type = serializers.CharField()
    text = serializers.CharField()
    media = serializers.IntegerField(allow_null=True)
    problem = serializers.CharField(help_text="Why there is no text; empty where there is one.")


class TestSerializer(serializers.Serializer[Any]):
    """One message of the campaign to a number."""

    __test__ = False

    phone = serializers.CharField(max_length=40)
    variant = serializers.CharField(max_length=30, required=False, help_text="Name of the variant; else the text.")


class TestedSerializer(serializers.Serializer[Any]):
    """The message that was made of it."""

    message = serializers.IntegerField()
    device = serializers.IntegerField()


class PartSerializer(serializers.Serializer[Any]):
    """A variant's or a device's share of a run."""

    id = serializers.IntegerField(help_text="The device, or the variant's batch.")
    name = serializers.CharField()
    replied = serializers.IntegerField(help_text="Leads who wrote back, each once.")
    progress = ProgressSerializer()


class ReportSerializer(serializers.Serializer[Any]):
    """How far a run is."""

    progress = ProgressSerializer()
    replied = serializers.IntegerField(help_text="Leads who wrote back within a week, each once.")
    per_minute = serializers.FloatField(help_text="Messages settled a minute so far.")
    finish_at = serializers.DateTimeField(allow_null=True, help_text="When it will be done, estimated.")
    variants = PartSerializer(many=True)


class UnassignedSerializer(serializers.Serializer[Any]):
    """A lead that no device took."""

    lead = serializers.IntegerField(source="lead_id")
    name = serializers.CharField(source="lead.name")
    phone = serializers.CharField(source="lead.phone")


class AssignSerializer(serializers.Serializer[Any]):
    """Which unassigned leads (all, where none are named), and to which device, or pool by turns."""

    leads = serializers.ListField(child=serializers.IntegerField(), required=False, allow_empty=False, max_length=10000)
    device = serializers.IntegerField(required=False)
    pool = serializers.IntegerField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of the two."""
        if ("device" in attrs) == ("pool" in attrs):
            raise serializers.ValidationError({"device": "Give either a device or a pool."}, "required")
        return attrs


class AssignedSerializer(serializers.Serializer[Any]):
    """What came of it."""

    messages = serializers.IntegerField(help_text="Leads that have a message now.")
    unassigned = serializers.IntegerField(help_text="Leads that are left.")


class RetryOfRunSerializer(serializers.Serializer[Any]):
    """Which failed messages to send again."""

    device = serializers.IntegerField(required=False, min_value=1, help_text="Those of one device. Empty: all.")


class RetriedOfRunSerializer(serializers.Serializer[Any]):
    """How many messages got a new round, and how many did not, by reason."""

    retried = serializers.IntegerField()
    left_alone = serializers.DictField(child=serializers.IntegerField())


class SpanSerializer(serializers.Serializer[Any]):
    """A span of days, both ends in it."""

    first = serializers.DateField(required=False, help_text="Its first day; a week ago by default.")
    last = serializers.DateField(required=False, help_text="Its last day; three weeks ahead by default.")
    time_zone = serializers.CharField(max_length=64, required=False, help_text="Whose days; the installation's.")


class EntrySerializer(serializers.Serializer[Any]):
    """One occurrence in the calendar."""

    at = serializers.DateTimeField()
    campaign = serializers.IntegerField(source="campaign_id")
    name = serializers.CharField()
    state = serializers.CharField(help_text="A run's state, or “planned” for one that is still to come.")
    run = serializers.IntegerField(source="run_id", allow_null=True)
    reason = serializers.CharField()


class SummarySerializer(serializers.Serializer[Any]):
    """Campaigns by state, and the runs planned in a span of days by state with what they came to."""

    campaigns = serializers.DictField(child=serializers.IntegerField())
    runs = serializers.DictField(child=serializers.IntegerField())
    messages = ProgressSerializer()
    replied = serializers.IntegerField()
