"""Sequences and enrolments over REST."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.db import transaction
from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from devices.api_base import Conflict, OwnedSerializer, OwnedViewSet
from leads.api_fields import CsvRenderer, csv_response
from leads.models import Lead
from messaging.device_report import lines_of
from messaging.device_report_csv import device_lines
from sequences import editing, entry, exits, groups, progress, services
from sequences.api_words import (
    AppliedSerializer,
    EditPreviewSerializer,
    EnrolmentStateField,
    EnteredSerializer,
    EntrySourceField,
    RetriedStepsSerializer,
    SequenceProgressSerializer,
    SequenceStateField,
    StepSerializer,
    VersionSerializer,
)
from sequences.models import Enrolment, EnrolmentState, EntrySource, Sequence, SequenceState, StepVersion


class SequenceSerializer(OwnedSerializer):
    """Messages that follow one another. ``steps`` is the draft: what is sent changes when it is applied."""

    state = SequenceStateField(choices=SequenceState.choices, read_only=True)
    steps = StepSerializer(many=True, required=False, help_text="All of them, in their order; the list is replaced.")
    version = serializers.SerializerMethodField(help_text="Of the steps in force; null while there are none.")

    class Meta:
        model = Sequence
        fields = [
            "id", "owner", "name", "state", "trigger", "re_entry", "goal", "exit_on_reply", "on_failure", "late_hours",
            "time_zone", "next_sequence", "delay_min_seconds", "delay_max_seconds", "steps", "version", "created_at",
        ]  # fmt: skip
        read_only_fields = ["owner", "created_at"]

    def get_version(self, sequence: Sequence) -> int | None:
        """Not by ``source``: where there is none, a PATCH's answer would leave the field out."""
        return sequence.version.number if sequence.version is not None else None

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The row by itself, then its steps as they would stand."""
        steps = attrs.pop("steps", None)
        super().validate(attrs)
        return attrs if steps is None else {**attrs, "steps": steps}

    def create(self, validated_data: dict[str, Any]) -> Sequence:
        """With its steps, or not at all."""
        steps = validated_data.pop("steps", [])
        with transaction.atomic():
            made: Sequence = super().create(validated_data)
            editing.replace_steps(sequence=made, steps=steps)
        return made

    def update(self, instance: Any, validated_data: dict[str, Any]) -> Any:
        """The same; steps that are named by their key keep their place in the lives of leads."""
        steps = validated_data.pop("steps", None)
        with transaction.atomic():
            super().update(instance, validated_data)
            if steps is not None:
                editing.replace_steps(sequence=instance, steps=steps)
        instance._prefetched_objects_cache = {}  # noqa: SLF001 - the steps are others now
        return instance


class EnrolmentSerializer(serializers.ModelSerializer[Enrolment]):
    """One lead in one sequence. Needs ``places`` in the context: positions of steps by (version, key)."""

    state = EnrolmentStateField(choices=EnrolmentState.choices, read_only=True)
    source = EntrySourceField(  # type: ignore[assignment]
        choices=EntrySource.choices, read_only=True, help_text="How the lead came in."
    )
    next_step = serializers.SerializerMethodField(help_text="Position of the step ahead.")

    class Meta:
        model = Enrolment
        fields = [
            "id", "sequence", "lead", "state", "code", "reason", "source", "next_step", "due_at", "message",
            "enrolled_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_next_step(self, enrolment: Enrolment) -> int | None:
        """None at the end."""
        places: Mapping[tuple[int | None, int | None], int] = self.context["places"]
        return places.get((enrolment.sequence.version_id, enrolment.next_key))


class EnrolSerializer(serializers.Serializer[Any]):
    """Whom to let in."""

    leads = serializers.ListField(child=serializers.IntegerField(min_value=1), min_length=1, max_length=10_000)


class ApplySerializer(serializers.Serializer[Any]):
    """Which draft to apply."""

    digest = serializers.CharField(max_length=64, help_text="From the preview: nothing else is applied.")


class RetryStepSerializer(serializers.Serializer[Any]):
    """Which failed step to send again."""

    step = serializers.IntegerField(required=False, min_value=1, help_text="Its key. Empty: every step.")
    device = serializers.IntegerField(required=False, min_value=1, help_text="Those of one device. Empty: all.")


class SequenceFilter(django_filters.FilterSet):
    """Which sequences to list."""

    state = django_filters.ChoiceFilter(choices=SequenceState.choices)
    trigger = django_filters.CharFilter()

    class Meta:
        model = Sequence
        fields: list[str] = []


class EnrolmentFilter(django_filters.FilterSet):
    """Which enrolments to list."""

    sequence = django_filters.NumberFilter(field_name="sequence_id")
    lead = django_filters.NumberFilter(field_name="lead_id")
    state = django_filters.MultipleChoiceFilter(choices=EnrolmentState.choices, label="May be given several times.")
    code = django_filters.CharFilter(label="Of the reason, as reply, opted_out, goal, device.")

    class Meta:
        model = Enrolment
        fields: list[str] = []


class SequenceViewSet(
    OwnedViewSet, mixins.CreateModelMixin, mixins.UpdateModelMixin, mixins.DestroyModelMixin,
    mixins.RetrieveModelMixin, mixins.ListModelMixin,
):  # fmt: skip
    """Messages that follow one another."""

    queryset = Sequence.objects.select_related("version").prefetch_related("steps")
    serializer_class = SequenceSerializer
    filterset_class = SequenceFilter

    def perform_destroy(self, instance: Sequence) -> None:
        """What was sent keeps its history."""
        with transaction.atomic():
            sequence = Sequence.objects.select_for_update().get(pk=instance.pk)
            if sequence.version_id is not None:
                raise Conflict("It has been active, and its history is kept. Pause it instead.", "was_active")
            sequence.delete()

    @extend_schema(request=None, responses=SequenceSerializer)
    @action(detail=True, methods=["post"])
    def activate(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Make the draft's steps the first version, and let leads in. Every problem of the draft is named."""
        sequence = self.get_object()
        services.activate(sequence=sequence, by=self.user, now=timezone.now())
        if sequence.state != SequenceState.ACTIVE:
            raise Conflict("This sequence is paused: resume it.", "wrong_state")
        return self._answer(sequence)

    @extend_schema(request=None, responses=SequenceSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Let nobody in and send nothing more until it is resumed."""
        sequence = self.get_object()
        if not services.pause(sequence=sequence) and sequence.state != SequenceState.PAUSED:
            raise Conflict("This sequence is a draft: there is nothing to pause.", "wrong_state")
        return self._answer(sequence)

    @extend_schema(request=None, responses=SequenceSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Go on: of what became overdue, one step per lead; steps that are too late are skipped."""
        sequence = self.get_object()
        if not services.resume(sequence=sequence, now=timezone.now()) and sequence.state != SequenceState.ACTIVE:
            raise Conflict("This sequence is a draft: activate it.", "wrong_state")
        return self._answer(sequence)

    @extend_schema(request=EnrolSerializer, responses=EnteredSerializer)
    @action(detail=True, methods=["post"])
    def enrol(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Let leads of the sequence's owner in, each once; those who may not be written to are left out, and told."""
        sequence = self.get_object()
        given = EnrolSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        leads = Lead.objects.changeable_by(request.user).filter(pk__in=given.validated_data["leads"])
        done = entry.enrol(sequence=sequence, leads=leads, source=EntrySource.API, now=timezone.now())
        return Response(EnteredSerializer({"enrolments": done.enrolments, "left_out": done.left_out}).data)

    @extend_schema(responses=EditPreviewSerializer)
    @action(detail=True, methods=["get"], url_path="preview-edit", filterset_class=None)
    def preview_edit(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What applying the draft would change, and for how many leads. Changes nothing."""
        return Response(EditPreviewSerializer(editing.preview(self.get_object())).data)

    @extend_schema(
        request=ApplySerializer,
        responses={200: OpenApiResponse(AppliedSerializer, "Applied; or in force already, with applied false.")},
    )
    @action(detail=True, methods=["post"], url_path="apply-edit")
    def apply_edit(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Make the draft that was looked at the version in force, for those who are in it too."""
        sequence = self.get_object()
        given = ApplySerializer(data=request.data)
        given.is_valid(raise_exception=True)
        if sequence.state == SequenceState.DRAFT:
            raise Conflict("This sequence is a draft: activate it.", "wrong_state")
        try:
            version = editing.apply(
                sequence=sequence, digest=given.validated_data["digest"], by=self.user, now=timezone.now()
            )
        except editing.DraftChanged:
            raise Conflict("The draft has changed since it was looked at: look again.", "draft_changed") from None
        return Response(AppliedSerializer({"applied": version is not None, "version": sequence.version}).data)

    @extend_schema(responses=VersionSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_class=None)
    def versions(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What was in force when, newest first, with every text."""
        found = self.get_object().versions.prefetch_related("steps")
        page = self.paginate_queryset(found) or []
        return self.get_paginated_response(VersionSerializer(page, many=True).data)

    @extend_schema(responses=SequenceProgressSerializer)
    @action(detail=True, methods=["get"], filterset_class=None)
    def progress(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """How far it is: leads by state and step, messages by step and device, from maintained counters."""
        sequence = self.get_object()
        (whole,) = progress.of([sequence], now=timezone.now()).values()
        steps, devices = progress.by_step(sequence), progress.by_device(sequence)
        body = {**asdict(whole), "percent": round(whole.percent, 2), "steps": steps, "devices": devices}
        return Response(SequenceProgressSerializer(body).data)

    @extend_schema(operation_id="sequences_devices_csv", responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(
        detail=True, methods=["get"], url_path="devices.csv", filterset_class=None, pagination_class=None,
        renderer_classes=[JSONRenderer, CsvRenderer],
    )  # fmt: skip
    def devices_csv(self, request: Request, pk: str) -> StreamingHttpResponse:  # noqa: ARG002 - DRF's signature
        """How far each of its devices is, as a CSV; `/messages/export?of=sequence-{id}` has the leads."""
        sequence = self.get_object()
        batches = [batch for ids in groups.batches_by_step(sequence).values() for batch in ids]
        return csv_response(device_lines(lines_of(batches)), filename=f"sequence-{sequence.pk}-devices.csv")

    @extend_schema(request=RetryStepSerializer, responses=RetriedStepsSerializer)
    @action(detail=True, methods=["post"], url_path="retry-failed")
    def retry_failed(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Send failed steps again, at most 10,000 at once; the leads that failed with them go on from there."""
        sequence = self.get_object()
        given = RetryStepSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        step, device = given.validated_data.get("step"), given.validated_data.get("device")
        done = exits.retry_failed(sequence=sequence, key=step, device_id=device, now=timezone.now())
        return Response(RetriedStepsSerializer({"retried": done.retried, "left_alone": done.left_alone}).data)

    def _answer(self, sequence: Sequence) -> Response:
        return Response(self.get_serializer(self.get_queryset().get(pk=sequence.pk)).data)


class EnrolmentViewSet(OwnedViewSet, mixins.RetrieveModelMixin, mixins.ListModelMixin):
    """Leads inside sequences, newest first."""

    queryset = Enrolment.objects.select_related("sequence")
    serializer_class = EnrolmentSerializer
    filterset_class = EnrolmentFilter

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """Enrolments, newest first."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(self._shown(page))

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """One enrolment."""
        return Response(self._shown([self.get_object()])[0])

    @extend_schema(request=None, responses=EnrolmentSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Send this lead nothing more of the sequence until it is resumed."""
        found = self.get_object()
        return self._moved(found, exits.pause(enrolment_ids=[found.pk]), EnrolmentState.PAUSED)

    @extend_schema(request=None, responses=EnrolmentSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Go on, with at most one overdue step."""
        found = self.get_object()
        return self._moved(found, exits.resume(enrolment_ids=[found.pk], now=timezone.now()), EnrolmentState.ACTIVE)

    @extend_schema(request=None, responses=EnrolmentSerializer)
    @action(detail=True, methods=["post"])
    def remove(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Take the lead out: what has not left yet never will."""
        found = self.get_object()
        return self._moved(found, exits.remove(enrolment_ids=[found.pk], now=timezone.now()), EnrolmentState.EXITED)

    def _moved(self, before: Enrolment, moved: int, target: EnrolmentState) -> Response:
        """The enrolment as it is now; being there already is fine, anything else is a conflict."""
        fresh = self.get_queryset().get(pk=before.pk)
        if not moved and fresh.state != target:
            raise Conflict(f"This enrolment is “{fresh.get_state_display()}”, so this does not apply.", "wrong_state")
        return Response(self._shown([fresh])[0])

    def _shown(self, rows: Iterable[Enrolment]) -> Any:
        """With the positions of the steps ahead: one query for the page."""
        found = list(rows)
        steps = StepVersion.objects.filter(version__in={row.sequence.version_id for row in found})
        places = {(version, key): at for version, key, at in steps.values_list("version_id", "key", "position")}
        context = {**self.get_serializer_context(), "places": places}
        return EnrolmentSerializer(found, many=True, context=context).data
