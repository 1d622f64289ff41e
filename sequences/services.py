"""What may be asked of a sequence as a whole: activate, pause, resume, let leads in, and the tick."""

from __future__ import annotations

from datetime import datetime

import structlog
from django.contrib.auth.models import User
from django.db import transaction

from messaging import services as messaging
from messaging.models import BatchState
from sequences import editing, entry, exits, tallies, walking
from sequences.models import Sequence, SequenceState, StepBatch, Version

log = structlog.get_logger(__name__)


def activate(*, sequence: Sequence, by: User | None, now: datetime) -> Version | None:
    """Make the draft's steps the first version and let leads in. None if it was active or paused before.

    Raises NotReady with every problem.
    """
    with transaction.atomic():
        locked = Sequence.objects.select_for_update(no_key=True).get(pk=sequence.pk)
        if locked.state != SequenceState.DRAFT:
            sequence.state = locked.state
            return None
        editing.require_ready(locked)
        version = editing.make_version(locked, by=by, now=now)
        Sequence.objects.filter(pk=locked.pk).update(state=SequenceState.ACTIVE)
    sequence.refresh_from_db()
    log.info("sequence.activated", sequence_id=sequence.pk, version=version.number)
    return version


def pause(*, sequence: Sequence) -> bool:
    """No lead enters, and no claim of its messages succeeds, from the commit of this on. Whether anything changed."""
    with transaction.atomic():
        changed = bool(
            Sequence.objects.filter(pk=sequence.pk, state=SequenceState.ACTIVE).update(state=SequenceState.PAUSED)
        )
        if changed:
            for batch_id in _batches(sequence, BatchState.RUNNING):
                messaging.pause_batch(batch_id=batch_id)
    sequence.refresh_from_db()
    return changed


def resume(*, sequence: Sequence, now: datetime) -> bool:
    """Go on: of what became overdue, one step per lead. Whether anything changed."""
    with transaction.atomic():
        changed = bool(
            Sequence.objects.filter(pk=sequence.pk, state=SequenceState.PAUSED).update(state=SequenceState.ACTIVE)
        )
        if changed:
            for batch_id in _batches(sequence, BatchState.PAUSED):
                messaging.resume_batch(batch_id=batch_id)
            exits.wake_paused(sequence=sequence, now=now)
    sequence.refresh_from_db()
    return changed


def tick(*, now: datetime) -> walking.Walked:
    """Let in, hear what happened, move on. Safe anywhere, at once, late and doubled."""
    entry.pull(now=now)
    exits.hear(now=now)
    done = walking.walk(now=now)
    tallies.squash()
    return done


def _batches(sequence: Sequence, state: BatchState) -> list[int]:
    found = StepBatch.objects.filter(sequence=sequence, batch__state=state).order_by("batch_id")
    return list(found.values_list("batch_id", flat=True))
