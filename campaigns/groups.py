"""What a run's messages go by in the list of messages (:mod:`messaging.groups`): ``run-12``, ``run_replied-12``.

A second number is the batch of one variant.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Exists, OuterRef

from campaigns.models import Answer, Run
from campaigns.running import batches_of
from devices.access import AnyUser
from messaging.groups import Group, of_batches, register


def register_groups() -> None:
    """Called once, when the app is ready."""
    register("run", _run)
    register("run_replied", _replied)


def _run(user: AnyUser, numbers: Sequence[int]) -> Group | None:
    run = Run.objects.visible_to(user).filter(pk=numbers[0]).select_related("campaign").first()
    if run is None:
        return None
    batches = batches_of([run])[run.pk]
    names = dict(run.variants.values_list("batch_id", "name"))
    if len(numbers) == 1:
        return of_batches(str(run), batches)
    return of_batches(f"{run}: {names.get(numbers[1], '')}", [numbers[1]]) if numbers[1] in batches else None


def _replied(user: AnyUser, numbers: Sequence[int]) -> Group | None:
    """Those of its messages whose lead answered."""
    found = _run(user, numbers)
    if found is None:
        return None
    answers = Answer.objects.filter(batch=OuterRef("batch"), lead=OuterRef("lead"))
    return Group(f"{found.title}: replied", lambda messages: found.narrow(messages).filter(Exists(answers)))
