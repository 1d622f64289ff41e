"""Content in the bodies of API requests."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from messaging.content.greeting import LANGUAGE_NAMES
from messaging.content.problems import ContentRefused
from messaging.content.shape import ON_MISSING, TYPES, Content, parse
from messaging.media.models import MediaFile


class TemplateSerializer(serializers.Serializer[Any]):
    """A text that the gateway approved."""

    name = serializers.CharField()
    language = serializers.CharField(help_text="As en or en_US.")
    parameters = serializers.ListField(child=serializers.CharField(), required=False)


class ContentSerializer(serializers.Serializer[Any]):
    """What a message says, for the description of the API; :class:`ContentField` does the work."""

    type = serializers.ChoiceField(choices=list(TYPES), required=False)
    text = serializers.CharField(
        required=False, help_text="The text or caption. {{ name or 'friend' }} puts in a value, {Hi|Hello} chooses one."
    )
    media = serializers.IntegerField(required=False, allow_null=True, help_text="Id of an uploaded file.")
    template = TemplateSerializer(required=False, allow_null=True)
    greeting = serializers.ChoiceField(
        choices=list(LANGUAGE_NAMES.items()),
        required=False,
        allow_blank=True,
        help_text="Greet by the lead's time of day.",
    )
    on_missing = serializers.ChoiceField(
        choices=[(choice, choice.capitalize()) for choice in ON_MISSING], required=False
    )


@extend_schema_field(ContentSerializer)
class ContentField(serializers.Field[Content, Any, Any, Any]):
    """A :class:`~messaging.content.shape.Content`; a file it names is one of the caller's own."""

    def to_internal_value(self, data: Any) -> Content:
        """Every problem at its field."""
        try:
            content = parse(data)
        except ContentRefused as refused:
            found: dict[str, list[serializers.ErrorDetail]] = {}
            for problem in refused.problems:
                detail = serializers.ErrorDetail(problem.text, problem.code)
                found.setdefault(problem.field or "non_field_errors", []).append(detail)
            raise serializers.ValidationError(found) from None
        if content.media is not None:
            try:
                MediaFile.objects.visible_to(self.context["request"].user).get(pk=content.media)
            except ObjectDoesNotExist:
                text = f"{content.media} does not exist, or you may not see it."
                raise serializers.ValidationError({"media": text}, "does_not_exist") from None
        return content

    def to_representation(self, value: Any) -> Any:
        """As it is stored."""
        return value.to_json() if isinstance(value, Content) else value
