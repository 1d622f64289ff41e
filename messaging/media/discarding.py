"""Taking a file away again: its row once nothing waits to be sent with it, its bytes once no owner has them."""

from __future__ import annotations

from functools import partial

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q

from messaging.media.models import MediaFile, path_of
from messaging.models import Batch, BatchState, Stream


def waiting_with(media: MediaFile) -> Batch | None:
    """A batch that names the file and has something left to send, or is still being filled."""
    left = Exists(Stream.objects.filter(batch=OuterRef("pk"), is_open=True))  # index stream_open_by_batch
    live = Batch.objects.filter(state__in=[BatchState.RUNNING, BatchState.PAUSED])  # index batch_live
    return live.filter(Q(filled_at__isnull=True) | left, content__media=media.pk).order_by("pk").first()


def discard(*, media: MediaFile) -> None:
    """Delete the row now and the bytes when that has committed. Campaigns and steps that name it protect it.

    A message that is made of an older batch afterwards (a retry) fails, and says that its file is gone.
    """
    MediaFile.objects.filter(pk=media.pk).delete()
    transaction.on_commit(partial(_remove_bytes, media.sha256))


def alone_with(sha256: str) -> None:
    """Until this transaction ends, nobody else stores or removes these bytes."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"media:{sha256}"])


def _remove_bytes(sha256: str) -> None:
    with transaction.atomic():
        alone_with(sha256)
        if not MediaFile.objects.filter(sha256=sha256).exists():
            path_of(sha256).unlink(missing_ok=True)
