"""A file of an owner."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from devices.access import Access, OwnedQuerySet


class MediaKind(models.TextChoices):
    """What it is sent as; the same words as a content's types."""

    IMAGE = "image", "Image"
    DOCUMENT = "document", "Document"
    VIDEO = "video", "Video"
    AUDIO = "audio", "Audio"


class MediaFile(models.Model):
    """An attachment. Its row and its bytes never change: batches name it by its id, and workers remember it.

    The bytes lie below MEDIA_ROOT under their SHA-256, once for all owners who have the same.
    """

    access = Access(owner="owner")

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="media_files", db_index=False
    )
    sha256 = models.CharField(max_length=64, editable=False)
    kind = models.CharField(max_length=8, choices=MediaKind)
    mime_type = models.CharField(max_length=100, editable=False, help_text="By its bytes.")
    size_bytes = models.PositiveBigIntegerField(editable=False)
    width = models.PositiveIntegerField(null=True, blank=True, editable=False, help_text="Pixels.")
    height = models.PositiveIntegerField(null=True, blank=True, editable=False, help_text="Pixels.")
    name = models.CharField(max_length=150, help_text="What it is called where it arrives.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        app_label = "messaging"
        constraints = [
            # a picture may be sent as a document too
            models.UniqueConstraint(fields=["owner", "sha256", "kind"], name="media_owner_sha256"),
            models.CheckConstraint(
                condition=Q(kind__in=["image", "document", "video", "audio"]), name="media_kind_known"
            ),
        ]
        ordering = ["-id"]
        verbose_name = "media file"

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> Path:
        """Where its bytes are."""
        return path_of(self.sha256)


def path_of(sha256: str) -> Path:
    """Where bytes of this hash are, if they are stored."""
    return Path(settings.MEDIA_ROOT) / "files" / sha256[:2] / sha256[2:4] / sha256
