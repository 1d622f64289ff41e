"""Tables of the web application itself, rather than of any app."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, models
from django.utils import timezone

from config.audit_models import AuditEntry
from config.demo_models import DemoData
from config.legacy_models import LegacyMove, LegacyRow
from config.login_models import RecoveryCode, SecondFactor
from config.token_models import ApiToken
from devices.access import Access, OwnedQuerySet

__all__ = [
    "ApiToken",
    "AuditEntry",
    "DemoData",
    "FailureDigest",
    "IdempotencyKey",
    "LegacyMove",
    "LegacyRow",
    "RecoveryCode",
    "SecondFactor",
]

KEY_LIFETIME = timedelta(hours=24)
"""How long a repeated request finds the answer of the first."""


class IdempotencyKeyQuerySet(OwnedQuerySet):
    """Keys, and the one statement that decides who is first."""

    def expired(self, *, now: datetime) -> IdempotencyKeyQuerySet:
        """Keys nobody may rely on any more."""
        return self.filter(created_at__lt=now - KEY_LIFETIME)

    def claim(self, *, user_id: int, key: str, fingerprint: str, now: datetime) -> bool:
        """Insert the key; False when another request has it already.

        While another transaction holds the same key uncommitted, PostgreSQL makes this INSERT wait for its end: a
        commit means False, a rollback that the key is ours. That wait is what lines concurrent duplicates up.
        """
        self.expired(now=now).filter(user_id=user_id, key=key).delete()
        with connection.cursor() as cursor:
            cursor.execute(
                """INSERT INTO config_idempotencykey
                       (user_id, key, fingerprint, status, content_type, location, body, created_at)
                   VALUES (%s, %s, %s, 0, '', '', '', %s)
                   ON CONFLICT (user_id, key) DO NOTHING""",
                [user_id, key, fingerprint, now],
            )
            return bool(cursor.rowcount)


class IdempotencyKey(models.Model):
    """One answered POST: what was asked (as a hash) and what was answered, committed together with its effect."""

    access = Access(owner="user")

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="idempotency_keys")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of method, address and body.")
    status = models.PositiveSmallIntegerField()
    content_type = models.CharField(max_length=100, blank=True)
    location = models.CharField(max_length=300, blank=True)
    body = models.BinaryField()
    created_at = models.DateTimeField(default=timezone.now)

    objects = IdempotencyKeyQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_user_key")]
        indexes = [
            # the clean-up of expired keys
            models.Index(fields=["created_at"], name="idempotency_created"),
        ]


class FailureDigest(models.Model):
    """How far the admins have been told of failures: one row. ``lease_until`` is set while one process is telling."""

    ONLY = 1

    reported_until = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"failures told until {self.reported_until:%Y-%m-%d %H:%M:%S}"
