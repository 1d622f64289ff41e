"""Files of leads over REST: hand one in, look at it, let it be imported, see what became of each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import django_filters  # type: ignore[import-untyped]
from django.conf import settings
from django.db import transaction
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field, inline_serializer
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from devices.api_base import Conflict, OwnedRelation, OwnedViewSet
from devices.models import Device
from leads import drafts, services, tasks
from leads.api_fields import CsvRenderer, RegionField, csv_response
from leads.columns import COLUMNS_MOST, FIELDS, ImportRefused
from leads.exports import problem_lines
from leads.models import LeadImport, LeadImportProblem

_Found = TypeVar("_Found")


@extend_schema_field(serializers.ChoiceField(choices=LeadImport.State.choices), component_name="ImportState")
class ImportStateField(serializers.ChoiceField):
    """The state as one named set in the description of the API."""


class LeadImportSerializer(serializers.ModelSerializer[LeadImport]):
    """How far an import is."""

    state = ImportStateField(choices=LeadImport.State.choices, read_only=True)
    duplicates = serializers.ChoiceField(choices=LeadImport.Duplicates.choices, read_only=True)
    mapping = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = LeadImport
        fields = [
            "id", "owner", "filename", "region", "consent_source", "device", "duplicates", "mapping", "dry_run",
            "state", "error", "rows_done", "rows_total", "accepted", "merged", "skipped", "rejected", "created_at",
            "finished_at",
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


class SettingsSerializer(serializers.Serializer[Any]):
    """What to know about a file. In a confirmation, what is left out stays as it is."""

    region = RegionField(required=False)
    consent_source = serializers.CharField(
        required=False, allow_blank=True, max_length=200,
        help_text="Where and how these people agreed. Without it none of the new ones can be written to in bulk.",
    )  # fmt: skip
    device = OwnedRelation(queryset=Device.objects.all(), required=False, allow_null=True)
    duplicates = serializers.ChoiceField(
        choices=LeadImport.Duplicates.choices, required=False,
        help_text="What happens to people who are there already, or are in the file twice.",
    )  # fmt: skip
    mapping = serializers.ListField(
        child=serializers.CharField(max_length=80), required=False, max_length=COLUMNS_MOST,
        help_text=f"What each column means, in their order: {', '.join(FIELDS)}, skip, or custom. and a name.",
    )  # fmt: skip
    dry_run = serializers.BooleanField(
        required=False, default=False, help_text="Only count, and find what is wrong; write no lead."
    )


class NewImportSerializer(SettingsSerializer):
    """A file of leads and what to know about it."""

    file = serializers.FileField(max_length=255, help_text="CSV or .xlsx with a header; a phone column at least.")
    draft = serializers.BooleanField(
        required=False, default=False, help_text="Wait for a confirmation; see preview meanwhile."
    )


class TrialSerializer(serializers.Serializer[Any]):
    """Settings to look at a file with, without keeping them."""

    region = RegionField(required=False)
    duplicates = serializers.ChoiceField(choices=LeadImport.Duplicates.choices, required=False)
    mapping = serializers.ListField(child=serializers.CharField(max_length=80), required=False, max_length=COLUMNS_MOST)


class ColumnSerializer(serializers.Serializer[Any]):
    """One column and what it is taken for."""

    position = serializers.IntegerField()
    title = serializers.CharField()
    field = serializers.CharField(help_text="An entry of a mapping.")
    samples = serializers.ListField(child=serializers.CharField(), help_text="Its first cells that say anything.")


class RowSeenSerializer(serializers.Serializer[Any]):
    """One of the first rows."""

    row_number = serializers.IntegerField()
    outcome = serializers.ChoiceField(choices=["new", "merged", "skipped", "overwritten", "rejected"])
    phone = serializers.CharField()
    name = serializers.CharField()
    message = serializers.CharField(help_text="Why it would be rejected, and what to do.")
    values = serializers.DictField(help_text="The row as it is in the file.")


class ImportPreviewSerializer(serializers.Serializer[Any]):
    """What a file would become."""

    columns = ColumnSerializer(many=True)
    rows = RowSeenSerializer(many=True)
    problem = serializers.CharField(help_text="Why the file has no leads as long as its columns mean this.")


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
        """Take a file. It is read in the background, a draft once it is confirmed; ask for the import to see how far it
        is."""
        given = NewImportSerializer(data=request.data, context=self.get_serializer_context())
        given.is_valid(raise_exception=True)
        values = {"region": settings.FLOTILLA_DEFAULT_REGION, "consent_source": "", **given.validated_data}
        with transaction.atomic():
            lead_import = services.create_import(owner=self.user, filename=values["file"].name, **values)
            if not values["draft"]:
                _hand_over(lead_import)
        return Response(
            self.get_serializer(lead_import).data,
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": reverse("lead-import-detail", [lead_import.pk], request=request)},
        )

    @extend_schema(responses=ImportPreviewSerializer)
    @action(detail=True, methods=["get"], pagination_class=None, filterset_class=None, parser_classes=[JSONParser])
    def preview(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What each column is taken for, and what the first rows would become. Nothing is written."""
        return Response(ImportPreviewSerializer(_previewed(self.get_object())).data)

    @extend_schema(request=TrialSerializer, responses=ImportPreviewSerializer)
    @preview.mapping.post
    def try_preview(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """The same with other settings, which are not kept."""
        given = TrialSerializer(data=request.data, context=self.get_serializer_context())
        given.is_valid(raise_exception=True)
        return Response(ImportPreviewSerializer(_previewed(self.get_object(), **given.validated_data)).data)

    @extend_schema(request=SettingsSerializer, responses={202: LeadImportDetailSerializer})
    @action(detail=True, methods=["post"], pagination_class=None, filterset_class=None, parser_classes=[JSONParser])
    def confirm(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Let a draft be imported, or a file that a dry run has looked at."""
        lead_import = self.get_object()
        given = SettingsSerializer(data=request.data, context=self.get_serializer_context())
        given.is_valid(raise_exception=True)
        with transaction.atomic():
            lead_import = _at_its_field(lambda: drafts.confirm(lead_import=lead_import, **given.validated_data))
            _hand_over(lead_import)
        return Response(self.get_serializer(lead_import).data, status=status.HTTP_202_ACCEPTED)

    @extend_schema(responses=LeadImportProblemSerializer(many=True))
    @action(detail=True, methods=["get"], cursor_ordering="row_number", filterset_class=None)
    def problems(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Rows that were rejected and why, in the order of the file."""
        found = LeadImportProblem.objects.visible_to(request.user).filter(lead_import=self.get_object())
        page = self.paginate_queryset(found)
        return self.get_paginated_response(LeadImportProblemSerializer(page, many=True).data)

    @extend_schema(operation_id="leads_imports_problems_csv", responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(
        detail=True, methods=["get"], url_path="problems.csv", pagination_class=None, filterset_class=None,
        renderer_classes=[JSONRenderer, CsvRenderer],
    )  # fmt: skip
    def problems_csv(self, request: Request, pk: str) -> StreamingHttpResponse:  # noqa: ARG002 - DRF's signature
        """Rows that were rejected, as a CSV to mend and hand in again."""
        lead_import = self.get_object()
        return csv_response(problem_lines(lead_import), filename=f"import-{lead_import.pk}-problems.csv")


def _hand_over(lead_import: LeadImport) -> None:
    """To a worker, after the commit. Robust: with the broker down the file is accepted all the same, and the tick that
    resumes imports takes it."""
    transaction.on_commit(lambda: tasks.run_import.delay(import_id=lead_import.pk), robust=True)


def _previewed(lead_import: LeadImport, **given: Any) -> drafts.Preview:
    return _at_its_field(lambda: drafts.preview(lead_import, **given))


def _at_its_field(work: Callable[[], _Found]) -> _Found:
    """``work()``, its refusal said at the field that causes it."""
    try:
        return work()
    except ImportRefused as refusal:
        if not refusal.field:
            raise Conflict(refusal.text, refusal.code) from None
        raise serializers.ValidationError({refusal.field: refusal.text}, refusal.code) from None
