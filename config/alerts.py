"""E-mails to the admins: one when many devices fail for one reason, and one about subscribers that were given up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from smtplib import SMTPException

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.urls import reverse

from config.digest import recipients
from devices.session_models import Incident
from messaging.outgoing.models import Subscriber

log = structlog.get_logger(__name__)

PATIENCE = timedelta(minutes=2)
"""What is over by then was a hiccup, and nobody is told."""


def tell_due(*, now: datetime) -> int:
    """One tick: tell of incidents that last; returns of how many. Each is told once, whoever runs this how often.

    While the mail server is down they are tried again.
    """
    lasting = list(Incident.objects.filter(told_at=None, ended_at=None, started_at__lte=now - PATIENCE))
    to = recipients() if lasting else []
    told = 0
    for incident in lasting:
        mine = Incident.objects.filter(pk=incident.pk, told_at=None)
        if not to or not mine.update(told_at=now):
            continue
        try:
            EmailMessage(subject=f"[Flotilla] {incident} cannot connect", body=text_of(incident), to=to).send()
            told += 1
        except (SMTPException, OSError) as problem:
            Incident.objects.filter(pk=incident.pk, told_at=now).update(told_at=None)
            log.warning("alert.not_sent", incident_id=incident.pk, error=type(problem).__name__)
    return told


def text_of(incident: Incident) -> str:
    """The body."""
    devices = f" At least {incident.devices:,} devices are affected." if incident.devices else ""
    lines = [
        f"{incident} has met nobody since {incident.started_at:%Y-%m-%d %H:%M %Z}.{devices}",
        incident.reason,
        "",
        "No device is blamed and no message is lost: as soon as one connects, all go on by themselves.",
        "Check the network of that machine, or the gateway.",
    ]
    if settings.FLOTILLA_URL:
        lines.append(f"{settings.FLOTILLA_URL}{reverse('admin:devices_device_changelist')}")
    return "\n".join(lines)


def tell_given_up(*, now: datetime) -> int:
    """One tick: tell of outgoing webhooks that were disabled because they failed, all in one mail; returns of how many.

    Each is told once; while the mail server is down they are tried again.
    """
    untold = Subscriber.objects.filter(enabled=False, disabled_at__isnull=False, told_at=None).defer("secrets")
    found = list(untold.order_by("pk")[:100])
    to = recipients() if found else []
    if not to:
        return 0
    # Whoever stamps a row tells of it: nobody else does.
    rows = [row for row in found if untold.filter(pk=row.pk).update(told_at=now)]
    if not rows:
        return 0
    subject = f"[Flotilla] {len(rows)} outgoing webhook{'s' if len(rows) > 1 else ''} given up"
    try:
        EmailMessage(subject=subject, body=_given_up_text(rows), to=to).send()
    except (SMTPException, OSError) as problem:
        Subscriber.objects.filter(pk__in=[row.pk for row in rows], told_at=now).update(told_at=None)
        log.warning("alert.not_sent", subscribers=len(rows), error=type(problem).__name__)
        return 0
    return len(rows)


def _given_up_text(rows: Iterable[Subscriber]) -> str:
    lines = ["These programs are told nothing any more:", ""]
    for row in rows:
        lines.append(f"  “{row.name}”: {row.disabled_reason}")
        if settings.FLOTILLA_URL:
            lines.append(f"    {settings.FLOTILLA_URL}{reverse('admin:messaging_subscriber_change', args=[row.pk])}")
    lines += ["", "What waits for them is kept. Mend the address and enable them: it is told then, in order."]
    return "\n".join(lines)
