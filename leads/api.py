"""Leads and their imports over REST."""

from __future__ import annotations

from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import (
    OpenApiResponse,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from devices.api_base import Conflict, OwnedRelation, OwnedSerializer, OwnedViewSet
from devices.models import Device
from leads import services, tasks
from leads.cells import clean_tags
from leads.models import Lead, LeadImport, LeadImportProblem, LeadStatus
from leads.phones import PhoneProblem, known_region, parse_phone


class RegionField(serializers.CharField):
    """A country as two letters, for numbers written without a country code."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("help_text", "Country of numbers written without a country code, as MY.")
        super().__init__(min_length=2, max_length=2, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Upper case, and one that exists."""
        region = super().to_internal_value(data).upper()
        if not known_region(region):
            raise serializers.ValidationError(
                f"“{region}” is not a country code; use two letters, as MY.", "bad_region"
            )
        return region


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
            "consent_at", "consent_source", "opted_out_at", "created_at", "updated_at",
        ]  # fmt: skip
        read_only_fields = ["owner", "opted_out_at", "created_at", "updated_at"]

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
    phone = django_filters.CharFilter(method="with_phone", label="The whole number, in any common form.")
    device = django_filters.NumberFilter(field_name="device_id")
    opted_out = django_filters.BooleanFilter(field_name="opted_out_at", lookup_expr="isnull", exclude=True)

    class Meta:
        model = Lead
        fields: list[str] = []

    def with_tag(self, queryset: QuerySet[Lead], name: str, value: str) -> QuerySet[Lead]:
        """Index lead_niches or lead_triggers."""
        return queryset.filter(**{f"{name}__contains": [value]})

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
    OwnedViewSet, mixins.CreateModelMixin, mixins.UpdateModelMixin, mixins.DestroyModelMixin,
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
        lead, created = services.upsert_lead(
            owner=self.user, region=settings.FLOTILLA_DEFAULT_REGION, **serializer.validated_data
        )
        return Response(
            self.get_serializer(lead).data,
            status=status.HTTP_201_CREATED if created else status.HTTP_200_OK,
            headers={"Location": reverse("lead-detail", [lead.pk], request=request)},
        )

    def perform_destroy(self, instance: Lead) -> None:
        """A refusal must outlive a tidy-up: deleted and imported again, this person would be written to."""
        with transaction.atomic():
            if Lead.objects.select_for_update().filter(pk=instance.pk, opted_out_at__isnull=False).exists():
                raise Conflict("This lead opted out. Its row keeps that on record, so it stays.", "opted_out")
            instance.delete()


# -- imports -----------------------------------------------------------------------------------------------------------


@extend_schema_field(serializers.ChoiceField(choices=LeadImport.State.choices), component_name="ImportState")
class ImportStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


class LeadImportSerializer(serializers.ModelSerializer[LeadImport]):
    """How far an import is."""

    state = ImportStateField(choices=LeadImport.State.choices, read_only=True)

    class Meta:
        model = LeadImport
        fields = [
            "id", "owner", "filename", "region", "consent_source", "device", "state", "error", "rows_done",
            "rows_total", "accepted", "merged", "rejected", "created_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class ReasonSerializer(serializers.Serializer[services.Reason]):
    """Why rows were rejected."""

    code = serializers.CharField()
    count = serializers.IntegerField()
    examples = serializers.SerializerMethodField(help_text="The first of them.")

    @extend_schema_field(
        inline_serializer(
            "ReasonExample", {"row_number": serializers.IntegerField(), "message": serializers.CharField()}, many=True
        )
    )
    def get_examples(self, reason: services.Reason) -> list[dict[str, Any]]:
        """Row numbers with what is wrong there."""
        return [{"row_number": number, "message": message} for number, message in reason.examples]


class LeadImportDetailSerializer(LeadImportSerializer):
    """An import with the reasons of its rejected rows."""

    reasons = serializers.SerializerMethodField(help_text="Most frequent first; each row is under problems.")

    class Meta(LeadImportSerializer.Meta):
        fields = [*LeadImportSerializer.Meta.fields, "reasons"]
        read_only_fields = fields

    @extend_schema_field(ReasonSerializer(many=True))
    def get_reasons(self, lead_import: LeadImport) -> list[dict[str, Any]]:
        """Grouped by code."""
        reasons: Any = services.summary(lead_import).reasons
        return list(ReasonSerializer(reasons, many=True).data)


class NewImportSerializer(serializers.Serializer[Any]):
    """A file of leads and what to know about it."""

    file = serializers.FileField(max_length=255, help_text="CSV with a header; name and phone at least.")
    region = RegionField(required=False)
    consent_source = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=200,
        help_text="Where and how these people agreed. Without it none of the new ones can be written to in bulk.",
    )  # fmt: skip
    device = OwnedRelation(queryset=Device.objects.all(), required=False, allow_null=True, default=None)


class LeadImportProblemSerializer(serializers.ModelSerializer[LeadImportProblem]):
    """One row that could not be taken."""

    values = serializers.DictField(read_only=True, help_text="The row as it was in the file.")

    class Meta:
        model = LeadImportProblem
        fields = ["row_number", "field", "code", "message", "values"]
        read_only_fields = fields


class LeadImportFilter(django_filters.FilterSet):
    """Which imports to list."""

    state = django_filters.ChoiceFilter(choices=LeadImport.State.choices)

    class Meta:
        model = LeadImport
        fields: list[str] = []


class LeadImportViewSet(OwnedViewSet, mixins.RetrieveModelMixin, mixins.ListModelMixin):
    """Files of leads on their way in."""

    queryset = LeadImport.objects.all()
    filterset_class = LeadImportFilter
    parser_classes = [MultiPartParser]

    def get_serializer_class(self) -> type[LeadImportSerializer]:
        """Lists leave out what costs queries for each."""
        return LeadImportSerializer if self.action == "list" else LeadImportDetailSerializer

    @extend_schema(request={"multipart/form-data": NewImportSerializer}, responses={202: LeadImportDetailSerializer})
    def create(self, request: Request) -> Response:
        """Take a file. It is read in the background; ask for the import to see how far it is."""
        given = NewImportSerializer(data=request.data, context=self.get_serializer_context())
        given.is_valid(raise_exception=True)
        values = given.validated_data
        with transaction.atomic():
            lead_import = services.create_import(
                owner=self.user,
                file=values["file"],
                filename=values["file"].name,
                region=values.get("region", settings.FLOTILLA_DEFAULT_REGION),
                consent_source=values["consent_source"],
                device=values["device"],
            )
            # robust: with the broker down the file is accepted all the same, and the tick that resumes imports takes it
            transaction.on_commit(lambda: tasks.run_import.delay(import_id=lead_import.pk), robust=True)
        return Response(
            self.get_serializer(lead_import).data,
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": reverse("lead-import-detail", [lead_import.pk], request=request)},
        )

    @extend_schema(responses=LeadImportProblemSerializer(many=True))
    @action(detail=True, methods=["get"], cursor_ordering="row_number", filterset_class=None)
    def problems(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Rows that were rejected and why, in the order of the file."""
        found = LeadImportProblem.objects.visible_to(request.user).filter(lead_import=self.get_object())
        page = self.paginate_queryset(found)
        return self.get_paginated_response(LeadImportProblemSerializer(page, many=True).data)
