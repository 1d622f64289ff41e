"""Choosing many rows for one call: by ids, or by what the list of them takes as filters."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import django_filters  # type: ignore[import-untyped]
from django.db.models import QuerySet
from rest_framework import serializers

IDS_MOST: Final = 10_000


class ChoosingSerializer(serializers.Serializer[Any]):
    """Which rows: ``ids``, or ``filter``. A subclass names its ``filterset``."""

    filterset: ClassVar[type[django_filters.FilterSet]]

    ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        required=False,
        max_length=IDS_MOST,
        allow_empty=False,
    )
    filter = serializers.DictField(required=False, help_text="What the list takes as filters, by name. {} means all.")
    dry_run = serializers.BooleanField(default=False, help_text="Only count.")

    def validate_filter(self, value: dict[str, Any]) -> dict[str, Any]:
        """Names that do not exist would choose every row."""
        known = set(self.filterset.base_filters)
        if unknown := sorted(set(value) - known):
            raise serializers.ValidationError(
                f"No filter is called “{unknown[0][:60]}”: use {', '.join(sorted(known))}.", "unknown_filter"
            )
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of the two."""
        if ("ids" in attrs) == ("filter" in attrs):
            raise serializers.ValidationError({"ids": "Give either ids or a filter."}, "required")
        return attrs

    def chosen_of(self, mine: QuerySet[Any]) -> QuerySet[Any]:
        """Those of ``mine`` that were asked for, after validation. Raises ValidationError."""
        given = self.validated_data
        if "ids" in given:
            wanted = set(given["ids"])
            rows = mine.filter(pk__in=wanted)
            if missing := sorted(wanted - set(rows.values_list("pk", flat=True))):
                raise serializers.ValidationError(
                    {"ids": f"{missing[0]} does not exist, or you may not see it."}, "does_not_exist"
                )
            return rows
        form = self.filterset(data=given["filter"], queryset=mine)
        if not form.is_valid():
            raise serializers.ValidationError({"filter": form.errors})
        # by ids, so that no filter's join meets a row twice
        return mine.filter(pk__in=form.qs.order_by().values("pk"))
