"""Campaigns over REST; their runs are in :mod:`campaigns.api_runs`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.db import transaction
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns import loads, planning, services, tasks, trying
from campaigns.api_fields import (
    AskedAudienceSerializer,
    AudienceCountSerializer,
    CampaignSerializer,
    LaunchPreviewSerializer,
    RunSerializer,
    ShownSerializer,
    SpanSerializer,
    StartSerializer,
    SummarySerializer,
    TestedSerializer,
    TestSerializer,
    counts_shown,
    shown,
)
from campaigns.api_runs import RunViewSet, days_asked
from campaigns.models import Campaign, CampaignState, Routing, Run, Schedule
from campaigns.summary import span, summary
from devices.api_base import Conflict, OwnedViewSet
from leads.models import Lead

__all__ = ["CampaignViewSet", "RunViewSet"]


class CampaignFilter(django_filters.FilterSet):
    """Which campaigns to list."""

    state = django_filters.ChoiceFilter(choices=CampaignState.choices)
    schedule = django_filters.ChoiceFilter(choices=Schedule.choices)
    routing = django_filters.ChoiceFilter(choices=Routing.choices)

    class Meta:
        model = Campaign
        fields: list[str] = []


class CampaignViewSet(
    OwnedViewSet, mixins.CreateModelMixin, mixins.UpdateModelMixin, mixins.DestroyModelMixin,
    mixins.RetrieveModelMixin, mixins.ListModelMixin,
):  # fmt: skip
    """One audience, one content, one schedule."""

    queryset = Campaign.objects.prefetch_related("variants")
    serializer_class = CampaignSerializer
    filterset_class = CampaignFilter

    def perform_update(self, serializer: Any) -> None:
        """A one-off that was launched is what it was."""
        campaign = serializer.instance
        if campaign.launched_at is not None and campaign.schedule != Schedule.CRON:
            raise Conflict("It has been launched and stays as it was. Clone it to change it.", "launched")
        serializer.save()

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
        responses={202: StartSerializer, 200: OpenApiResponse(StartSerializer, "It was launched before: its run.")},
    )
    @action(detail=True, methods=["post"])
    def launch(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Run it, once, however often this is called; a recurring campaign runs by its schedule from now on."""
        now = timezone.now()
        with transaction.atomic():
            started = services.start(campaign=self.get_object(), now=now)
            run = started.run
            if run is not None and started.created and run.planned_at <= now:
                # robust: with the broker down the tick triggers it
                transaction.on_commit(lambda: tasks.trigger.delay(run_id=run.pk), robust=True)
        body = {
            "run": shown(runs=[run], context=self.get_serializer_context())[0] if run is not None else None,
            "created": started.created,
        }
        return Response(body, status=status.HTTP_202_ACCEPTED if started.created else status.HTTP_200_OK)

    @extend_schema(request=None, responses=CampaignSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """No new run, and nothing more of those that go on, until it is resumed."""
        campaign = self.get_object()
        return self._moved(campaign, services.pause_campaign(campaign), CampaignState.PAUSED)

    @extend_schema(request=None, responses=CampaignSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Go on with exactly what is left; what was planned meanwhile is gone."""
        campaign = self.get_object()
        return self._moved(campaign, services.resume_campaign(campaign, now=timezone.now()), CampaignState.SCHEDULED)

    @extend_schema(request=None, responses=CampaignSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """End it: no run any more, and what has not been sent never will be."""
        campaign = self.get_object()
        return self._moved(campaign, services.cancel_campaign(campaign, now=timezone.now()), CampaignState.CANCELLED)

    @extend_schema(request=None, responses={201: CampaignSerializer})
    @action(detail=True, methods=["post"])
    def clone(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """A draft with the same content, audience, routing, pacing and schedule: the way to run a one-off again."""
        made = services.clone(campaign=self.get_object())
        return Response(self.get_serializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=TestSerializer, responses={201: TestedSerializer})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Send its content to one number, ahead of bulk; nothing of the campaign moves."""
        campaign = self.get_object()
        form = TestSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        name = form.validated_data.get("variant")
        variant = campaign.variants.filter(name=name).first() if name else None
        if name and variant is None:
            raise serializers.ValidationError({"variant": f"There is no variant “{name}”."}, "does_not_exist")
        message = trying.send_test(
            campaign=campaign, phone=form.validated_data["phone"], variant=variant, now=timezone.now()
        )
        return Response({"message": message.pk, "device": message.device_id}, status=status.HTTP_201_CREATED)

    @extend_schema(responses=LaunchPreviewSerializer)
    @action(detail=True, methods=["get"], filterset_class=None)
    def preview(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Look before you launch: nothing is changed."""
        campaign, now = self.get_object(), timezone.now()
        seen = services.preview(campaign, now=now)
        body = {
            **_counts_of(seen),
            "problems": services.check(campaign=campaign, now=now),
            "finish_at": loads.before(campaign, now=now).finish_at if seen.eligible and seen.devices else None,
            "next_at": planning.coming(campaign, now=now),
        }
        return Response(LaunchPreviewSerializer(body).data)

    @extend_schema(
        parameters=[OpenApiParameter("lead", int, description="Id of a lead; else the first that would be reached.")],
        responses=ShownSerializer(many=True),
    )
    @action(detail=True, methods=["get"], filterset_class=None, pagination_class=None)
    def message(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What a lead would read, once for each variant."""
        campaign, lead = self.get_object(), None
        if asked := request.query_params.get("lead"):
            theirs = Lead.objects.changeable_by(request.user).filter(owner=campaign.owner_id)
            lead = theirs.filter(pk=asked).first() if asked.isascii() and asked.isdigit() and len(asked) < 19 else None
            if lead is None:
                raise serializers.ValidationError({"lead": f"{asked} does not exist."}, "does_not_exist")
        found = trying.show(campaign=campaign, lead=lead, now=timezone.now())
        return Response(ShownSerializer([asdict(each) for each in found], many=True).data)

    @extend_schema(responses=RunSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_class=None)
    def runs(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """This campaign's runs, newest first."""
        found = Run.objects.visible_to(request.user).filter(campaign=self.get_object()).select_related("batch")
        page = self.paginate_queryset(found) or []
        return self.get_paginated_response(shown(runs=page, context=self.get_serializer_context()))

    @extend_schema(request=AskedAudienceSerializer, responses=AudienceCountSerializer)
    @action(detail=False, methods=["post"], filterset_class=None, pagination_class=None)
    def count(self, request: Request) -> Response:
        """How many of your own leads such a campaign would reach now; nothing is saved."""
        asked = AskedAudienceSerializer(data=request.data, context=self.get_serializer_context())
        asked.is_valid(raise_exception=True)
        seen = services.preview(Campaign(owner=self.user, **asked.validated_data))
        return Response(AudienceCountSerializer(_counts_of(seen)).data)

    @extend_schema(parameters=[SpanSerializer], responses=SummarySerializer)
    @action(detail=False, methods=["get"], filterset_class=None, pagination_class=None)
    def summary(self, request: Request) -> Response:
        """Campaigns by state, and what the runs of a span of days have come to."""
        first, last, zone = days_asked(request)
        begins, ends = span(first=first, last=last, zone=zone)
        found = summary(user=request.user, begins=begins, ends=ends)
        return Response({**asdict(found), "messages": counts_shown(found.messages)})

    def _moved(self, campaign: Campaign, moved: bool, target: CampaignState) -> Response:
        """The campaign as it is now; being there already is fine, anything else is a conflict."""
        fresh = self.get_queryset().get(pk=campaign.pk)
        if not moved and fresh.state != target:
            raise Conflict(f"This campaign is “{fresh.get_state_display()}”, so this does not apply.", "wrong_state")
        return Response(self.get_serializer(fresh).data)


def _counts_of(seen: services.Preview) -> dict[str, Any]:
    names = ("total", "eligible", "left_out", "without_consent", "devices", "excluded", "unassigned")
    return {name: getattr(seen, name) for name in names}
