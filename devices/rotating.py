"""Secrets that programs outside share with us: shown once, and changed while both sides go on working."""

from __future__ import annotations

import secrets as tokens
from datetime import datetime, timedelta
from typing import Final

import structlog
from django.db import models, transaction

from devices.secrets import Secrets, SecretsField

log = structlog.get_logger(__name__)

KEEP_HOURS: Final = 24
"""For so long the secret before a new one counts as well, unless told otherwise."""


class RotatingSecret(models.Model):
    """A row with a secret that is readable once.

    ``secrets`` holds ``secret`` and, while a rotation lasts (until ``previous_until``), ``previous``.
    """

    secrets = SecretsField(blank=True, default=dict, editable=False)
    previous_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Until when the secret before this one still signs."
    )

    class Meta:
        abstract = True

    def equip(self) -> str:
        """Give a new, unsaved row its secret, and return it."""
        secret = tokens.token_urlsafe(32)
        self.secrets = Secrets({"secret": secret})
        return secret

    def rotate(self, *, now: datetime, keep_hours: float = KEEP_HOURS) -> str:
        """A new secret, written at once; the one before counts for another ``keep_hours``. Zero: not any more."""
        secret = tokens.token_urlsafe(32)
        with transaction.atomic():
            # of two at once, the second keeps the secret that the first one showed
            locked = type(self)._default_manager.select_for_update(no_key=True).get(pk=self.pk)  # noqa: SLF001 - Django's own idiom
            before = locked.secrets.get("secret", "") if keep_hours > 0 else ""
            locked.secrets = Secrets({"secret": secret, **({"previous": before} if before else {})})
            locked.previous_until = now + timedelta(hours=keep_hours) if before else None
            locked.save(update_fields=["secrets", "previous_until"])
        self.previous_until = locked.previous_until
        log.info("secret.rotated", row=self._meta.label_lower, id=self.pk)
        return secret

    def valid_secrets(self, *, now: datetime) -> tuple[str, ...]:
        """Those that count, the newest first; none where no field key in use decrypts them."""
        found = [self.secrets.get("secret", "")]
        if self.previous_until is not None and now < self.previous_until:
            found.append(self.secrets.get("previous", ""))
        return tuple(secret for secret in found if secret)
