"""The second factor of people who log in."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from devices.secrets import SecretsField


class SecondFactor(models.Model):
    """An authenticator app that one person has: the seed of its codes, encrypted.

    Without ``confirmed_at`` it has been shown and not been proved yet, and nothing asks for it.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="second_factor"
    )
    sealed = SecretsField(help_text="The seed, by the installation's field keys.")
    confirmed_at = models.DateTimeField(null=True, blank=True)
    last_step = models.BigIntegerField(default=0, help_text="The 30 seconds whose code was last accepted, of 1970.")

    def __str__(self) -> str:
        return f"second factor of user {self.pk}"


class RecoveryCode(models.Model):
    """One code that stands in for a lost app, once. Kept as a hash: it is random enough to need no salt."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "digest"], name="recovery_code_once")]

    def __str__(self) -> str:
        return f"recovery code of user {self.user_id}"
