"""What gateways tell us: believed if signed, read by the gateway's driver, and put where it belongs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import psycopg2
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError

from devices.gateways import registry
from devices.gateways.base import BadSignature, Hook, HookRefused
from messaging.dispatch.pool import is_away
from messaging.news import Taken, take_in

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 256 * 1024


class NoSuchHook(LookupError):  # noqa: N818 - reads as a fact
    """There is no gateway of that name."""


class TryLater(Exception):  # noqa: N818 - reads as a fact
    """The database is away: the gateway will tell it again."""


def receive(*, gateway: str, headers: Mapping[str, str], body: bytes, now: datetime) -> Taken:
    """Take in one webhook request; ``headers`` have lower-case names. Taking it in twice changes nothing.

    Raises NoSuchHook, the driver's BadSignature or Malformed, and TryLater.
    """
    try:
        driver = registry.driver_for(gateway)
    except registry.UnknownGateway:
        raise NoSuchHook(gateway) from None
    secrets = settings.FLOTILLA_WEBHOOK_SECRETS.get(gateway, ())
    if not secrets:
        log.warning("hook.no_secret", gateway=gateway, remedy="set FLOTILLA_WEBHOOK_SECRETS")
        raise BadSignature("bad_signature", "No secret is set for this gateway's webhook.")
    try:
        news = driver.webhook(Hook(headers=headers, body=body, secrets=secrets, now=now))
    except HookRefused as refused:
        log.warning("hook.refused", gateway=gateway, code=refused.code, bytes=len(body))
        raise
    try:
        return take_in(gateway=gateway, news=news, now=now)
    except (OperationalError, InterfaceError) as problem:
        raise TryLater from problem
    except psycopg2.Error as problem:
        if not is_away(problem):
            raise
        raise TryLater from problem
