"""Attachments over REST: hand a file in by upload, base64 or address, and look at what is there."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers, status
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from devices.api_base import OwnedViewSet
from messaging.media import store
from messaging.media.models import MediaFile, MediaKind
from messaging.media.signing import address_of

DOORS = ("file", "base64", "url")


@extend_schema_field(serializers.ChoiceField(choices=MediaKind.choices), component_name="MediaKind")
class MediaKindField(serializers.ChoiceField):
    """The kind as one named set in the description of the API."""


class MediaSerializer(serializers.ModelSerializer[MediaFile]):
    """A stored file."""

    kind = MediaKindField(choices=MediaKind.choices, read_only=True)
    url = serializers.SerializerMethodField(help_text="Works without a log-in, for some hours.")

    class Meta:
        model = MediaFile
        fields = ["id", "kind", "mime_type", "size_bytes", "width", "height", "name", "sha256", "created_at", "url"]
        read_only_fields = fields

    @extend_schema_field(serializers.URLField())
    def get_url(self, media: MediaFile) -> str:
        """A signed address, whole even where FLOTILLA_URL does not say under which name we are known."""
        address = address_of(media_id=media.pk, now=timezone.now())
        request = self.context.get("request")
        return request.build_absolute_uri(address) if request is not None else address


class NewMediaSerializer(serializers.Serializer[Any]):
    """A file, in one of three ways."""

    file = serializers.FileField(required=False, max_length=255, help_text="As a part of a multipart body.")
    base64 = serializers.CharField(required=False, trim_whitespace=False, help_text="Also as a data: address.")
    url = serializers.CharField(
        required=False, max_length=2048, help_text="On the public Internet; fetched once, now, and kept."
    )
    name = serializers.CharField(required=False, max_length=150, help_text="What it is called where it arrives.")
    kind = serializers.ChoiceField(
        choices=MediaKind.choices, required=False, help_text="What it is sent as. Empty: by what the file is."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One way in."""
        if len(set(attrs) & set(DOORS)) != 1:
            raise serializers.ValidationError({"file": "Give one of file, base64 and url."}, "one_source")
        return attrs


class MediaViewSet(OwnedViewSet, mixins.RetrieveModelMixin, mixins.ListModelMixin):
    """Attachments, newest first. What was stored never changes."""

    queryset = MediaFile.objects.all()
    serializer_class = MediaSerializer
    parser_classes = [MultiPartParser, JSONParser]

    @extend_schema(request=NewMediaSerializer, responses={201: MediaSerializer})
    def create(self, request: Request) -> Response:
        """Store a file. The same bytes are stored once: a second time finds the first one's row."""
        # Before the body is read: base64 takes a third more room, and JSON is held in memory.
        if int(request.META.get("CONTENT_LENGTH") or 0) > settings.FLOTILLA_MEDIA_MAX_BYTES * 4 // 3 + 65_536:
            raise store.too_large()
        given = NewMediaSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        wanted = given.validated_data
        name, kind = wanted.get("name", ""), wanted.get("kind", "")
        if "file" in wanted:
            upload = wanted["file"]
            if upload.size > settings.FLOTILLA_MEDIA_MAX_BYTES:
                raise store.too_large()
            media = store.keep(owner=self.user, data=upload.read(), name=name or upload.name or "", kind=kind)
        elif "base64" in wanted:
            media = store.keep_base64(owner=self.user, text=wanted["base64"], name=name, kind=kind)
        else:
            media = store.keep_url(owner=self.user, url=wanted["url"], name=name, kind=kind)
        return Response(
            self.get_serializer(media).data,
            status=status.HTTP_201_CREATED,
            headers={"Location": reverse("media-detail", [media.pk], request=request)},
        )
