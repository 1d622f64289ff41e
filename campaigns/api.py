"""Campaigns and their runs over REST."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.db import transaction
from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns import services, tasks
from campaigns.models import Campaign, CampaignState, Routing, Run, RunState, Schedule
from devices.api_base import Conflict, OwnedSerializer, OwnedViewSet
from messaging.models import BatchState
from messaging.services import Counts, counts_of


@extend_schema_field(serializers.ChoiceField(choices=CampaignState.choices), component_name="CampaignState")
class CampaignStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


@extend_schema_field(serializers.ChoiceField(choices=RunState.choices), component_name="RunState")
class RunStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


@extend_schema_field(serializers.ChoiceField(choices=BatchState.choices), component_name="BatchState")
class BatchStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


class CampaignSerializer(OwnedSerializer):
    """What to send, to whom, and when."""

    state = CampaignStateField(choices=CampaignState.choices, read_only=True)

    class Meta:
        model = Campaign
        fields = [
            "id", "owner", "name", "state", "text", "status", "niches", "triggers", "lead_device", "segment",
            "routing", "pool", "delay_min_seconds", "delay_max_seconds", "expires_after_days", "schedule",
            "scheduled_at", "cron", "time_zone", "created_at", "launched_at",
        ]  # fmt: skip
        read_only_fields = ["owner", "created_at", "launched_at"]


class ProgressSerializer(serializers.Serializer[Counts]):
    """How many messages of a run are where, from maintained counters."""

    total = serializers.IntegerField()
    pending = serializers.IntegerField()
    queued = serializers.IntegerField()
    sent = serializers.IntegerField(help_text="Delivered and read ones included.")
    delivered = serializers.IntegerField()
    read = serializers.IntegerField()
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()
    expired = serializers.IntegerField()
    unknown = serializers.IntegerField()
    presumed = serializers.IntegerField(help_text="Of the unknown ones: those that count as sent by now.")
    percent = serializers.FloatField(help_text="Share with nothing ahead of it, 0 to 100.")


class RunSerializer(serializers.ModelSerializer[Run]):
    """One occurrence of a campaign. Needs ``counts`` in the context: progress by batch id."""

    state = RunStateField(choices=RunState.choices, read_only=True)
    batch_state = BatchStateField(choices=BatchState.choices, source="batch.state", read_only=True, default=None,
                                  allow_null=True, help_text="Whether its messages run or rest.")  # fmt: skip
    audience = serializers.DictField(read_only=True, help_text="As it was when the run was triggered.")
    left_out = serializers.DictField(
        child=serializers.IntegerField(), read_only=True, help_text="How many leads were left out, by reason."
    )
    progress = serializers.SerializerMethodField()

    class Meta:
        model = Run
        fields = [
            "id", "campaign", "occurrence", "state", "reason", "batch", "batch_state", "audience", "left_out",
            "planned_at", "triggered_at", "finished_at", "progress",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(ProgressSerializer)
    def get_progress(self, run: Run) -> dict[str, Any]:
        """Counts of the run's batch; zeros before it has one."""
        counts: Mapping[int, Counts] = self.context["counts"]
        found = counts[run.batch_id] if run.batch_id is not None else Counts()
        return {**asdict(found), "percent": round(found.percent, 2)}


class LaunchSerializer(serializers.Serializer[Any]):
    """The run a launch came to; ``created`` is false when it was there already."""

    run = RunSerializer()
    created = serializers.BooleanField()


class CampaignProblemSerializer(serializers.Serializer[services.Problem]):
    """Something to mend before a launch."""

    field = serializers.CharField()
    code = serializers.CharField()
    text = serializers.CharField()


class LaunchPreviewSerializer(serializers.Serializer[Any]):
    """Whom a launch would reach now, who would be left out and why, and what stands in its way."""

    total = serializers.IntegerField(help_text="Leads that match.")
    eligible = serializers.IntegerField(help_text="Leads that would be written to.")
    left_out = serializers.DictField(child=serializers.IntegerField(), help_text="How many, by reason.")
    without_consent = serializers.IntegerField(help_text="Eligible only because an admin waived recorded consent.")
    devices = serializers.IntegerField(help_text="Connected devices that would send.")
    problems = CampaignProblemSerializer(many=True)


class CampaignFilter(django_filters.FilterSet):
    """Which campaigns to list."""

    state = django_filters.ChoiceFilter(choices=CampaignState.choices)
    schedule = django_filters.ChoiceFilter(choices=Schedule.choices)
    routing = django_filters.ChoiceFilter(choices=Routing.choices)

    class Meta:
        model = Campaign
        fields: list[str] = []


class RunFilter(django_filters.FilterSet):
    """Which runs to list."""

    state = django_filters.ChoiceFilter(choices=RunState.choices)
    campaign = django_filters.NumberFilter(field_name="campaign_id")

    class Meta:
        model = Run
        fields: list[str] = []


def shown(*, runs: Iterable[Run], context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Runs with their progress; the counts of all of them are two queries."""
    found = list(runs)
    counts = counts_of([run.batch_id for run in found if run.batch_id is not None])
    return list(RunSerializer(found, many=True, context={**context, "counts": counts}).data)


class CampaignViewSet(
    OwnedViewSet, mixins.CreateModelMixin, mixins.UpdateModelMixin, mixins.DestroyModelMixin,
    mixins.RetrieveModelMixin, mixins.ListModelMixin,
):  # fmt: skip
    """One audience, one content, one schedule."""

    queryset = Campaign.objects.all()
    serializer_class = CampaignSerializer
    filterset_class = CampaignFilter

    def perform_destroy(self, instance: Campaign) -> None:
        """Runs are history, and live ones have messages on their way. The lock keeps a launch from slipping in."""
        with transaction.atomic():
            campaign = Campaign.objects.select_for_update().get(pk=instance.pk)
            if campaign.runs.exists():
                raise Conflict(
                    "It has been launched, and its runs are kept. Cancel what still runs instead.", "has_runs"
                )
            campaign.delete()

    @extend_schema(
        request=None,
        responses={202: LaunchSerializer, 200: OpenApiResponse(LaunchSerializer, "It was launched before: its run.")},
    )
    @action(detail=True, methods=["post"])
    def launch(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Run it, once: however often this is called, a campaign that is launched by hand has one run."""
        with transaction.atomic():
            launched = services.launch(campaign=self.get_object(), now=timezone.now())
            if launched.created:
                # robust: with the broker down the tick triggers it
                transaction.on_commit(lambda: tasks.trigger.delay(run_id=launched.run.pk), robust=True)
        body = {
            "run": shown(runs=[launched.run], context=self.get_serializer_context())[0],
            "created": launched.created,
        }
        return Response(body, status=status.HTTP_202_ACCEPTED if launched.created else status.HTTP_200_OK)

    @extend_schema(responses=LaunchPreviewSerializer)
    @action(detail=True, methods=["get"], filterset_class=None)
    def preview(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Look before you launch: nothing is changed."""
        campaign = self.get_object()
        seen, problems = services.preview(campaign), services.check(campaign=campaign)
        shown_fields = ("total", "eligible", "left_out", "without_consent", "devices")
        body = {**{name: getattr(seen, name) for name in shown_fields}, "problems": problems}
        return Response(LaunchPreviewSerializer(body).data)

    @extend_schema(responses=RunSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_class=None)
    def runs(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """This campaign's runs, newest first."""
        found = Run.objects.visible_to(request.user).filter(campaign=self.get_object()).select_related("batch")
        page = self.paginate_queryset(found) or []
        return self.get_paginated_response(shown(runs=page, context=self.get_serializer_context()))


class RunViewSet(OwnedViewSet, mixins.RetrieveModelMixin, mixins.ListModelMixin):
    """Occurrences of campaigns."""

    queryset = Run.objects.select_related("batch")
    serializer_class = RunSerializer
    filterset_class = RunFilter

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """Runs, newest first, with their progress."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(shown(runs=page, context=self.get_serializer_context()))

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """One run with its progress."""
        return self._answer(self.get_object())

    @extend_schema(request=None, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Send nothing more of this run until it is resumed."""
        run = self.get_object()
        return self._moved(run, services.pause(run), BatchState.PAUSED)

    @extend_schema(request=None, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Go on with exactly what is left."""
        run = self.get_object()
        return self._moved(run, services.resume(run, now=timezone.now()), BatchState.RUNNING)

    @extend_schema(request=None, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """End it: what has not been sent never will be."""
        run = self.get_object()
        return self._moved(run, services.cancel(run, now=timezone.now()), BatchState.CANCELLED)

    def _moved(self, run: Run, moved: bool, target: BatchState) -> Response:
        """The run as it is now; being there already is fine, anything else is a conflict."""
        fresh = self.get_queryset().get(pk=run.pk)
        if not moved and (fresh.batch is None or fresh.batch.state != target):
            where = fresh.batch.get_state_display() if fresh.batch else fresh.get_state_display()
            raise Conflict(f"This run is “{where}”, so this does not apply.", "wrong_state")
        return self._answer(fresh)

    def _answer(self, run: Run) -> Response:
        return Response(shown(runs=[run], context=self.get_serializer_context())[0])
