"""Encrypting what is stored by the newest of ``FLOTILLA_FIELD_KEYS``, so that an older key can be dropped.

Each row goes in a transaction of its own: thousands of devices locked together would stand in the way of sending. A row
that is by the newest key is left alone, so whatever ends this, the next run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.fernet import InvalidToken
from django.apps import apps
from django.db import models
from django.db.models.functions import Cast

from devices.secrets import Secrets, SecretsField, renewed

BATCH = 500


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What was found in one column, in rows; empty ones are not counted.

    ``renewed`` were by an older key and now are by the newest (in a dry run: would be), ``current`` were so before,
    ``unreadable`` fit no key, ``changed`` were written by somebody else meanwhile.
    """

    place: str
    renewed: int = 0
    current: int = 0
    unreadable: int = 0
    changed: int = 0


def places() -> list[tuple[type[models.Model], SecretsField]]:
    """Every column of the installation that holds secrets."""
    return [
        (model, field)
        for model in apps.get_models()
        for field in model._meta.concrete_fields  # noqa: SLF001 - Django's documented model API
        if isinstance(field, SecretsField)
    ]


def rekey(*, dry_run: bool = False, batch: int = BATCH) -> Iterator[Rekeyed]:
    """Go through every column; what was found in each, as each is done. ``dry_run`` writes nothing."""
    for model, field in places():
        yield _rekey(model, field, dry_run=dry_run, batch=batch)


def _rekey(model: type[models.Model], field: SecretsField, *, dry_run: bool, batch: int) -> Rekeyed:
    counts = {"renewed": 0, "current": 0, "unreadable": 0, "changed": 0}
    for pk, token in _stored(model, field, batch):
        try:
            new = renewed(token)
        except InvalidToken:
            counts["unreadable"] += 1
            continue
        if new is None:
            counts["current"] += 1
        elif dry_run or _replaced(model, field, pk=pk, old=token, new=new):
            counts["renewed"] += 1
        else:
            counts["changed"] += 1
    return Rekeyed(f"{model._meta.db_table}.{field.column}", **counts)  # noqa: SLF001


def _stored(model: type[models.Model], field: SecretsField, batch: int) -> Iterator[tuple[object, str]]:
    """Keys of rows and their ciphertext, as it is stored; a batch by the primary key at a time."""
    rows = model._base_manager.annotate(stored=Cast(field.attname, models.TextField())).order_by("pk")  # noqa: SLF001
    rows = rows.exclude(stored="")
    found = list(rows.values_list("pk", "stored")[:batch])
    while found:
        yield from found
        found = list(rows.filter(pk__gt=found[-1][0]).values_list("pk", "stored")[:batch])


def _replaced(model: type[models.Model], field: SecretsField, *, pk: object, old: str, new: str) -> bool:
    """Whether the row still held what was read: credentials that somebody enters meanwhile must win."""
    row = model._base_manager.annotate(stored=Cast(field.attname, models.TextField())).filter(pk=pk, stored=old)  # noqa: SLF001
    return row.update(**{field.attname: Secrets(unreadable=new)}) == 1  # which is how ciphertext is written as it is
