"""API tokens: knox' own, with a name, scopes and the moment of their last use."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from knox.models import AbstractAuthToken, AuthTokenManager

from config.scopes import FULL
from devices.access import AnyUser, Role, role_of

USE_NOTED_EVERY = timedelta(minutes=1)
"""A token's last use is exact to this: a program that calls a hundred times a second costs one UPDATE a minute."""


def full_access() -> list[str]:
    """The scopes of a token of which nobody said anything."""
    return [FULL]


class ApiTokenQuerySet(models.QuerySet[Any]):
    """Tokens by who may see them."""

    def seen_by(self, user: AnyUser) -> ApiTokenQuerySet:
        """One's own, whatever one's role; admins see all. Who sees a token may revoke it."""
        match role_of(user):
            case None:
                return self.none()
            case Role.ADMIN:
                return self
        return self.filter(user=user)


class ApiToken(AbstractAuthToken):
    """One key to the API. What opens it is stored hashed (by knox) and shown once, when it is made.

    ``token_key`` is how it begins, for people to tell it by; ``expiry`` and ``created`` are knox' names.
    """

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False, db_column="id")
    name = models.CharField(max_length=100, blank=True, help_text="What it is for, as “web shop”.")
    scopes = ArrayField(models.CharField(max_length=40), default=full_access)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = AuthTokenManager.from_queryset(ApiTokenQuerySet)()

    class Meta:
        verbose_name = "API token"
        ordering = ["-created"]

    def __str__(self) -> str:
        return f"{self.name or 'token'} ({self.token_key[:8]}…)"

    def note_use(self, *, now: datetime) -> None:
        """Write down that it was used, at most once a minute. Of several processes that would, one does."""
        horizon = now - USE_NOTED_EVERY
        if self.last_used_at is not None and self.last_used_at > horizon:
            return
        fresh = Q(last_used_at__isnull=True) | Q(last_used_at__lte=horizon)
        ApiToken.objects.filter(fresh, pk=self.pk).update(last_used_at=now)
        self.last_used_at = now
