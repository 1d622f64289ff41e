"""What the API modules of all apps share: rows by owner, serializers that ask the model, and refusals.

Rules live in models and services. A serializer here parses, lets ``Model.clean()`` and the model's constraints speak,
and writes only the columns the caller named: dispatch changes other columns of the same rows all the time.
"""

from __future__ import annotations

import copy
import math
from typing import Any, cast

from django.contrib.auth.models import User
from django.core.exceptions import NON_FIELD_ERRORS
from django.core.exceptions import ValidationError as ModelProblem
from django.db import models
from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.viewsets import GenericViewSet

from devices.access import OwnedQuerySet


class Conflict(APIException):
    """The row is in a state that does not allow this."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class OwnedRelation(serializers.PrimaryKeyRelatedField):
    """The id of another row: one that the caller may see and that has the same owner as the row it is put into."""

    default_error_messages = {
        "does_not_exist": "{pk_value} does not exist, or you may not see it.",
        "incorrect_type": "Give an id as a number, not {data_type}.",
    }

    def get_queryset(self) -> Any:
        """Rows that may be named here."""
        found = super().get_queryset()
        request = self.context.get("request")
        if request is None or not isinstance(found, OwnedQuerySet):
            return found
        row = getattr(self.root, "instance", None)
        owner_id = getattr(row, "owner_id", None) or request.user.pk
        return found.changeable_by(request.user).filter(**{found.model.access.owner: owner_id})


class FiniteFloatField(serializers.FloatField):
    """A number that JSON can carry back."""

    def to_internal_value(self, data: Any) -> float:
        """Refuses what Python reads as infinite (1e999) or as no number at all."""
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            self.fail("invalid")
        return value


class OwnedSerializer(serializers.ModelSerializer[Any]):
    """A row of the caller's: related ids are limited to theirs, and the model's own checks answer at their fields."""

    unchecked_on_create: frozenset[str] = frozenset()
    """Fields whose constraints need not hold yet, because creating merges."""

    serializer_related_field = OwnedRelation
    serializer_field_mapping = {
        **serializers.ModelSerializer.serializer_field_mapping,
        models.FloatField: FiniteFloatField,
    }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Let the model judge the row as it would be."""
        candidate = self._candidate(attrs)
        try:
            candidate.clean()
            candidate.validate_constraints(exclude=self.unchecked_on_create if self.instance is None else None)
        except ModelProblem as problem:
            raise serializers.ValidationError(_by_field(problem, set(self.fields))) from None
        return attrs

    def update(self, instance: Any, validated_data: dict[str, Any]) -> Any:
        """Write the named columns and nothing else."""
        for name, value in validated_data.items():
            setattr(instance, name, value)
        if validated_data:
            stamps = {field.name for field in instance._meta.fields if getattr(field, "auto_now", False)}  # noqa: SLF001
            instance.save(update_fields={*validated_data, *stamps})
        return instance

    def _candidate(self, attrs: dict[str, Any]) -> Any:
        if self.instance is not None:
            row = copy.copy(self.instance)
        else:
            model: type[Any] = self.Meta.model
            row = model(owner=self.context["request"].user)
        for name, value in attrs.items():
            setattr(row, name, value)
        return row


def _by_field(problem: ModelProblem, fields: set[str]) -> dict[str, list[Any]]:
    """A model's complaint as DRF's, with its codes; what a caller cannot set is said of the whole row."""
    whole = {} if hasattr(problem, "error_dict") else {NON_FIELD_ERRORS: problem.error_list}
    errors: dict[str, list[ModelProblem]] = getattr(problem, "error_dict", whole)
    found: dict[str, list[Any]] = {}
    for name, complaints in errors.items():
        for complaint in complaints:
            field, text = _place(name, complaint, fields)
            detail = serializers.ErrorDetail(text, complaint.code or "invalid")
            found.setdefault(field, []).append(detail)
    return found


def _place(name: str, complaint: ModelProblem, fields: set[str]) -> tuple[str, str]:
    """Where and how to say it. "One per owner and X" is a problem of X: callers do not choose the owner."""
    if complaint.code == "unique_together" and complaint.params:
        own = [field for field in complaint.params["unique_check"] if field in fields and field != "owner"]
        if len(own) == 1:
            return own[0], "You have another one with this value."
    return (name if name in fields else "non_field_errors"), " ".join(complaint.messages)


class OwnedViewSet(GenericViewSet[Any]):
    """Rows visible to the caller. Whoever may see but not change them is stopped by the role permission.

    Goes before DRF's mixins in the bases: who owns a new row is decided here.
    """

    lookup_value_regex = "[0-9]+"
    cursor_ordering = "-id"

    def get_queryset(self) -> Any:
        """What the caller may see; somebody else's row is as if it did not exist."""
        found: Any = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return found.none()
        return found.visible_to(self.request.user)

    @property
    def user(self) -> User:
        """Whoever calls; the role permission lets nobody else through."""
        return cast("User", self.request.user)

    def perform_create(self, serializer: Any) -> None:
        """Whoever creates a row owns it, whatever the body says."""
        serializer.save(owner=self.user)
