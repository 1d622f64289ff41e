"""An installation that is at work, as far as its pages can tell."""

from __future__ import annotations

from django.utils import timezone

from messaging.models import Pulse, WorkerProcess


def at_work() -> None:
    """Ticks run, and a worker takes what there is."""
    now = timezone.now()
    Pulse.objects.update_or_create(name="ticks", defaults={"at": now})
    queues = ["control", "devices.http.0"]
    WorkerProcess.objects.create(
        name="all@here", host="here", pid=1, queues=queues, threads=8, started_at=now, seen_at=now, sent=1234
    )
