"""Leads that have been through a sequence elsewhere, before it was moved over: they do not begin it anew."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sequences.models import Enrolment, EnrolmentState, EntrySource, Sequence

CODE: Final = "moved_over"
_OVER: Final = frozenset({EnrolmentState.COMPLETED, EnrolmentState.EXITED, EnrolmentState.FAILED})


def note_earlier(*, sequence: Sequence, leads: Mapping[int, tuple[EnrolmentState, str]], now: datetime) -> int:
    """Write down how each lead's way through ``sequence`` ended elsewhere; returns how many were not known.

    ``leads`` maps a lead's id to a final state and a reason. Whoever has an enrolment keeps it: unique
    enrolment_sequence_lead. Without this the sequence, once active, would let in all who still carry its tag and write
    to them from its first step.
    """
    if wrong := {state for state, _ in leads.values()} - _OVER:
        raise ValueError(f"not a final state: {sorted(wrong)}")
    there = set(Enrolment.objects.filter(sequence=sequence, lead__in=list(leads)).values_list("lead_id", flat=True))
    rows = [
        Enrolment(
            sequence=sequence,
            lead_id=lead_id,
            state=state,
            code=CODE,
            reason=reason[:200],
            source=EntrySource.HAND,
            base_at=now,
            enrolled_at=now,
            finished_at=now,
        )
        for lead_id, (state, reason) in sorted(leads.items())
        if lead_id not in there
    ]
    Enrolment.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)
