"""A short sequence to a few of the demo's leads, whom the simulator lets answer: whoever writes back leaves it."""

from __future__ import annotations

import time

from django.conf import settings
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from config.demo.fleet import Cast
from config.demo.ledger import Judge
from config.stack.programs import PHONES
from leads import bulk
from leads.audience import Audience
from leads.changes import Channel
from leads.models import Lead
from messaging import transferring
from sequences import progress as sequence_progress
from sequences import services
from sequences.models import Sequence

LEADS = 24
STALLED_SECONDS = 60.0
TEXTS = (
    "Welcome aboard, {{ first_name or 'friend' }}! Is there anything you would like to know?",
    "{{ first_name or 'Hello' }}, our advice costs nothing. Shall we call you?",
    "We will not write again, {{ first_name or 'friend' }}. Our door stays open.",
)
REPLIES = {"probability": 0.3, "texts": ["Tell me more", "Yes, please", "How much is it?"], "delay_seconds": [0.1, 0.8]}


def drip(*, console: Console, cast: Cast, witness: Judge, web_url: str) -> Sequence | None:
    """Tag some leads, let the sequence's own tick find them, and follow them to their end."""
    people = Audience(owner_id=cast.owner.pk).reachable().order_by("-pk")
    leads = Lead.objects.filter(pk__in=[lead.pk for lead in people[:LEADS]])
    if not leads.exists():
        return None
    now = timezone.now()
    sequence = _sequence(cast)
    console.print(
        f"\n[bold]4. Sequence[/]  “{sequence.name}”: {len(TEXTS)} steps to {leads.count():,} leads with the tag "
        f"“{sequence.trigger}”; who replies leaves"
    )
    transferring.transfer(
        leads=leads, devices=cast.devices, move_messages=False, channel=Channel.ADMIN, by=cast.owner, now=now
    )
    edit = bulk.Edit(add_triggers=(sequence.trigger,))
    bulk.edit(leads=leads, edit=edit, channel=Channel.ADMIN, by=cast.owner, now=now)
    secrets = settings.FLOTILLA_WEBHOOK_SECRETS.get("simulator", ())
    phones = {**PHONES, "url": f"{web_url}/hooks/simulator", "secret": secrets[0]} if secrets and web_url else None
    if phones is not None:
        witness.set_webhook({**phones, "replies": REPLIES})
    try:
        services.activate(sequence=sequence, by=cast.owner, now=timezone.now())
        _watch(console, sequence, expected=leads.count())
    finally:
        if phones is not None:
            witness.set_webhook(phones)
    _report(console, sequence)
    return sequence


def _sequence(cast: Cast) -> Sequence:
    stamp = timezone.localtime()
    sequence = Sequence.objects.create(
        owner=cast.owner,
        name=f"Welcome {stamp:%Y-%m-%d %H:%M:%S}",
        trigger=f"demo-{stamp:%Y%m%d%H%M%S}",
        delay_min_seconds=0,
        delay_max_seconds=0,
    )
    for position, text in enumerate(TEXTS, start=1):
        sequence.steps.create(position=position, text=text, delay_minutes=0)
    return sequence


def _watch(console: Console, sequence: Sequence, *, expected: int) -> None:
    """Until nobody has a step ahead, or nothing moves any more: what is left then goes on without us."""
    columns = (TextColumn("   through"), BarColumn(bar_width=40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=5) as shown:
        bar = shown.add_task("through", total=expected)
        last, moved_at = (-1, -1), time.monotonic()
        while time.monotonic() - moved_at < STALLED_SECONDS:
            far = sequence_progress.of([sequence], now=timezone.now())[sequence.pk]
            through = far.total - far.active - far.paused
            sent = sum(device.sent for device in sequence_progress.by_device(sequence))
            if (through, sent) != last:
                last, moved_at = (through, sent), time.monotonic()
            shown.update(bar, completed=through)
            if through >= expected:
                return
            time.sleep(0.3)


def _report(console: Console, sequence: Sequence) -> None:
    table = Table("step", "sent", "replied and left", "failed", box=None, padding=(0, 2, 0, 3))
    for step in sequence_progress.by_step(sequence):
        text = step.text.replace("{{ first_name or 'friend' }}", "…").replace("{{ first_name or 'Hello' }}", "…")
        table.add_row(
            f"{step.position}. {text[:44]}", f"{step.messages.sent:,}", f"{step.replied:,}", f"{step.failed:,}"
        )
    console.print(table)
