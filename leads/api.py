"""Leads over REST, and all of them as a CSV. Their imports are in :mod:`leads.api_imports`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.conf import settings
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from devices.api_base import OwnedSerializer, OwnedViewSet
from leads import changes, consent, optout, services
from leads.api_consent import API, ConsentActions
from leads.api_fields import CsvRenderer, RegionField, csv_response
from leads.api_segments import visible_segment
from leads.cells import clean_tags
from leads.exports import lead_lines
from leads.models import Lead, LeadStatus
from leads.phones import PhoneProblem, parse_phone
from leads.searching import named
from leads.segments import narrowed


class LeadSerializer(OwnedSerializer):
    """One person. Posting a number that is there already merges into it."""

    unchecked_on_create = frozenset({"phone"})

    region = RegionField(write_only=True, required=False)
    phone = serializers.CharField(max_length=40, help_text="In any common form; returned as +60123456789.")
    custom = serializers.DictField(required=False, help_text="Your own fields, usable in messages.")

    class Meta:
        model = Lead
        fields = [
            "id", "owner", "phone", "region", "name", "status", "niches", "triggers", "notes", "custom", "device",
            "consent_at", "consent_source", "opted_out_at", "review_at", "time_zone", "created_at", "updated_at",
        ]  # fmt: skip
        read_only_fields = ["owner", "opted_out_at", "review_at", "created_at", "updated_at"]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Bring the number into its one form, and date the consent."""
        region = attrs.pop("region", settings.FLOTILLA_DEFAULT_REGION)
        if "phone" in attrs:
            try:
                attrs["phone"] = parse_phone(attrs["phone"], region=region)
            except PhoneProblem as problem:
                raise serializers.ValidationError({"phone": problem.text}, problem.code) from None
        has_consent = attrs.get("consent_at") or getattr(self.instance, "consent_at", None)
        if attrs.get("consent_source") and not has_consent:
            attrs["consent_at"] = timezone.now()
        for tags in ("niches", "triggers"):
            if tags in attrs:
                attrs[tags] = list(clean_tags(tuple(attrs[tags])))
        return super().validate(attrs)


class LeadFilter(django_filters.FilterSet):
    """Which leads to list. Tags match exactly."""

    status = django_filters.ChoiceFilter(choices=LeadStatus.choices)
    niche = django_filters.CharFilter(field_name="niches", method="with_tag", label="One exact niche tag.")
    trigger = django_filters.CharFilter(field_name="triggers", method="with_tag", label="One exact trigger tag.")
    name = django_filters.CharFilter(method="with_name", label="Beginnings of words of the name, in any order.")
    phone = django_filters.CharFilter(method="with_phone", label="The whole number, in any common form.")
    device = django_filters.NumberFilter(field_name="device_id")
    opted_out = django_filters.BooleanFilter(field_name="opted_out_at", lookup_expr="isnull", exclude=True)
    in_review = django_filters.BooleanFilter(field_name="review_at", lookup_expr="isnull", exclude=True)
    segment = django_filters.NumberFilter(
        field_name="pk", method="in_segment", min_value=1, max_value=2**63 - 1, label="Those of one segment."
    )

    class Meta:
        model = Lead
        fields: list[str] = []

    def with_tag(self, queryset: QuerySet[Lead], name: str, value: str) -> QuerySet[Lead]:
        """Index lead_niches or lead_triggers."""
        return queryset.filter(**{f"{name}__contains": [value]})

    def with_name(self, queryset: QuerySet[Lead], name: str, value: str) -> QuerySet[Lead]:  # noqa: ARG002
        """Index lead_name_words."""
        return named(queryset, value)

    def in_segment(self, queryset: QuerySet[Lead], name: str, value: Decimal) -> QuerySet[Lead]:  # noqa: ARG002
        """Those who match the segment now."""
        segment = visible_segment(user=self.request.user, segment_id=int(value))
        return narrowed(queryset, segment=segment, now=timezone.now())

    def with_phone(self, queryset: QuerySet[Lead], name: str, value: str) -> QuerySet[Lead]:  # noqa: ARG002
        """A plus that was not encoded arrives as a space, and is stripped: such a number still counts as whole."""
        for candidate in (value, f"+{value}"):
            try:
                phone = parse_phone(candidate, region=settings.FLOTILLA_DEFAULT_REGION)
            except PhoneProblem:
                continue
            found = queryset.filter(phone=phone)
            if found.exists():
                return found
        return queryset.none()


@extend_schema_view(
    create=extend_schema(
        responses={201: LeadSerializer, 200: OpenApiResponse(LeadSerializer, "The number was there: merged into it.")}
    )
)
class LeadViewSet(
    ConsentActions, OwnedViewSet, mixins.CreateModelMixin, mixins.UpdateModelMixin, mixins.DestroyModelMixin,
    mixins.RetrieveModelMixin, mixins.ListModelMixin,
):  # fmt: skip
    """People who may be written to."""

    queryset = Lead.objects.all()
    serializer_class = LeadSerializer
    filterset_class = LeadFilter

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """Create a lead, or merge into the one with this number: empty fields are filled, tags are added."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        given = serializer.validated_data
        with changes.noted(
            owner_id=self.user.pk, phone=given["phone"], channel=changes.Channel.API, now=timezone.now(), by=self.user
        ):
            lead, created = services.upsert_lead(owner=self.user, region=settings.FLOTILLA_DEFAULT_REGION, **given)
        return Response(
            self.get_serializer(lead).data,
            status=status.HTTP_201_CREATED if created else status.HTTP_200_OK,
            headers={"Location": reverse("lead-detail", [lead.pk], request=request)},
        )

    def perform_update(self, serializer: Any) -> None:
        """What they agreed to before is kept, and a number that is suppressed stays so."""
        lead, now = serializer.instance, timezone.now()
        with (
            consent.editing(lead=lead, channel=API, now=now, by=self.user),
            changes.noted_edit(lead=lead, channel=changes.Channel.API, now=now, by=self.user),
        ):
            serializer.save()

    def perform_destroy(self, instance: Lead) -> None:
        """A refusal outlives the row: deleted and imported again, this person is not written to."""
        optout.delete_lead(lead=instance, now=timezone.now())

    @extend_schema(responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(detail=False, methods=["get"], pagination_class=None, renderer_classes=[JSONRenderer, CsvRenderer])
    def export(self, request: Request) -> StreamingHttpResponse:  # noqa: ARG002 - DRF's signature
        """Every lead that matches the filters, as a CSV that an import takes in again. Cells that a spreadsheet would
        take for formulas, phone numbers among them, begin with an apostrophe."""
        return csv_response(lead_lines(self.filter_queryset(self.get_queryset())), filename="leads.csv")
