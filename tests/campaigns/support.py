"""What tests of campaigns do with runs: launch them, send what is due, count."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from campaigns import services
from campaigns.models import Campaign, Run
from campaigns.running import batches_of
from messaging.dispatch.release import release_round
from messaging.dispatch.send import Result, Sender
from messaging.models import Message
from messaging.services import wrap_up


def launched(campaign: Campaign, *, now: datetime | None = None) -> Run:
    """A run whose messages are made."""
    now = now or timezone.now()
    started = services.start(campaign=campaign, now=now)
    assert started.run is not None
    return services.trigger(run_id=started.run.pk, now=now)


def send_due(sender: Sender, *, rounds: int = 50) -> int:
    """Release one message per device and send it, round by round, until nothing is due; how many were carried."""
    carried = 0
    for _ in range(rounds):
        _, released = release_round()
        if not released:
            break
        for item in released:
            carried += sender.send(message_id=item.message_id, release_no=item.release_no) is Result.DONE
    return carried


def finish(run: Run) -> Run:
    """What the ticks do once everything has been sent."""
    wrap_up(now=timezone.now())
    services.tick(now=timezone.now())
    run.refresh_from_db()
    return run


def states(run: Run) -> dict[str, int]:
    """Messages of the run by state, from the rows."""
    found: dict[str, int] = {}
    for state in Message.objects.filter(batch__in=batches_of([run])[run.pk]).values_list("state", flat=True):
        found[state] = found.get(state, 0) + 1
    return found
