"""A Celery worker that houses sessions: started with ``-Q devices.session``, it takes shards by lease.

It listens to a shard's bell while it holds the shard, and to none that it was given by name: two workers on one shard
would take each other's sessions away. It ends by itself, politely, when it has connected so often or grown so large
that the native libraries in it had better start afresh; whoever supervises it starts it again.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Sequence
from typing import Any

import structlog
from celery.signals import worker_shutdown
from django.conf import settings
from django.db import connection
from django.utils import timezone

from devices.clients import shared_registry
from devices.gateways.news import News
from devices.keeper import Keeper, clock
from devices.leases import Status
from devices.sessions import House, store_url
from devices.weather import Change
from messaging.bells import session_bell
from messaging.dispatch import statements as sql
from messaging.dispatch.pool import shared_pool
from messaging.dispatch.reconnect import pardon
from messaging.expecting import expected
from messaging.memory import resident_mb
from messaging.news import take_in

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 10.0
DEAF_AFTER = 0.5
"""Part of a lease after which a host that cannot reach its broker says so."""


class SessionWorker:
    """The sessions of this process, and the consumer that brings their tasks."""

    def __init__(self) -> None:
        self.clients = shared_registry()
        self.keeper = Keeper(
            name=f"{socket.gethostname()}:{os.getpid()}",
            total=settings.FLOTILLA_SESSION_SHARDS,
            seconds=settings.FLOTILLA_SESSION_LEASE_SECONDS,
            gained=self._gained,
            losing=self._losing,
            status=self._status,
        )
        self.house = House(
            holds=lambda device_id: self.keeper.holds(device_id=device_id),
            take_in=_take_in,
            store_url=store_url(),
            open_seconds=settings.FLOTILLA_SESSION_OPEN_SECONDS,
            drain_seconds=settings.FLOTILLA_SESSION_DRAIN_SECONDS,
            on_change=self._weather_changed,
        )
        self.clients.settle(self.house, most=settings.FLOTILLA_SESSIONS_PER_HOST, expects=expected)
        self._consumer: Any = None
        self._ended = threading.Event()
        self._leaving = False
        self._heard_at = clock()
        self._listener = threading.Thread(target=self._hear, name="sessions-broker", daemon=True)
        self._sweeper = threading.Thread(target=self._sweep, name="sessions-sweep", daemon=True)

    def bells(self) -> set[str]:
        """Bells of the shards that are held."""
        return {session_bell(shard) for shard in self.keeper.held()}

    def attach(self, consumer: Any) -> None:
        """The worker has (again) found its broker."""
        first, self._consumer = self._consumer is None, consumer
        if first:
            self._heard_at = clock()
            self._listener.start()
            self.keeper.start()
            self._sweeper.start()
        for bell in self.bells():
            consumer.add_task_queue(bell)

    def stop(self) -> None:
        """The worker ends, and no task runs any more: close the sessions, give the shards back."""
        self._ended.set()
        self.keeper.stop()
        self.clients.close()
        self.clients.settle(None, most=0)
        self._sweeper.join(SWEEP_SECONDS)

    # -- told by the keeper --------------------------------------------------------------------------------------------

    def _gained(self, shards: frozenset[int]) -> None:
        for shard in shards:
            self._consumer.call_soon(_listen, self._consumer, session_bell(shard))

    def _losing(self, shards: frozenset[int], hurry: bool) -> None:
        for shard in shards:
            self._consumer.call_soon(_stop_listening, self._consumer, session_bell(shard))
        total = self.keeper.total
        closed = self.clients.close_sessions(lambda device_id: device_id % total in shards, hurry=hurry)
        log.info("sessions.closed", sessions=closed, shards=sorted(shards), hurry=hurry)

    def _status(self) -> Status:
        memory_mb = resident_mb()
        worn = (
            self.house.connects >= settings.FLOTILLA_SESSION_HOST_CONNECTS
            or memory_mb >= settings.FLOTILLA_SESSION_HOST_MB
            or self.house.wedged > 0
        )
        if worn and not self._leaving:
            self._leaving = True
            log.warning(
                "sessions.host_recycled", connects=self.house.connects, memory_mb=memory_mb, wedged=self.house.wedged
            )
            os.kill(os.getpid(), signal.SIGTERM)  # Celery's warm shutdown: running tasks end first
        deaf = clock() - self._heard_at > DEAF_AFTER * settings.FLOTILLA_SESSION_LEASE_SECONDS
        return Status(self.clients.sessions(), self.house.connects, memory_mb, self._leaving, deaf)

    def _hear(self) -> None:
        """Note when the broker could last be reached: a host that gets no tasks must not keep its sessions from others.

        By a connection of its own each time: the consumer's is silent as well while all threads are busy.
        """
        app = self._consumer.app
        while not self._ended.is_set():
            try:
                with app.connection_for_write() as broker:
                    broker.connect()
                self._heard_at = clock()
            except Exception as problem:  # noqa: BLE001 - whatever it is, nobody was heard; and this thread must not end
                log.warning("sessions.broker_not_reached", error=type(problem).__name__)
            self._ended.wait(settings.FLOTILLA_SESSION_LEASE_SECONDS / 6)

    def _weather_changed(self, change: Change, reason: str) -> None:
        params = {"scope": "host", "subject": self.keeper.name, "reason": reason, "most": len(change.devices)}
        if change.began:
            shared_pool().execute(sql.INCIDENT_BEGAN, params)
            pardon(devices=change.devices, pool=shared_pool())
        else:
            shared_pool().execute(sql.INCIDENT_ENDED, params)

    def _sweep(self) -> None:
        try:
            while not self._ended.wait(SWEEP_SECONDS):
                try:
                    self.clients.sweep(idle_seconds=settings.FLOTILLA_SESSION_LINGER_SECONDS)
                except Exception:
                    log.exception("sessions.sweep_failed")
        finally:
            connection.close()


def _listen(consumer: Any, bell: str) -> None:
    if consumer.task_consumer is not None:  # else it restarts, and attaches
        consumer.add_task_queue(bell)


def _stop_listening(consumer: Any, bell: str) -> None:
    if consumer.task_consumer is not None:
        consumer.cancel_task_queue(bell)
    else:
        consumer.app.amqp.queues.deselect(bell)


def _take_in(gateway: str, news: Sequence[News]) -> None:
    take_in(gateway=gateway, news=news, now=timezone.now())


_shared: SessionWorker | None = None


def shared_host() -> SessionWorker:
    """This process's sessions."""
    global _shared  # noqa: PLW0603 - one per process is the point
    if _shared is None:
        _shared = SessionWorker()
        worker_shutdown.connect(_stop, weak=False)
    return _shared


def _stop(**_: object) -> None:
    if _shared is not None:
        _shared.stop()
