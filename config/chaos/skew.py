"""A clock that is wrong: this process believes that it is some time earlier or later than it is."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.utils import timezone

VARIABLE = "FLOTILLA_CHAOS_SKEW"
"""Seconds, negative for a clock that is slow."""


def set_wrong(seconds: float) -> None:
    """Shift ``time.time`` and Django's ``timezone.now`` for everybody who asks them by these names."""
    true_time, true_now = time.time, timezone.now

    def wrong_time() -> float:
        return true_time() + seconds

    def wrong_now() -> datetime:
        return true_now() + timedelta(seconds=seconds)

    time.time = wrong_time
    timezone.now = wrong_now
