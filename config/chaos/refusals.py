"""Leads who opt out just while their messages are being claimed, and what had been claimed by then."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

import psycopg2
from django.db import connection, transaction
from django.utils import timezone

from config.chaos.evidence import OptOut
from leads.models import Lead
from messaging.models import Attempt

MOST: Final = 20
HOLD_SECONDS: Final = 0.4
LEAVE_TIME_SECONDS: Final = 0.1
"""Between the lock and the refusal: in it claims arrive and wait."""

# Released and not claimed yet, of people for whom nothing more will be made.
_HOLD = """
SELECT m.id, m.lead_id FROM messaging_message m JOIN messaging_batch b ON b.id = m.batch_id
WHERE m.state = 'queued' AND m.lead_id IS NOT NULL AND b.origin IS NOT NULL AND b.filled_at IS NOT NULL
ORDER BY m.queued_at DESC LIMIT %s
FOR UPDATE OF m SKIP LOCKED
"""


def opt_out_under_claims() -> OptOut | None:
    """Let a few leads opt out while claims of their messages wait for a lock; None when nothing was queued.

    Some transaction has locked the messages, as an administrator's might. A claim that has begun must not succeed
    once the refusal is committed, although it looked at the lead before.
    """
    with _held() as leads:
        return opt_out(leads) if leads else None


def opt_out(leads: frozenset[int]) -> OptOut:
    """These leads refuse, in one transaction that sees what was claimed before it and nothing else."""
    with transaction.atomic():
        Lead.objects.filter(pk__in=leads).update(opted_out_at=timezone.now())
        # The locks are ours now. A claim holds its lead's until it commits, so it is either seen here or yet to come.
        seen = Attempt.objects.filter(message__lead__in=leads).values_list("message_id", "release_no")
        return OptOut(leads=leads, seen=frozenset(seen))


@contextlib.contextmanager
def _held() -> Iterator[frozenset[int]]:
    """The leads of some queued messages, whose rows another connection holds for a short while."""
    holding, over = threading.Event(), threading.Event()
    leads: set[int] = set()

    def hold() -> None:
        with contextlib.suppress(psycopg2.Error), contextlib.closing(_another_connection()) as other:
            with other.cursor() as cursor:
                cursor.execute(_HOLD, [MOST])
                leads.update(lead for _, lead in cursor.fetchall())
            holding.set()
            over.wait(HOLD_SECONDS)  # by the clock, never until the refusal is through: that one waits for claims
            other.rollback()
        holding.set()

    thread = threading.Thread(target=hold, name="holding", daemon=True)
    thread.start()
    holding.wait()
    if leads:
        threading.Event().wait(LEAVE_TIME_SECONDS)
    try:
        yield frozenset(leads)
    finally:
        over.set()
        thread.join()


def _another_connection() -> psycopg2.extensions.connection:
    known = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    return psycopg2.connect(**{name: known[name] for name in names if name in known}, connect_timeout=5)
