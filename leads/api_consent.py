"""Refusing, agreeing again, reviewing and the history of both over REST; and the admins' waivers of consent."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devices.access import Role, role_of
from devices.api_base import Conflict, OwnedViewSet
from leads import consent, optout
from leads.models import ConsentEvent, ConsentWaiver, Lead

API = ConsentEvent.Channel.API
ACCEPT, DISMISS = "accept", "dismiss"


class LeadConsentSerializer(serializers.Serializer[Lead]):
    """Where a lead stands after it refused, agreed or was reviewed."""

    id = serializers.IntegerField()
    phone = serializers.CharField()
    consent_at = serializers.DateTimeField(allow_null=True)
    consent_source = serializers.CharField()
    opted_out_at = serializers.DateTimeField(allow_null=True)
    review_at = serializers.DateTimeField(allow_null=True)


class OptOutSerializer(serializers.Serializer[Any]):
    """How they refused."""

    source = serializers.CharField(  # type: ignore[assignment]
        required=False,
        allow_blank=True,
        default="",
        max_length=optout.REPLY_LENGTH,
        help_text="Where and how, as “by telephone”.",
    )


class OptInSerializer(serializers.Serializer[Any]):
    """How they agreed again; without it there is nothing to show to anybody who asks."""

    source = serializers.CharField(  # type: ignore[assignment]
        max_length=optout.REPLY_LENGTH, help_text="Where and how, as “shop counter”."
    )


class ReviewSerializer(serializers.Serializer[Any]):
    """What a person made of what the lead wrote."""

    decision = serializers.ChoiceField(
        choices=[(ACCEPT, "It is a refusal"), (DISMISS, "It is none")],
        help_text="accept: it is a refusal. dismiss: it is none, go on.",
    )


class ConsentEntrySerializer(serializers.Serializer[consent.Entry]):
    """One line of a lead's history."""

    kind = serializers.CharField()
    channel = serializers.CharField()
    source = serializers.CharField(  # type: ignore[assignment]
        help_text="Where and how, or what they wrote."
    )
    happened_at = serializers.DateTimeField()
    by = serializers.CharField(help_text="User name, where a person did it.")


class ConsentActions:
    """Actions of the leads' own view set."""

    @extend_schema(request=OptOutSerializer, responses=LeadConsentSerializer)
    @action(detail=True, methods=["post"], url_path="opt-out")
    def opt_out(self: Any, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """They refuse. From this answer on nothing is claimed for them; calling it again changes nothing."""
        lead, given = _asked(self, OptOutSerializer)
        optout.opt_out(lead=lead, channel=API, now=timezone.now(), by=self.user, source=given["source"])
        return Response(LeadConsentSerializer(lead).data)

    @extend_schema(request=OptInSerializer, responses=LeadConsentSerializer)
    @action(detail=True, methods=["post"], url_path="opt-in")
    def opt_in(self: Any, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """They agree again: lifts opt-out, suppression and review, and is kept as their consent."""
        lead, given = _asked(self, OptInSerializer)
        optout.opt_in(lead=lead, channel=API, now=timezone.now(), by=self.user, source=given["source"])
        return Response(LeadConsentSerializer(lead).data)

    @extend_schema(request=ReviewSerializer, responses=LeadConsentSerializer)
    @action(detail=True, methods=["post"])
    def review(self: Any, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Decide about a lead that is held because of what it wrote."""
        lead, given = _asked(self, ReviewSerializer)
        if lead.review_at is None:
            raise Conflict("This lead is not held for review.", "not_in_review")
        if given["decision"] == ACCEPT:
            optout.opt_out(lead=lead, channel=API, now=timezone.now(), by=self.user, source="Review")
        else:
            optout.dismiss_review(lead=lead, channel=API, now=timezone.now(), by=self.user)
        return Response(LeadConsentSerializer(lead).data)

    @extend_schema(responses=ConsentEntrySerializer(many=True), filters=False)
    @action(detail=True, methods=["get"], filterset_class=None, pagination_class=None)
    def consent(self: Any, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Where, when and how they agreed and refused, newest first."""
        entries: Any = consent.history(self.get_object())
        return Response(ConsentEntrySerializer(entries, many=True).data)


def _asked(view: OwnedViewSet, form: type[serializers.Serializer[Any]]) -> tuple[Lead, dict[str, Any]]:
    """The lead, which comes first so that somebody else's is not found, and what was said about it."""
    lead: Lead = view.get_object()
    given = form(data=view.request.data)
    given.is_valid(raise_exception=True)
    return lead, given.validated_data


# -- Waivers -----------------------------------------------------------------------------------------------------------


class WaiverPermission(BasePermission):
    """Whoever may see one may read it; only admins decide."""

    message = "Only admins may let bulk sends do without recorded consent."

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002 - DRF's signature
        role = role_of(request.user)
        return role is Role.ADMIN or (role is not None and request.method in SAFE_METHODS)


class WaiverSerializer(serializers.ModelSerializer[ConsentWaiver]):
    """A decision that bulk sends may go to leads without recorded consent, and who took it."""

    class Meta:
        model = ConsentWaiver
        fields = ["id", "owner", "reason", "made_at", "made_by", "ended_at", "ended_by"]
        read_only_fields = fields


class NewWaiverSerializer(serializers.Serializer[Any]):
    """For whose leads, and on what ground."""

    leads_of = serializers.PrimaryKeyRelatedField(
        queryset=User.objects.all(),
        required=False,
        allow_null=True,
        default=None,
        help_text="Empty: everybody's leads.",
    )
    reason = serializers.CharField(max_length=300)


class WaiversView(APIView):
    """Waivers of consent, those that ended included."""

    permission_classes = [WaiverPermission]

    @extend_schema(operation_id="consent_waivers", responses=WaiverSerializer(many=True))
    def get(self, request: Request) -> Response:
        """The latest hundred that concern the caller."""
        found = ConsentWaiver.objects.visible_to(request.user)[:100]
        return Response(WaiverSerializer(found, many=True).data)

    @extend_schema(operation_id="consent_waive", request=NewWaiverSerializer, responses={201: WaiverSerializer})
    def post(self, request: Request) -> Response:
        """Let bulk sends go to leads without recorded consent. Opt-outs hold all the same."""
        given = NewWaiverSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        try:
            waiver = consent.waive(
                owner=given.validated_data["leads_of"],
                reason=given.validated_data["reason"],
                by=cast("User", request.user),
                now=timezone.now(),
            )
        except consent.WaiverRefused as refused:
            field = "leads_of" if refused.field == "owner" else refused.field
            raise serializers.ValidationError({field: refused.text}, refused.code) from None
        return Response(WaiverSerializer(waiver).data, status=status.HTTP_201_CREATED)


class WaiverView(APIView):
    """One waiver of consent."""

    permission_classes = [WaiverPermission]

    @extend_schema(operation_id="consent_waiver_end", responses={200: WaiverSerializer})
    def delete(self, request: Request, pk: int) -> Response:
        """End it; the row stays. Ended already is fine."""
        waiver = get_object_or_404(ConsentWaiver.objects.changeable_by(request.user), pk=pk)
        consent.end_waiver(waiver=waiver, by=cast("User", request.user), now=timezone.now())
        waiver.refresh_from_db()
        return Response(WaiverSerializer(waiver).data)
