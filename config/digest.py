"""One e-mail to the admins about what has failed for good: by batch and reason, never more than one in a while."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from smtplib import SMTPException
from urllib.parse import urlencode

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.core.mail import EmailMessage
from django.db.models import Q
from django.urls import reverse

from config.models import FailureDigest
from devices.access import Role
from messaging import failures
from messaging.failures import Failures

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=5)
"""How long one process may take to hand the mail over before another tries."""

LINES = 30
_PHONE = re.compile(r"\+\d[\d ()-]{5,}\d|\d{7,}")


def send_due(*, now: datetime) -> bool:
    """One tick: tell what has failed since the last digest, if there is anything and if it is time. Whether it did.

    The row's lease lets one of many processes send. The position moves on only once the mail server has taken the
    mail: while it is down nothing is lost, and the first mail that passes says it all.
    """
    failures.notice()
    interval = timedelta(seconds=settings.FLOTILLA_DIGEST_SECONDS)
    row, _ = FailureDigest.objects.get_or_create(pk=FailureDigest.ONLY, defaults={"reported_until": now - interval})
    if row.sent_at is not None and now < row.sent_at + interval:
        return False
    found = failures.since(row.reported_until)
    if not found:
        return False
    until = max(each.latest for each in found)
    to = recipients()
    if not to:  # whoever is named later hears of what fails from then on
        FailureDigest.objects.filter(pk=row.pk, reported_until=row.reported_until).update(reported_until=until)
        return False
    mine = FailureDigest.objects.filter(pk=row.pk, lease_until=now + LEASE)
    free = FailureDigest.objects.filter(pk=row.pk, reported_until=row.reported_until)
    if not free.filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now)).update(lease_until=now + LEASE):
        return False
    number = sum(each.number for each in found)
    try:
        EmailMessage(subject=f"[Flotilla] {_messages(number)} failed", body=text_of(found), to=to).send()
    except (SMTPException, OSError) as problem:
        mine.update(lease_until=None)
        log.warning("digest.not_sent", messages=number, error=type(problem).__name__)
        return False
    mine.update(reported_until=until, sent_at=now, lease_until=None)
    log.info("digest.sent", messages=number, recipients=len(to))
    return True


def recipients() -> list[str]:
    """``FLOTILLA_ALERT_EMAILS``, else the addresses of everybody who is an admin."""
    if settings.FLOTILLA_ALERT_EMAILS:
        return list(settings.FLOTILLA_ALERT_EMAILS)
    admins = User.objects.filter(Q(groups__name=Role.ADMIN) | Q(is_superuser=True), is_active=True).exclude(email="")
    return sorted(set(admins.values_list("email", flat=True)))


def text_of(found: Sequence[Failures]) -> str:
    """The body: a line per batch and reason with the link to its messages. Phone numbers are left out."""
    lines = ["These messages failed for good since the last mail of this kind:", ""]
    for each in found[:LINES]:
        name = f"“{_PHONE.sub('…', each.batch_name)}”" if each.batch_id else "Single messages"
        lines.append(f"{each.number:>9,}  {name}: {_PHONE.sub('…', each.code) or 'no reason given'}")
        if settings.FLOTILLA_URL:
            lines.append(f"           {link(each.batch_id)}")
    if len(found) > LINES:
        lines.append(f"           and {len(found) - LINES:,} more batches and reasons")
    wait = timedelta(seconds=settings.FLOTILLA_DIGEST_SECONDS)
    lines += [
        "",
        "They are kept and can be retried from the admin or the API.",
        f"The next mail comes in {wait} at the earliest.",
    ]
    return "\n".join(lines)


def link(batch_id: int | None) -> str:
    """Where the admin lists the failed messages of a batch, or all of them."""
    query = {"state__exact": "failed", **({"batch__id__exact": batch_id} if batch_id else {})}
    return f"{settings.FLOTILLA_URL}{reverse('admin:messaging_message_changelist')}?{urlencode(query)}"


def _messages(number: int) -> str:
    return "1 message" if number == 1 else f"{number:,} messages"
