"""Authenticator apps as a second factor of log-ins (RFC 6238: SHA-1, six digits, 30 seconds, as every app reads).

The arithmetic is cryptography's. The seed is stored by the installation's field keys and recovery codes as hashes,
which the ready-made packages for Django do not do: what somebody reads in a stolen backup opens nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b32decode, b32encode
from datetime import datetime
from typing import Final

import structlog
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from config.login_models import RecoveryCode, SecondFactor
from devices.access import AnyUser, Role, role_of
from devices.secrets import Secrets

log = structlog.get_logger(__name__)

STEP_SECONDS: Final = 30
DIGITS: Final = 6
DRIFT_STEPS: Final = 1
"""How far a phone's clock may be off, in steps, to both sides."""
RECOVERY_CODES: Final = 10
_SEED_BYTES: Final = 20
_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""Of recovery codes: what people cannot mistake for one another. Twelve of 31 letters are 59 bits."""
_KEY: Final = "seed"


class AlreadyOn(Exception):  # noqa: N818 - reads as a fact
    """This person has a second factor; it is taken off before another is set up."""


def is_on(user: User) -> bool:
    """Whether a log-in of ``user`` takes a code."""
    return SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).exists()


def owed(user: AnyUser) -> bool:
    """Whether the installation wants a second factor of ``user``, who has none."""
    if not settings.FLOTILLA_ADMINS_NEED_CODES or not isinstance(user, User) or role_of(user) is not Role.ADMIN:
        return False
    return not is_on(user)


def begin(*, user: User) -> str:
    """A new seed for ``user``, as apps take it (base 32), until it is confirmed; a confirmed one is left alone.

    Asked again before it is confirmed, the same seed: a page that is loaded anew shows the same QR code. Raises
    AlreadyOn.
    """
    row, _made = SecondFactor.objects.get_or_create(
        user=user, defaults={"sealed": Secrets({_KEY: secrets.token_hex(_SEED_BYTES)})}
    )
    if row.confirmed_at is not None:
        raise AlreadyOn
    return b32encode(_seed(row)).decode()


def address(*, user: User, seed: str) -> str:
    """What the QR code holds: the ``otpauth`` address that authenticator apps read."""
    return _totp(seed_bytes=b32decode(seed)).get_provisioning_uri(user.get_username(), "Flotilla")


def confirm(*, user: User, code: str, now: datetime) -> list[str] | None:
    """Turn it on with a first code of the app. Recovery codes, shown this once; None if the code is not right."""
    with transaction.atomic():
        row = SecondFactor.objects.select_for_update().filter(user=user, confirmed_at__isnull=True).first()
        step = _step_of(row, code, now) if row else None
        if row is None or step is None:
            return None
        SecondFactor.objects.filter(pk=row.pk).update(confirmed_at=now, last_step=step)
        RecoveryCode.objects.filter(user=user).delete()
        codes = ["".join(secrets.choice(_LETTERS) for _ in range(12)) for _ in range(RECOVERY_CODES)]
        RecoveryCode.objects.bulk_create([RecoveryCode(user=user, digest=_digest(user, each)) for each in codes])
    log.info("second_factor.on", user_id=user.pk)
    return ["-".join((each[:4], each[4:8], each[8:])) for each in codes]


def accept(*, user: User, code: str, now: datetime) -> bool:
    """Whether ``code`` is the app's or a recovery code, and use it up: neither opens anything twice.

    Both are one conditional UPDATE, so of two requests with the same code one is refused.
    """
    row = SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).first()
    if row is None:
        return False
    step = _step_of(row, code, now)
    if step is not None:
        return bool(SecondFactor.objects.filter(pk=row.pk, last_step__lt=step).update(last_step=step))
    used = RecoveryCode.objects.filter(user=user, digest=_digest(user, code), used_at__isnull=True).update(used_at=now)
    if used:
        log.warning("second_factor.recovery_code_used", user_id=user.pk)
    return bool(used)


def remove(*, user: User) -> bool:
    """Log-ins of ``user`` take no code any more. False if they took none."""
    with transaction.atomic():
        RecoveryCode.objects.filter(user=user).delete()
        gone = SecondFactor.objects.filter(user=user).delete()[0]
    if gone:
        log.warning("second_factor.off", user_id=user.pk)
    return bool(gone)


def _seed(row: SecondFactor) -> bytes:
    """Empty where no field key opens it any more: then no code is right, and recovery codes are."""
    return bytes.fromhex(row.sealed.get(_KEY, ""))


def _totp(*, seed_bytes: bytes) -> TOTP:
    return TOTP(seed_bytes, DIGITS, SHA1(), STEP_SECONDS)  # noqa: S303 - what the standard and every app use


def _step_of(row: SecondFactor, code: str, now: datetime) -> int | None:
    """The step whose code this is, within the drift; None where it is none of them."""
    given = "".join(code.split())
    seed = _seed(row)
    if len(given) != DIGITS or not (given.isascii() and given.isdigit()) or not seed:
        return None
    totp, current = _totp(seed_bytes=seed), int(now.timestamp()) // STEP_SECONDS
    for step in range(current - DRIFT_STEPS, current + DRIFT_STEPS + 1):
        if secrets.compare_digest(totp.generate(step * STEP_SECONDS), given.encode()):
            return step
    return None


def _digest(user: User, code: str) -> str:
    plain = "".join(letter for letter in code.lower() if letter.isalnum())
    return hashlib.sha256(f"{user.pk}:{plain}".encode()).hexdigest()
