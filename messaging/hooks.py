"""What gateways tell us: believed if signed, or if it came where nobody else can find it; then put where it belongs.

A gateway posts to one address for all (``/hooks/<gateway>``, signed) or to a device's own (with a key: see
:mod:`devices.hook_keys`). What comes to a device's own address is news of that device and no other, whatever it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import psycopg2
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError

from devices.gateways import registry
from devices.gateways.base import Gateway
from devices.gateways.news import BadSignature, Challenged, Hook, HookRefused, News
from devices.hook_keys import digest_of
from devices.secrets import decrypt
from messaging.dispatch.pool import is_away, shared_pool
from messaging.dispatch.prepared import Statement
from messaging.news import Taken, take_in

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 256 * 1024
SIGNING = ("webhook_secret", "app_secret")
"""Names of the credentials that may have signed a device's webhooks."""

# Index of hook_key's digest. Not through Django's connection: receipts need none, and a burst of them opens none.
FIND = Statement(
    "hook_key_find",
    """
SELECT d.id, d.credentials FROM devices_hookkey k JOIN devices_device d ON d.id = k.device_id
WHERE k.digest = %(digest)s AND d.gateway = %(gateway)s AND (k.expires_at IS NULL OR k.expires_at > flotilla_now())
""",
)


class NoSuchHook(LookupError):  # noqa: N818 - reads as a fact
    """There is no gateway of that name, or no device of it with that key."""


class TryLater(Exception):  # noqa: N818 - reads as a fact
    """The database is away: the gateway will tell it again."""


@dataclass(frozen=True, slots=True)
class _Sender:
    """Who may have posted: the device whose own address it was, and the secrets that may have signed."""

    device_id: int | None
    secrets: tuple[str, ...] = field(repr=False)
    verify_token: str = field(default="", repr=False)


def receive(*, gateway: str, headers: Mapping[str, str], body: bytes, now: datetime, key: str = "") -> Taken:
    """Take in one webhook request; ``headers`` have lower-case names. Taking it in twice changes nothing.

    With ``key``, it came to the address of the device that has it. Raises NoSuchHook, the driver's BadSignature or
    Malformed, and TryLater.
    """
    driver = _driver(gateway)
    try:
        sender = _sender(driver, key)
        news = _read(driver, Hook(headers, body, sender.secrets, now, device_id=sender.device_id))
        return take_in(gateway=gateway, news=news, now=now)
    except (OperationalError, InterfaceError) as problem:
        raise TryLater from problem
    except psycopg2.Error as problem:
        if not is_away(problem):
            raise
        raise TryLater from problem


def challenge(*, gateway: str, key: str, query: Mapping[str, str]) -> str:
    """What to answer a gateway that asks whether a device's address is ours, before it posts there.

    The token it must know is the device's ``verify_token``, else the key itself. Raises NoSuchHook, BadSignature, and
    TryLater.
    """
    driver = _driver(gateway)
    try:
        sender = _sender(driver, key)
    except psycopg2.Error as problem:
        if not is_away(problem):
            raise
        raise TryLater from problem
    if not isinstance(driver, Challenged):
        raise NoSuchHook(gateway)
    answer = driver.challenge(query=query, tokens=(sender.verify_token or key,))
    if answer is None:
        log.warning("hook.challenge_failed", gateway=gateway, device_id=sender.device_id)
        raise BadSignature("bad_signature", "The verify token is not the one of this address.")
    return answer


def _driver(gateway: str) -> Gateway:
    try:
        return registry.driver_for(gateway)
    except registry.UnknownGateway:
        raise NoSuchHook(gateway) from None


def _sender(driver: Gateway, key: str) -> _Sender:
    """Raises NoSuchHook, or BadSignature where nothing could prove who posts."""
    shared = settings.FLOTILLA_WEBHOOK_SECRETS.get(driver.kind, ())
    if not key:
        if not driver.signs_webhooks:
            raise BadSignature("bad_signature", "This gateway signs nothing: it must post to its device's own address.")
        if not shared:
            log.warning("hook.no_secret", gateway=driver.kind, remedy="set FLOTILLA_WEBHOOK_SECRETS")
            raise BadSignature("bad_signature", "No secret is set for this gateway's webhook.")
        return _Sender(None, shared)
    rows = shared_pool().execute(FIND, {"digest": digest_of(key), "gateway": driver.kind})
    if not rows:
        raise NoSuchHook(driver.kind)
    device_id, sealed = rows[0]
    if not driver.signs_webhooks:
        return _Sender(device_id, ())
    credentials = decrypt(sealed)
    own = tuple(secret for name in SIGNING if (secret := credentials.get(name)))
    if not own and not shared:
        log.warning("hook.no_secret", gateway=driver.kind, device_id=device_id, remedy="enter the device's secret")
    return _Sender(device_id, (*own, *shared), credentials.get("verify_token", ""))


def _read(driver: Gateway, hook: Hook) -> tuple[News, ...]:
    try:
        news = driver.webhook(hook)
    except HookRefused as refused:
        log.warning(
            "hook.refused", gateway=driver.kind, device_id=hook.device_id, code=refused.code, bytes=len(hook.body)
        )
        raise
    if hook.device_id is None:
        return news
    return tuple(replace(each, device_id=hook.device_id) for each in news)
