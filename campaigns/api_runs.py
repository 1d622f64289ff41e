"""Runs over REST: progress, reports, and what may be done to them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import django_filters  # type: ignore[import-untyped]
from django.conf import settings
from django.contrib.auth.models import User
from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns import calendar, reports, routing, schedules, services
from campaigns.api_fields import (
    AssignedSerializer,
    AssignSerializer,
    EntrySerializer,
    PartSerializer,
    ReportSerializer,
    RetriedOfRunSerializer,
    RetryOfRunSerializer,
    RunSerializer,
    SpanSerializer,
    UnassignedSerializer,
    counts_shown,
    shown,
)
from campaigns.models import Run, RunState, Unassigned
from devices.api_base import Conflict, OwnedViewSet
from devices.models import Device, Pool
from leads.api_fields import CsvRenderer, csv_response
from messaging.device_report_csv import device_lines
from messaging.models import BatchState


class RunFilter(django_filters.FilterSet):
    """Which runs to list."""

    state = django_filters.ChoiceFilter(choices=RunState.choices)
    campaign = django_filters.NumberFilter(field_name="campaign_id")

    class Meta:
        model = Run
        fields: list[str] = []


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

    @extend_schema(request=RetryOfRunSerializer, responses=RetriedOfRunSerializer)
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """A new round for what failed in this run, or on one of its devices, where trying again is sensible."""
        run = self.get_object()
        given = RetryOfRunSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        device = given.validated_data.get("device")
        return Response(asdict(services.retry_failed(run, now=timezone.now(), device_id=device)))

    @extend_schema(responses=ReportSerializer)
    @action(detail=True, methods=["get"], filterset_class=None)
    def report(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """How far it is, with its pace, its end, its replies and its variants."""
        found = reports.report(self.get_object(), now=timezone.now())
        body = {
            "progress": counts_shown(found.counts),
            "replied": found.replied,
            "per_minute": round(found.per_minute, 2),
            "finish_at": found.finish_at,
            "variants": [_part(part) for part in found.variants],
        }
        return Response(ReportSerializer(body).data)

    @extend_schema(responses=PartSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_class=None, pagination_class=None)
    def devices(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """How far each of its devices is, by name."""
        return Response([_part(part) for part in reports.by_device(self.get_object())])

    @extend_schema(operation_id="runs_devices_csv", responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(
        detail=True, methods=["get"], url_path="devices.csv", filterset_class=None, pagination_class=None,
        renderer_classes=[JSONRenderer, CsvRenderer],
    )  # fmt: skip
    def devices_csv(self, request: Request, pk: str) -> StreamingHttpResponse:  # noqa: ARG002 - DRF's signature
        """The same as a CSV; `/messages/export?of=run-{id}` has the leads."""
        run = self.get_object()
        return csv_response(device_lines(reports.lines(run)), filename=f"run-{run.pk}-devices.csv")

    @extend_schema(responses=UnassignedSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_class=None)
    def unassigned(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Leads of this run that no device took."""
        found = Unassigned.objects.filter(run=self.get_object()).select_related("lead")
        page = self.paginate_queryset(found) or []
        return self.get_paginated_response(UnassignedSerializer(page, many=True).data)

    @extend_schema(request=AssignSerializer, responses=AssignedSerializer)
    @action(detail=True, methods=["post"])
    def assign(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Give unassigned leads to a device, or to a pool's devices by turns."""
        run = self.get_object()
        form = AssignSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        made = routing.assign(
            run=run, devices=_chosen(self.user, run, form.validated_data), leads=form.validated_data.get("leads")
        )
        run.refresh_from_db(fields=["unassigned"])
        return Response({"messages": made, "unassigned": run.unassigned})

    @extend_schema(parameters=[SpanSerializer], responses=EntrySerializer(many=True))
    @action(detail=False, methods=["get"], filterset_class=None, pagination_class=None)
    def calendar(self, request: Request) -> Response:
        """Runs of a span of days, and the occurrences that are still to come."""
        first, last, zone = days_asked(request)
        found = calendar.entries(user=request.user, first=first, last=last, zone=zone, now=timezone.now())
        return Response(EntrySerializer(found, many=True).data)

    def _moved(self, run: Run, moved: bool, target: BatchState) -> Response:
        """The run as it is now; being there already is fine, anything else is a conflict."""
        fresh = self.get_queryset().get(pk=run.pk)
        if not moved and (fresh.batch is None or fresh.batch.state != target):
            where = fresh.batch.get_state_display() if fresh.batch else fresh.get_state_display()
            raise Conflict(f"This run is “{where}”, so this does not apply.", "wrong_state")
        return self._answer(fresh)

    def _answer(self, run: Run) -> Response:
        return Response(shown(runs=[run], context=self.get_serializer_context())[0])


def _chosen(user: User, run: Run, given: dict[str, Any]) -> list[Device]:
    """Raises ValidationError."""
    mine = Device.objects.changeable_by(user).filter(owner=run.campaign.owner_id).defer("credentials")
    if "device" in given:
        found = list(mine.filter(pk=given["device"]))
    else:
        pools = Pool.objects.changeable_by(user).filter(pk=given["pool"], owner=run.campaign.owner_id)
        found = list(mine.able().filter(pool__in=pools).order_by("pk"))
    if not found:
        field = "device" if "device" in given else "pool"
        text = "It does not exist, belongs to somebody else, or has no connected device."
        raise serializers.ValidationError({field: text}, "does_not_exist")
    return found


def _part(part: reports.Part) -> dict[str, Any]:
    return {"id": part.id, "name": part.name, "replied": part.replied, "progress": counts_shown(part.counts)}


def days_asked(request: Request) -> tuple[date, date, ZoneInfo]:
    """First and last day, and by whose clock. Raises ValidationError."""
    form = SpanSerializer(data=request.query_params)
    form.is_valid(raise_exception=True)
    given = form.validated_data
    try:
        zone = schedules.zone_of(given.get("time_zone") or settings.TIME_ZONE)
    except schedules.ScheduleProblem as problem:
        raise serializers.ValidationError({"time_zone": str(problem)}, "invalid") from None
    today = timezone.now().astimezone(zone).date()
    first = given.get("first") or today - timedelta(days=7)
    last = given.get("last") or max(first, today) + timedelta(days=21)
    if last < first or (last - first).days >= calendar.MOST_DAYS:
        text = f"Give a last day that is not before the first, and at most {calendar.MOST_DAYS} days in all."
        raise serializers.ValidationError({"last": text}, "invalid")
    return first, last, zone
