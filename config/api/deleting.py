"""Deleting devices, leads and files over REST: every app has something that hangs on them, so it is said up here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from config import deleting
from devices.api import DeviceViewSet
from leads.api import LeadViewSet
from messaging.api_media import MediaViewSet

DRY_RUN = OpenApiParameter("dry_run", bool, description="Only say what would go; nothing is deleted.")


class _Asked(serializers.Serializer[Any]):
    dry_run = serializers.BooleanField(default=False)
    leads = serializers.ChoiceField(choices=["keep", "delete"], default="keep")
    expect = serializers.IntegerField(min_value=0, required=False)


class DeviceHoldsSerializer(serializers.Serializer[Any]):
    """What hung on the device."""

    leads = serializers.IntegerField(help_text="Leads that have it as their own.")
    messages = serializers.IntegerField(help_text="They go, with their attempts.")
    waiting = serializers.IntegerField(help_text="How many of them had not left.")
    replies = serializers.IntegerField(help_text="They go.")
    dry_run = serializers.BooleanField()


class LeadHoldsSerializer(serializers.Serializer[Any]):
    """What hung on the lead."""

    messages = serializers.IntegerField(help_text="They stay in the counts, without a lead.")
    waiting = serializers.IntegerField(help_text="How many of them had not left.")
    replies = serializers.IntegerField(help_text="They stay.")
    enrolments = serializers.IntegerField(help_text="Places in sequences: they go.")
    consent = serializers.IntegerField(help_text="Entries of the consent history: they go; a refusal stays, as a hash.")
    changes = serializers.IntegerField(help_text="Entries of the history of changes: they go.")
    dry_run = serializers.BooleanField()


def _asked(request: Request) -> dict[str, Any]:
    asked = _Asked(data=request.query_params)
    asked.is_valid(raise_exception=True)
    return asked.validated_data


class DeviceEndpoint(DeviceViewSet):
    """Senders. Reading one never touches its credentials."""

    @extend_schema(
        parameters=[
            DRY_RUN,
            OpenApiParameter("expect", int, description="How many messages go; needed where there are any."),
            OpenApiParameter("leads", str, enum=["keep", "delete"], description="What becomes of its leads (keep)."),
        ],
        responses={200: DeviceHoldsSerializer},
    )
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """Delete the device with its messages and replies, in one transaction; says how many."""
        asked, device = _asked(request), self.get_object()
        if asked["dry_run"]:
            told = deleting.device_holds(device)
        else:
            told = deleting.delete_device(
                device=device,
                expect=asked.get("expect"),
                with_leads=asked["leads"] == "delete",
                by=self.user,
                now=timezone.now(),
            )
        return Response({**asdict(told), "dry_run": asked["dry_run"]})


class LeadEndpoint(LeadViewSet):
    """People who may be written to."""

    @extend_schema(parameters=[DRY_RUN], responses={200: LeadHoldsSerializer})
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """Delete the lead with its history; says what went and what stays. A refusal outlives it."""
        asked, lead = _asked(request), self.get_object()
        told = deleting.lead_holds(lead) if asked["dry_run"] else deleting.delete_lead(lead=lead, now=timezone.now())
        return Response({**asdict(told), "dry_run": asked["dry_run"]})


class MediaEndpoint(MediaViewSet):
    """Attachments, newest first. What was stored never changes."""

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """Delete the file, once no campaign, no step and no waiting message names it; what was sent stays sent."""
        deleting.delete_media(media=self.get_object(), by=self.user)
        return Response(status=status.HTTP_204_NO_CONTENT)
