"""Sessions that had better stay open because a sequence is under way: so that replies and STOP are heard at once."""

from __future__ import annotations

from collections.abc import Collection

from sequences.models import Enrolment, EnrolmentState

LIVE = (EnrolmentState.ACTIVE, EnrolmentState.PAUSED)


def devices_with_enrolments(devices: Collection[int]) -> set[int]:
    """Those of ``devices`` whose leads are in a sequence now."""
    live = Enrolment.objects.filter(lead__device_id__in=devices, state__in=LIVE)
    return set(live.values_list("lead__device_id", flat=True).distinct())
