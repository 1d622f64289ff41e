"""Taking the demo's owner away with everything that belongs to them, and nothing else.

What belongs to whom is what each model says itself (:class:`devices.access.Access`), so a table that is added later
goes along. Before anything goes, everything that belongs to somebody else is looked through for ties to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import ProtectedError, RestrictedError

from config.models import DemoData
from devices.access import Access
from messaging.media.models import MediaFile, path_of
from messaging.models import Message, Stream, StreamMark
from messaging.states import IN_FLIGHT
from sequences.models import Sequence, Tally

APPS = ("sequences", "campaigns", "messaging", "leads", "devices")


class CannotRemove(Exception):  # noqa: N818 - reads as a fact
    """It stays as it is: why, and what to do."""


def remove() -> int:
    """Take everything away, in one transaction; returns how many rows went, 0 where there was no demo data.

    Raises CannotRemove.
    """
    files: list[str] = []
    with transaction.atomic():
        mark = DemoData.objects.select_for_update().select_related("owner").first()
        if mark is None:
            return 0
        owner = mark.owner
        _refuse_if_tied(owner)
        files = list(MediaFile.objects.filter(owner=owner).values_list("sha256", flat=True))
        streams = list(Stream.objects.filter(batch__owner=owner).values_list("pk", flat=True))
        sequences = list(Sequence.objects.filter(owner=owner).values_list("pk", flat=True))
        gone = _delete_all(owner)
        # These name what they belong to by number alone, and the first are added to by every enrolment that goes.
        gone += Tally.objects.filter(sequence_id__in=sequences).delete()[0]
        gone += StreamMark.objects.filter(stream_id__in=streams).delete()[0]
        try:
            gone += owner.delete()[0]
        except (ProtectedError, RestrictedError) as error:
            raise CannotRemove(
                f"Somebody has acted as “{owner}”, and that stays on record ({_kinds(error)}): rename that user then."
            ) from None
    _forget_files(files)
    return gone


def _owned() -> Iterator[tuple[type[models.Model], str]]:
    """Each model that belongs to somebody, with the path to whom."""
    for label in APPS:
        for model in apps.get_app_config(label).get_models():
            access: Access | None = getattr(model, "access", None)
            if access is not None and access.owner is not None:
                yield model, access.owner


def _refuse_if_tied(owner: User) -> None:
    if Message.objects.filter(batch__owner=owner, state__in=sorted(IN_FLIGHT)).exists():
        raise CannotRemove("Messages of the demo are being sent at this moment: stop its campaigns, then repeat.")
    paths = dict(_owned())
    for model, path in paths.items():
        for field in model._meta.get_fields():  # noqa: SLF001 - Django's documented model API
            if not isinstance(field, models.ForeignKey) or field.related_model not in paths:
                continue
            there = paths[field.related_model]
            if path == f"{field.name}__{there}":
                continue  # belongs to whomever it hangs on
            tied = _rows(model).filter(**{f"{field.name}__{there}": owner}).exclude(**{path: owner})
            if (row := tied.first()) is not None:
                raise CannotRemove(
                    f"{model._meta.verbose_name} {row.pk} of somebody else uses the demo's {field.name}: give it"  # noqa: SLF001
                    " another one, or delete it, then repeat."
                )


def _delete_all(owner: User) -> int:
    """Delete what belongs to ``owner``, again and again, until nothing protects anything any more."""
    Sequence.objects.filter(owner=owner).update(version=None, next_sequence=None)
    left = list(_owned())
    gone = 0
    while left:
        stuck = []
        for model, path in left:
            try:
                with transaction.atomic():
                    gone += _rows(model).filter(**{path: owner}).delete()[0]
            except (ProtectedError, RestrictedError):
                stuck.append((model, path))
        if len(stuck) == len(left):
            names = ", ".join(str(model._meta.verbose_name) for model, _ in stuck)  # noqa: SLF001
            raise CannotRemove(f"Something holds on to the demo's rows ({names}); nothing was removed.")
        left = stuck
    return gone


def _rows(model: type[models.Model]) -> models.QuerySet[Any]:
    return model._default_manager.order_by()  # noqa: SLF001 - whatever it is called


def _kinds(error: ProtectedError | RestrictedError) -> str:
    held: Any = getattr(error, "protected_objects", None) or getattr(error, "restricted_objects", ())
    return ", ".join(sorted({str(row._meta.verbose_name) for row in held}))  # noqa: SLF001


def _forget_files(hashes: list[str]) -> None:
    """Bytes go with the last row that names them."""
    kept = set(MediaFile.objects.filter(sha256__in=hashes).values_list("sha256", flat=True))
    for sha256 in set(hashes) - kept:
        path_of(sha256).unlink(missing_ok=True)
