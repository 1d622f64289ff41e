"""Reading the rules of sequences: the version in force, and what the sequence says about all of its steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta

from django.conf import settings

from sequences.models import OnFailure, Sequence, Step, StepFields, StepVersion
from sequences.moves import Rules
from sequences.route import Route, Stop
from sequences.timing import Hours


def rules_of(sequence_ids: Collection[int]) -> dict[int, Rules]:
    """The rules in force of each of these sequences: two queries."""
    sequences = list(Sequence.objects.filter(pk__in=sequence_ids))
    steps = StepVersion.objects.filter(version__in=[sequence.version_id for sequence in sequences]).order_by("position")
    by_version: dict[int, list[StepVersion]] = {}
    for step in steps:
        by_version.setdefault(step.version_id, []).append(step)
    return {sequence.pk: _rules(sequence, by_version.get(sequence.version_id or 0, ())) for sequence in sequences}


def in_force(sequence: Sequence) -> Route:
    """The steps as they were last applied; none before that."""
    return Route(tuple(map(live_stop, StepVersion.objects.filter(version=sequence.version_id).order_by("position"))))


def drafted(sequence: Sequence) -> Route:
    """The steps as their author has them. Contents that the version in force has too keep their revision."""
    return Route(tuple(draft_stop(step) for step in sequence.steps.order_by("position")))


def live_stop(step: StepVersion) -> Stop:
    """One step of a version."""
    return _stop(step, key=step.key, revision=step.revision, content=step.content)


def draft_stop(step: Step) -> Stop:
    """One step of the draft."""
    return _stop(step, key=step.pk, revision=0, content=step.content())


def _rules(sequence: Sequence, steps: Iterable[StepVersion]) -> Rules:
    return Rules(
        route=Route(tuple(live_stop(step) for step in steps)),
        goal=sequence.goal,
        exit_on_reply=sequence.exit_on_reply,
        stop_on_failure=sequence.on_failure == OnFailure.STOP,
        late=timedelta(hours=sequence.late_hours),
        zone=sequence.time_zone,
        lead_zone=settings.FLOTILLA_LEAD_TIME_ZONE,
    )


def _stop(step: StepFields, *, key: int, revision: int, content: dict[str, object]) -> Stop:
    return Stop(
        key=key,
        position=step.position,
        delay=timedelta(minutes=step.delay_minutes),
        hours=Hours.of(step.window_start, step.window_end, step.weekdays),
        on_reply=step.on_reply,
        reply_to=step.reply_goes_to,
        wait=timedelta(minutes=step.wait_minutes),
        silence_to=step.silence_goes_to,
        ends=step.ends,
        revision=revision,
        content=content,
    )
