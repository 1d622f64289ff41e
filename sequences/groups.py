"""What a sequence's messages go by in the list of messages (:mod:`messaging.groups`): ``sequence-5``, and with the key
of a step ``sequence-5-17``."""

from __future__ import annotations

from collections.abc import Sequence as Several

from devices.access import AnyUser
from messaging.groups import Group, of_batches, register
from sequences.models import Sequence, StepBatch


def register_groups() -> None:
    """Called once, when the app is ready."""
    register("sequence", _sequence)


def batches_by_step(sequence: Sequence) -> dict[int, list[int]]:
    """Ids of the batches of each step that ever sent anything, by the step's key."""
    found: dict[int, list[int]] = {}
    for key, batch_id in StepBatch.objects.filter(sequence=sequence).order_by("batch_id").values_list("key", "batch"):
        found.setdefault(key, []).append(batch_id)
    return found


def _sequence(user: AnyUser, numbers: Several[int]) -> Group | None:
    sequence = Sequence.objects.visible_to(user).filter(pk=numbers[0]).first()
    if sequence is None:
        return None
    batches = batches_by_step(sequence)
    if len(numbers) == 1:
        return of_batches(str(sequence), [batch for ids in batches.values() for batch in ids])
    here = batches.get(numbers[1])
    return of_batches(f"One step of {sequence}", here) if here else None
