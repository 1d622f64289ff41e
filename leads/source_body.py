"""What a webhook says about a lead: every field checked, each problem at its field with the remedy."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from devices.models import Device
from leads.api_fields import RegionField
from leads.cells import clean_tags, tags_of
from leads.columns import KEY_LENGTH, STATUSES
from leads.phones import PhoneProblem, parse_phone
from leads.source_models import LeadSource

TAG_LENGTH = 60
TAGS_MOST = 100
NOTES_LENGTH = 10_000


class TagsField(serializers.Field[Any, Any, Any, Any]):
    """Exact tags: a list of texts, or one text with commas."""

    def to_internal_value(self, data: Any) -> list[str]:
        """The tags, trimmed, each once."""
        if isinstance(data, str):
            tags = tags_of(data)
        elif isinstance(data, list) and all(isinstance(tag, str) for tag in data):
            tags = clean_tags(data)
        else:
            raise serializers.ValidationError(
                'Give a list of texts, as ["coffee"], or one text with commas.', "not_tags"
            )
        if long := [tag for tag in tags if len(tag) > TAG_LENGTH]:
            text = f"“{long[0][:20]}…” is too long: a tag has at most {TAG_LENGTH} characters."
            raise serializers.ValidationError(text, "too_long")
        if len(tags) > TAGS_MOST:
            raise serializers.ValidationError(f"Give at most {TAGS_MOST} tags.", "too_many")
        if any("\0" in tag for tag in tags):
            raise serializers.ValidationError("Leave out null characters.", "null_characters_not_allowed")
        return list(tags)

    def to_representation(self, value: Any) -> Any:
        """DRF's hook."""
        return value


class DeviceField(serializers.Field[Any, Any, Any, Any]):
    """One of the owner's devices, by name or id; a name goes first."""

    def to_internal_value(self, data: Any) -> Device | None:
        """The device. Raises ValidationError."""
        if data == "":
            return None
        if isinstance(data, bool) or not isinstance(data, int | str):
            raise serializers.ValidationError("Give a device's name as a text, or its id.", "not_a_device")
        source: LeadSource = self.context["source"]
        mine = Device.objects.filter(owner_id=source.owner_id).defer("credentials")
        text = str(data).strip().replace("\0", "")
        found = mine.filter(name=text).first() if isinstance(data, str) else None
        if found is None and text.isascii() and text.isdigit() and len(text) < 19:
            found = mine.filter(pk=int(text)).first()
        if found is None:
            raise serializers.ValidationError(
                "No device of the source's owner has this name or id: look it up in the list of devices.",
                "does_not_exist",
            )
        return found

    def to_representation(self, value: Any) -> Any:
        """DRF's hook."""
        return value


class LeadBody(serializers.Serializer[Any]):
    """One lead. Give the source as ``context["source"]``."""

    phone = serializers.CharField(max_length=40)
    region = RegionField(required=False)
    name = serializers.CharField(max_length=200, required=False, allow_blank=True)
    status = serializers.CharField(max_length=20, required=False, allow_blank=True)
    niches = TagsField(required=False)
    triggers = TagsField(required=False)
    notes = serializers.CharField(max_length=NOTES_LENGTH, required=False, allow_blank=True)
    custom = serializers.DictField(required=False)
    device = DeviceField(required=False)
    event_id = serializers.RegexField(
        r"^[\x21-\x7e]{1,200}$",
        required=False,
        error_messages={"invalid": "Use 1 to 200 visible ASCII characters, as a UUID."},
    )

    def to_internal_value(self, data: Any) -> Any:
        """Null means "not said", as forms and other programs write it."""
        return super().to_internal_value({name: value for name, value in data.items() if value is not None})

    def validate_status(self, value: str) -> str:
        """Prospect or customer, by any of the words that imports know."""
        word = STATUSES.get(value.strip().casefold())
        if word is None:
            raise serializers.ValidationError("Use prospect or customer, or leave it out.", "invalid_choice")
        return word

    def validate_custom(self, value: dict[str, Any]) -> dict[str, Any]:
        """Names that a message can use."""
        for key in value:
            if not key.isidentifier() or len(key) > KEY_LENGTH:
                raise serializers.ValidationError(
                    f"“{key[:KEY_LENGTH]}” cannot be a field's name: use letters, digits and underscores, at most"
                    f" {KEY_LENGTH}, as order_no.",
                    "bad_name",
                )
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Bring the number into its one form."""
        region = attrs.pop("region", self.context["source"].region)
        try:
            attrs["phone"] = parse_phone(attrs["phone"], region=region)
        except PhoneProblem as problem:
            raise serializers.ValidationError({"phone": problem.text}, problem.code) from None
        return attrs
