"""What is wrong with an installation, and what to do about it: one look from a process that sees what others see.

Each check asks one thing of the real servers and returns findings; what it may not find out it says as well. Nothing is
changed anywhere.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import redis
import requests
from celery import current_app
from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import ERROR, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from kombu.exceptions import OperationalError as BrokerAway

from config import broker, pooler
from devices.gateways import registry
from devices.models import Device, DeviceState
from devices.session_models import SessionShard
from leads import suppression
from messaging.dispatch.publish import all_bells
from messaging.health import look_at_broker

Level = Literal["ok", "warning", "error"]

SKEW_SECONDS: Final = 2.0
"""Leases and due times are the database's; what is further off shows wrong times to people and in logs."""
INSPECT_SECONDS: Final = 3.0
BEAT_SECONDS: Final = 2.0
"""The release ticks ten times a second: two looks this far apart see it, or nobody publishes it."""
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_READ_MOST: Final = 5_000
"""Credentials that are tried, the newest first: a few hundred milliseconds."""
_FREE_SHARE, _FREE_BYTES = 0.10, 1 << 30
_FULL_SHARE, _FULL_BYTES = 0.02, 256 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact. What is not ok names its remedy."""

    level: Level
    topic: str
    text: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Every finding, as it is found. A check that breaks is a finding itself."""
    for topic, check in CHECKS:
        try:
            yield from check()
        except Exception as problem:  # noqa: BLE001 - the doctor goes on to the next patient; texts may hold addresses
            remedy = "Mend what is reported above first; if nothing is, look at this server's log."
            yield Finding("error", topic, f"This could not be looked at ({type(problem).__name__}).", remedy)


def settings_are_sound() -> Iterator[Finding]:
    """Django's own checks, and those of the house; with those for production where it is production."""
    production = bool(settings.SESSION_COOKIE_SECURE)
    found = [m for m in run_checks(include_deployment_checks=production) if m.level >= 30 and not m.is_silenced()]
    for message in found:
        level: Level = "error" if message.level >= ERROR else "warning"
        yield Finding(level, "settings", f"{message.id}: {message.msg}", message.hint or "See the text.")
    if not production:
        yield Finding(
            "warning", "settings", "This is not production: no HTTPS is demanded, and keys are made locally.",
            "Set FLOTILLA_ENV=production on a server.",
        )  # fmt: skip
    if not found:
        yield Finding("ok", "settings", "Django's checks find nothing.")


def keys_are_sound() -> Iterator[Finding]:
    """Keys that are there, long enough, and of the right form; never which."""
    wrong = []
    if len(settings.SECRET_KEY) < 50 or len(set(settings.SECRET_KEY)) < 10:
        wrong.append(("FLOTILLA_SECRET_KEY is short or monotonous", "Make a new one; everybody logs in again."))
    for place, key in enumerate(settings.FIELD_KEYS, start=1):
        try:
            Fernet(key)
        except ValueError:
            wrong.append((f"FLOTILLA_FIELD_KEYS: key {place} is no Fernet key", "Take it from “manage.py setup”."))
    if not settings.SUPPRESSION_KEYS or min(map(len, settings.SUPPRESSION_KEYS)) < 20:
        remedy = "Put a longer one in front and keep the old: numbers already suppressed are hashed with it."
        wrong.append(("FLOTILLA_SUPPRESSION_KEYS holds a short key", remedy))
    for text, remedy in wrong:
        yield Finding("error", "keys", f"{text}.", remedy)
    if not wrong:
        yield Finding("ok", "keys", "All keys are there and of the right form.")


def keys_fit_what_is_stored() -> Iterator[Finding]:
    """Keys of the right form that are not the ones the rows were written with: after a restore, or on a new server."""
    rows = Device.objects.exclude(credentials="").order_by("-pk").values_list("credentials", flat=True)
    looked = [bool(found.unreadable) for found in rows[:_READ_MOST]]
    if any(looked):
        yield Finding(
            "error", "keys", f"Of {len(looked):,} stored credentials {sum(looked):,} cannot be read: wrong keys.",
            "Put the key they were written with back into FLOTILLA_FIELD_KEYS, behind the newest.",
        )  # fmt: skip
    try:
        suppression.suppressed(owner_id=0, phones=[])
    except ImproperlyConfigured as problem:
        yield Finding("error", "keys", str(problem), "Until then no lead can be added.")
        return
    if not any(looked):
        yield Finding("ok", "keys", "They read what is stored.")


def database_is_sound() -> Iterator[Finding]:
    """Answers, agrees on the time, is migrated, has room for connections, keeps what it commits."""
    before = time.time()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM clock_timestamp())::float8, current_setting('server_version'), "
            "current_setting('max_connections')::int, (SELECT count(*) FROM pg_stat_activity)::int, "
            "current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'"
        )
        there, version, most, used, durable = cursor.fetchone()
    yield _clock("database", there, before, time.time())
    plan = MigrationExecutor(connection).migration_plan(MigrationExecutor(connection).loader.graph.leaf_nodes())
    if plan:
        yield Finding(
            "error", "database", f"{len(plan)} migrations are not applied.", "Run “manage.py migrate”, then restart."
        )
    if used > 0.8 * most:
        yield Finding(
            "warning", "database", f"{used} of {most} connections are in use.",
            "Raise max_connections, or lower FLOTILLA_POOL_SIZE and FLOTILLA_SESSIONS_PER_HOST.",
        )  # fmt: skip
    if not durable:
        yield Finding(
            "error", "database", "fsync or full_page_writes is off: a power cut loses what was sent.",
            "Switch both on in postgresql.conf.",
        )  # fmt: skip
    yield Finding("ok", "database", f"PostgreSQL {version} answers; {used} of {most} connections are in use.")


def pooler_is_sound() -> Iterator[Finding]:
    """Who pools connections told us so, and ends transactions that sleep."""
    url, direct_url = os.environ.get("DATABASE_URL", ""), os.environ.get("FLOTILLA_DIRECT_DATABASE_URL", "")
    if not url:
        return
    seen = pooler.look(url)
    if not direct_url:
        if seen.pools:
            yield Finding(
                "error", "pooler", "DATABASE_URL leads to a pooler, and nobody said so: locks and limits get lost.",
                "Set FLOTILLA_DIRECT_DATABASE_URL to PostgreSQL's own address, everywhere.",
            )  # fmt: skip
        return
    straight = pooler.look(direct_url)
    if straight.pools or straight.server != seen.server:
        yield Finding(
            "error", "pooler", "FLOTILLA_DIRECT_DATABASE_URL does not lead straight to the database of DATABASE_URL.",
            "Write the address there that the pooler itself connects to.",
        )  # fmt: skip
    elif not seen.idle_seconds and settings.FLOTILLA_IDLE_TRANSACTION_SECONDS:
        yield Finding(
            "warning", "pooler", "Behind the pooler a frozen process keeps what it has locked for ever.",
            "ALTER DATABASE … SET idle_in_transaction_session_timeout = "
            f"'{settings.FLOTILLA_IDLE_TRANSACTION_SECONDS:.0f}s', then RECONNECT in the pooler's console.",
        )  # fmt: skip
    else:
        yield Finding("ok", "pooler", "It answers, and leads where FLOTILLA_DIRECT_DATABASE_URL leads.")


def broker_is_sound() -> Iterator[Finding]:
    """Answers, agrees on the time, and never throws a queue away."""
    client = broker.client(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=5)
    try:
        before = time.time()
        seconds, micros = client.time()
        yield _clock("broker", seconds + micros / 1_000_000, before, time.time())
        info: dict[str, Any] = {**client.info("memory"), **client.info("persistence"), **client.info("stats")}
    except redis.RedisError as problem:
        yield Finding(
            "error", "broker", f"It does not answer ({type(problem).__name__}): nothing is sent, and nothing is lost.",
            "Start it, and check REDIS_URL; what waits goes out by itself once it is back.",
        )  # fmt: skip
        return
    finally:
        client.close()
    yield from broker_findings(info)


def broker_findings(info: dict[str, Any]) -> Iterator[Finding]:
    """What INFO tells (Valkey manual, INFO: memory, persistence, stats)."""
    policy, limit = info.get("maxmemory_policy", ""), int(info.get("maxmemory", 0))
    used = int(info.get("used_memory", 0))
    if policy != "noeviction":
        yield Finding(
            "error", "broker", f"maxmemory-policy is {policy or 'not told'}: queues may be thrown away to make room.",
            "Set “maxmemory-policy noeviction” in the server's configuration, or at your provider.",
        )  # fmt: skip
    if int(info.get("evicted_keys", 0)):
        yield Finding(
            "warning", "broker", f"{info['evicted_keys']} keys were evicted since it started.",
            "Nothing is lost (messages are published again from their rows), but set noeviction and more memory.",
        )  # fmt: skip
    if not int(info.get("aof_enabled", 0)):
        yield Finding(
            "warning", "broker", "The append-only file is off: a restart empties the queues, and they fill again late.",
            "Set “appendonly yes”.",
        )  # fmt: skip
    if not limit:
        yield Finding(
            "warning", "broker", "No maxmemory is set: it may grow until the system ends it.",
            "Set maxmemory to what this machine can spare; 512 MB serve thousands of devices.",
        )  # fmt: skip
    elif used > 0.8 * limit:
        yield Finding(
            "error", "broker", f"It uses {used >> 20} of {limit >> 20} MB; at the limit nothing can be published.",
            "Raise maxmemory; look in Flower which queue grows, and whether its workers are alive.",
        )  # fmt: skip
    yield Finding("ok", "broker", f"It answers and uses {used >> 20} MB.")


def workers_are_alive() -> Iterator[Finding]:
    """Every queue has somebody who listens, and beat's ticks arrive. Asks the workers themselves."""
    inspect = current_app.control.inspect(timeout=INSPECT_SECONDS)
    try:
        queues = inspect.active_queues() or {}
    except BrokerAway:
        yield Finding("error", "workers", "They cannot be asked: the broker does not answer.", "Mend the broker first.")
        return
    yield from coverage_findings({queue["name"] for listens in queues.values() for queue in listens or ()})
    yield (
        Finding("ok", "workers", f"{len(queues)} workers answer.")
        if queues
        else Finding(
            "error", "workers", "No worker answers.", "Start them: manage.py serve control, devices, sessions, pairing."
        )
    )
    if queues:
        yield _beat(_ticks)


def coverage_findings(heard: set[str]) -> Iterator[Finding]:
    """Which queues of the installation nobody of the workers listens to; ``heard`` is what they listen to."""
    for role in ("control", "pairing"):
        if role not in heard:
            remedy = f"Start a worker with “manage.py serve {role}”."
            yield Finding("error", "workers", f"No worker listens to the queue “{role}”.", remedy)
    missing = [bell for bell in all_bells() if bell not in heard]
    if missing:
        yield Finding(
            "error", "workers", f"Nobody serves {', '.join(missing)}: devices of these shards send nothing.",
            "Start “manage.py serve devices”; with numbers, one for each below FLOTILLA_DEVICE_WORKERS.",
        )  # fmt: skip
    paired = Device.objects.filter(gateway__in=registry.session_kinds()).exclude(state=DeviceState.UNPAIRED)
    if paired.exists():
        free = SessionShard.objects.filter(host=None).count()
        if free or not SessionShard.objects.exists():
            yield Finding(
                "error", "workers", f"{free or 'All'} session shards have no host: their sessions are closed.",
                "Start “manage.py serve sessions”; a new host takes free shards within a minute.",
            )  # fmt: skip


def _ticks() -> int:
    """How many releases the workers that answer have done since they started."""
    stats = current_app.control.inspect(timeout=INSPECT_SECONDS).stats() or {}
    return sum((worker.get("total") or {}).get("messaging.release", 0) for worker in stats.values())


_STANDBY: Final = ("no other stands by, so nothing is released while it restarts", "another stands by")


def _beat(ticks: Callable[[], int]) -> Finding:
    first = ticks()
    time.sleep(BEAT_SECONDS)
    if ticks() > first:
        spare = look_at_broker().beats.standbys
        return Finding("ok", "beat", f"Its ticks arrive; {_STANDBY[min(spare, 1)]}.")
    return Finding(
        "error", "beat", f"No release ran within {BEAT_SECONDS:g} seconds: nothing new is sent.",
        "Start “manage.py serve beat”; if it runs, look whether the control worker is busy or its queue is long.",
    )  # fmt: skip


def gateways_answer() -> Iterator[Finding]:
    """Somebody listens at every address that connected devices use, and signed webhooks have their secret."""
    rows = Device.objects.filter(state=DeviceState.ACTIVE).order_by().values_list("gateway", "base_url").distinct()[:50]
    for kind, address in rows:
        if kind not in registry.kinds() or registry.driver_for(kind).transport != "http":
            continue
        driver = registry.http_driver_for(kind)
        told = address or settings.FLOTILLA_GATEWAY_URLS.get(kind, "")
        yield _answers(driver.label, told or driver.default_base_url, told=bool(told))
        if driver.signs_webhooks and kind not in settings.FLOTILLA_WEBHOOK_SECRETS:
            yield Finding(
                "warning", "gateways",
                f"{driver.label} signs its webhooks, and no secret is set: only addresses of single devices are heard.",
                f"Set {kind}=… in FLOTILLA_WEBHOOK_SECRETS, and the same secret at the gateway.",
            )  # fmt: skip


def _answers(label: str, url: str, *, told: bool) -> Finding:
    """Whether anybody is there; ``told`` where a device or the settings name the address."""
    try:
        requests.get(url, timeout=(5, 10), allow_redirects=False, stream=True).close()
    except requests.RequestException as problem:
        if not told and urlsplit(url).hostname in _THIS_MACHINE:
            # Beside a local stack, whose programs alone are told where its simulator is.
            return Finding(
                "warning", "gateways", f"This process is not told where {label} is; nobody answers where it may be.",
                "Give it the environment of the workers (FLOTILLA_GATEWAY_URLS), then look again.",
            )  # fmt: skip
        return Finding(
            "error", "gateways", f"{label} does not answer at its address ({type(problem).__name__}).",
            "Check that it runs and that this machine may reach it; the address is at the device.",
        )  # fmt: skip
    return Finding("ok", "gateways", f"{label} answers.")


def webhooks_are_reachable() -> Iterator[Finding]:
    """What gateways and people call: this installation by its own name."""
    url = settings.FLOTILLA_URL
    if not url:
        yield Finding(
            "warning", "webhooks", "FLOTILLA_URL is not set: links in mails and to files lead nowhere.",
            "Set it to the address by which gateways and people reach this installation.",
        )  # fmt: skip
        return
    try:
        answer = requests.get(f"{url}/healthz", timeout=(5, 10), allow_redirects=False)
        ours = answer.status_code == 200 and answer.json() == {"status": "ok"}
        told = f"answers {answer.status_code}"
    except ValueError:  # requests' JSONDecodeError is one, and its other errors are not
        ours, told = False, "answers something else"
    except requests.RequestException as problem:
        ours, told = False, f"does not answer ({type(problem).__name__})"
    if ours:
        yield Finding("ok", "webhooks", "The installation answers at FLOTILLA_URL.")
    else:
        yield Finding(
            "error", "webhooks", f"{url}/healthz {told}: receipts and replies do not arrive.",
            "Check name, proxy and certificate; FLOTILLA_HOSTS must hold this name. Look from outside as well.",
        )  # fmt: skip


def disk_has_room() -> Iterator[Finding]:
    """Where uploaded files go. The database's disk is on its own server: look there too."""
    folder = Path(settings.MEDIA_ROOT)
    while not folder.exists():
        folder = folder.parent
    yield disk_finding(shutil.disk_usage(folder).total, shutil.disk_usage(folder).free)


def disk_finding(total: int, free: int) -> Finding:
    """Bytes of the disk, and those that are free."""
    text = f"{free >> 20} of {total >> 20} MB are free where files are kept."
    remedy = "Make room, or move FLOTILLA_MEDIA_ROOT to a larger disk."
    if free < min(_FULL_SHARE * total, _FULL_BYTES):
        return Finding("error", "disk", text, remedy)
    if free < _FREE_BYTES or free < min(_FREE_SHARE * total, 10 * _FREE_BYTES):
        return Finding("warning", "disk", text, remedy)
    return Finding("ok", "disk", text)


def _clock(whose: str, there: float, before: float, after: float) -> Finding:
    """``there`` was read at some moment between ``before`` and ``after`` of this machine."""
    off = max(before - there, there - after, 0.0)
    if off <= SKEW_SECONDS:
        return Finding("ok", whose, "Its clock agrees with this machine's.")
    return Finding(
        "error",
        whose,
        f"Its clock and this machine's differ by {off:.1f} seconds.",
        "Run NTP (chrony) on both machines.",
    )


CHECKS: Final[Sequence[tuple[str, Callable[[], Iterator[Finding]]]]] = (
    ("settings", settings_are_sound),
    ("keys", keys_are_sound),
    ("database", database_is_sound),
    ("pooler", pooler_is_sound),
    ("keys", keys_fit_what_is_stored),
    ("broker", broker_is_sound),
    ("workers", workers_are_alive),
    ("gateways", gateways_answer),
    ("webhooks", webhooks_are_reachable),
    ("disk", disk_has_room),
)
