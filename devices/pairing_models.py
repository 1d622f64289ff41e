"""Attempts to link a device to a phone."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from devices.access import Access, OwnedQuerySet


class PairingState(models.TextChoices):
    """How far an attempt is. The first four are open; each of the others is its end."""

    STARTING = "starting", "Starting"
    QR = "qr", "Scan the code"
    CODE = "code", "Type the code"
    WAITING = "waiting", "Linking"
    CONNECTED = "connected", "Linked"
    EXPIRED = "expired", "Expired"
    FAILED = "failed", "Failed"
    STOPPED = "stopped", "Stopped"


OPEN = (PairingState.STARTING, PairingState.QR, PairingState.CODE, PairingState.WAITING)


class PairingAttempt(models.Model):
    """One try to link a device to a phone: what to show, and what came of it.

    Whoever runs it writes with one conditional UPDATE on "still open", so an attempt that somebody ended stays ended.
    ``seen_at`` is the runner's last sign of life. What can be scanned or typed goes when the attempt ends: it is worth
    something to whoever reads it.
    """

    access = Access(owner="device__owner")

    device = models.ForeignKey("devices.Device", on_delete=models.CASCADE, related_name="pairings")
    phone = models.CharField(max_length=20, blank=True, help_text="The number to link by code; empty: by picture.")
    state = models.CharField(max_length=10, choices=PairingState, default=PairingState.STARTING)
    qr = models.TextField(blank=True)
    qr_png = models.BinaryField(default=b"", blank=True)
    code = models.CharField(max_length=20, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=60, blank=True)
    text = models.CharField(max_length=300, blank=True)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            # one at a time for each device; also the look-up of the open one
            models.UniqueConstraint(fields=["device"], name="pairing_open", condition=Q(ended_at=None)),
            models.CheckConstraint(condition=Q(state__in=PairingState.values), name="pairing_state_known"),
        ]
        indexes = [models.Index(fields=["device", "-id"], name="pairing_latest")]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.device_id}: {self.get_state_display()}"
