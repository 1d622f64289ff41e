"""One e-mail to the admins when many devices fail for one reason: per incident, not per device."""

from __future__ import annotations

from datetime import datetime, timedelta
from smtplib import SMTPException

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.urls import reverse

from config.digest import recipients
from devices.session_models import Incident

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
