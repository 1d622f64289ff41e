"""Segments over REST: filters over one's leads under a name, and how many match."""

from __future__ import annotations

from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from devices.access import AnyUser
from devices.api_base import OwnedSerializer, OwnedViewSet
from leads import segments
from leads.models import Segment
from leads.rules import NAMES, RulesRefused, parse


@extend_schema_field(OpenApiTypes.OBJECT)
class RulesField(serializers.Field):
    """Rules as an object; each problem is told at its rule, as ``rules.status``."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """In their one form, without rules that ask nothing."""
        try:
            return parse(data).to_json()
        except RulesRefused as refused:
            raise serializers.ValidationError(_at_their_rules(refused)) from None

    def to_representation(self, value: Any) -> Any:
        """As they are stored."""
        return value


def _at_their_rules(refused: RulesRefused) -> Any:
    """DRF's form of what is wrong: by rule, or of the whole."""
    found: dict[str, list[Any]] = {}
    for problem in refused.problems:
        found.setdefault(problem.field, []).append(serializers.ErrorDetail(problem.text, problem.code))
    return found.get("") or found


RULES_HELP = f"Every rule has to hold; tags match exactly. Rules: {', '.join(NAMES)}."


class SegmentSerializer(OwnedSerializer):
    """A filter over leads under a name."""

    rules = RulesField(required=False, help_text=RULES_HELP)

    class Meta:
        model = Segment
        fields = ["id", "owner", "name", "rules", "created_at", "updated_at"]
        read_only_fields = ["owner", "created_at", "updated_at"]


class CountedSegmentSerializer(SegmentSerializer):
    """The same, and how many leads match now."""

    count = serializers.SerializerMethodField(help_text="Leads that match now, whether they may be written to or not.")

    class Meta(SegmentSerializer.Meta):
        fields = [*SegmentSerializer.Meta.fields, "count"]

    def get_count(self, segment: Segment) -> int:
        """Counted now."""
        return segments.leads_of(segment=segment, now=timezone.now()).count()


class AskedSerializer(serializers.Serializer[Any]):
    """Rules that nobody has saved."""

    rules = RulesField(help_text=RULES_HELP)


class CountSerializer(serializers.Serializer[Any]):
    """How many match."""

    count = serializers.IntegerField()


class SegmentFilter(django_filters.FilterSet):
    """Which segments to list."""

    name = django_filters.CharFilter(lookup_expr="icontains", label="A part of the name.")

    class Meta:
        model = Segment
        fields: list[str] = []


class SegmentViewSet(
    OwnedViewSet, mixins.CreateModelMixin, mixins.UpdateModelMixin, mixins.DestroyModelMixin,
    mixins.RetrieveModelMixin, mixins.ListModelMixin,
):  # fmt: skip
    """Filters over leads under a name, for campaigns and lists."""

    queryset = Segment.objects.all()
    serializer_class = SegmentSerializer
    filterset_class = SegmentFilter

    @extend_schema(responses=CountedSegmentSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - DRF's signature
        """One segment, and how many leads match it now."""
        return Response(CountedSegmentSerializer(self.get_object(), context=self.get_serializer_context()).data)

    @extend_schema(request=AskedSerializer, responses=CountSerializer)
    @action(detail=False, methods=["post"], filterset_class=None, pagination_class=None)
    def count(self, request: Request) -> Response:
        """How many of your own leads match these rules; nothing is saved."""
        asked = AskedSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        rules = parse(asked.validated_data["rules"])
        return Response({"count": segments.count(owner_id=self.user.pk, rules=rules, now=timezone.now())})


def visible_segment(*, user: AnyUser, segment_id: int) -> Segment:
    """The segment that a list is to be narrowed to. Raises a 400 for one that ``user`` may not see."""
    found: Segment | None = Segment.objects.visible_to(user).filter(pk=segment_id).first()
    if found is None:
        text = f"There is no segment {segment_id}, or you may not see it."
        raise serializers.ValidationError({"segment": text}, "does_not_exist")
    return found
