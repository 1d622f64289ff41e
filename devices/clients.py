"""Live clients of a worker process: got from here before each send, connected when needed, dropped when idle.

A platform's client holds nothing and is made in passing. A session is opened here if this process is a session host
(:meth:`ClientRegistry.settle`) and holds its lease; one thread opens it, however many ask. Sessions are closed when
there are too many, the least recently used first; when they have been idle for long and nothing is expected of them;
and when the lease goes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic

import structlog
from django.conf import settings
from django.db import connection

from devices.gateways import registry
from devices.gateways.base import Accepted, Client, DeviceConfig, Outcome, Outgoing, SessionLost, Temporary, Throttled
from devices.gateways.session_base import SessionClient
from devices.models import Device
from devices.refreshing import RefreshFailed
from devices.sessions import House

__all__ = ["ClientRegistry", "RefreshFailed", "connect", "shared_registry"]

log = structlog.get_logger(__name__)

MAX_CLIENTS = 5000
SENDS_END_SECONDS = 20.0
"""How long a session that is to be closed waits for the send that is under way."""

_loading = threading.BoundedSemaphore(4)
"""Hundreds of threads may need a client in the same moment; a few of them at a time open a database connection."""


@dataclass(slots=True)
class _Entry:
    """One device's place in the registry; its lock lets one of many callers connect, or send where it is a session."""

    device_id: int
    lock: threading.RLock = field(default_factory=threading.RLock)
    client: Client | None = None
    session: SessionClient | None = None
    version: int = 0
    used_at: float = 0.0
    left: bool = False

    def usable(self, version: int) -> bool:
        if self.client is None or self.version != version:
            return False
        return self.session is None or self.session.is_healthy()

    def close(self) -> None:
        client, self.client = self.session or self.client, None
        self.session = None
        if client is not None:
            client.close()


@dataclass(frozen=True, slots=True)
class _Held:
    """A session as senders see it: one send at a time, and none without the lease."""

    entry: _Entry
    session: SessionClient
    house: House

    def send(self, outgoing: Outgoing) -> Outcome:
        with self.entry.lock:
            if self.entry.session is not self.session or not self.house.holds(self.entry.device_id):
                return Throttled("session_moved", "Its session is moving to another worker.", 1.0)
            self.entry.used_at = monotonic()
            return self.session.send(outgoing)

    def check(self) -> Accepted | Temporary | SessionLost:
        return self.session.check()

    def close(self) -> None:
        self.session.close()


class ClientRegistry:
    """Clients by device, at most ``most`` of them, the least recently used leaving first. Safe for threads."""

    def __init__(self, *, most: int = MAX_CLIENTS) -> None:
        self._most = most
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._house: House | None = None
        self._expects: Callable[[Collection[int]], Collection[int]] = lambda _: ()

    def settle(
        self, house: House | None, *, most: int, expects: Callable[[Collection[int]], Collection[int]] = lambda _: ()
    ) -> None:
        """Make this process a session host (None: no longer), with up to ``most`` clients from now on.

        ``expects`` says of which of these devices something is expected, so that their sessions had better stay open.
        """
        self._house, self._most, self._expects = house, most, expects

    def get(self, *, device_id: int, config_version: int) -> Client:
        """The device's client, connected if it is not yet or if its settings changed. Raises RefreshFailed.

        However many callers ask at once, one of them connects and the others wait for it.
        """
        return self._get(device_id, config_version, anew=False)

    def refresh(self, *, device_id: int) -> None:
        """Connect the device anew, or ask its platform whether it can send. Raises RefreshFailed."""
        client = self._get(device_id, None, anew=True)
        if isinstance(client, _Held):
            return  # it has just logged in
        answer = client.check()
        if isinstance(answer, SessionLost):
            raise RefreshFailed(answer.code, answer.text, session_lost=True, banned=answer.banned)
        if isinstance(answer, Temporary):
            raise RefreshFailed(answer.code, answer.text)

    def _get(self, device_id: int, version: int | None, *, anew: bool) -> Client:
        while True:
            entry = self._entry(device_id)
            with entry.lock:
                if entry.left:
                    continue  # it was evicted while we waited for it
                if anew or version is None or not entry.usable(version):
                    entry.close()
                    self._connect(entry)
                entry.used_at = monotonic()
                if entry.client is not None:
                    return entry.client

    def _connect(self, entry: _Entry) -> None:
        device, config = configuration(device_id=entry.device_id)
        if registry.driver_for(device.gateway).transport == "http":
            entry.client = registry.http_driver_for(device.gateway).connect(config)
        elif self._house is None:
            raise RefreshFailed("not_here", "This worker houses no sessions.", wait_seconds=5.0)
        else:
            try:
                entry.session = self._house.open(driver=registry.session_driver_for(device.gateway), config=config)
            finally:
                if not connection.in_atomic_block:
                    connection.close()
            entry.client = _Held(entry, entry.session, self._house)
        entry.version = device.config_version

    def discard(self, *, device_id: int) -> None:
        """Close and forget the device's client, if there is one."""
        with self._lock:
            entry = self._entries.get(device_id)
        if entry is not None:
            self._leave(entry)

    def close(self) -> None:
        """Close every client."""
        self.close_sessions(lambda _: True)
        with self._lock:
            entries = list(self._entries.values())
        for entry in entries:
            self._leave(entry)

    def close_sessions(self, of: Callable[[int], bool], *, hurry: bool = False) -> int:
        """Close the sessions of these devices, many at once, after the sends under way unless in a ``hurry``."""
        with self._lock:
            entries = [entry for entry in self._entries.values() if entry.session is not None and of(entry.device_id)]
        if entries:
            with ThreadPoolExecutor(max_workers=16, thread_name_prefix="closing") as closers:
                list(closers.map(lambda entry: self._leave(entry, 0.0 if hurry else SENDS_END_SECONDS), entries))
        return len(entries)

    def sweep(self, *, idle_seconds: float) -> int:
        """Close sessions that are broken, or that have been idle for long and of which nothing is expected."""
        since = monotonic() - idle_seconds
        with self._lock:
            sessions = [entry for entry in self._entries.values() if entry.session is not None]
        broken = [entry for entry in sessions if entry.session is not None and not entry.session.is_healthy()]
        idle = [entry for entry in sessions if entry.used_at < since and entry not in broken]
        expected = set(self._expects([entry.device_id for entry in idle])) if idle else set()
        going = broken + [entry for entry in idle if entry.device_id not in expected]
        return sum(self._leave(entry, None) for entry in going)

    def sessions(self) -> int:
        """How many sessions are open."""
        with self._lock:
            return sum(entry.session is not None for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def _entry(self, device_id: int) -> _Entry:
        with self._lock:
            entry = self._entries.get(device_id)
            if entry is None:
                entry = self._entries[device_id] = _Entry(device_id)
            self._entries.move_to_end(device_id)
            crowd = list(self._entries.values())[:-1] if len(self._entries) > self._most else []
        if crowd:
            self._evict(crowd)
        return entry

    def _evict(self, crowd: Sequence[_Entry]) -> None:
        """One leaves: of the least recently used the first of which nothing is expected, and that is not at work."""
        expected = set(self._expects([entry.device_id for entry in crowd])) if self._house else set()
        for entry in sorted(crowd, key=lambda each: each.device_id in expected):
            if self._leave(entry, None):
                return

    def _leave(self, entry: _Entry, seconds: float | None = SENDS_END_SECONDS) -> bool:
        """Close it and take it out. After ``seconds`` also while it is at work; None: not while it is."""
        at_rest = entry.lock.acquire(blocking=False) if not seconds else entry.lock.acquire(timeout=seconds)
        if not at_rest and seconds is None:
            return False
        try:
            entry.left = True
            with self._lock:
                if self._entries.get(entry.device_id) is entry:
                    del self._entries[entry.device_id]
            entry.close()
        finally:
            if at_rest:
                entry.lock.release()
        return True


def connect(*, device_id: int) -> tuple[Client, int]:
    """A fresh client of a platform device and the version of the settings it was made from. Raises RefreshFailed."""
    device, config = configuration(device_id=device_id)
    return registry.http_driver_for(device.gateway).connect(config), device.config_version


def configuration(*, device_id: int) -> tuple[Device, DeviceConfig]:
    """The device as it is stored, and as its driver may know it. Raises RefreshFailed."""
    device = _load(device_id)
    if device.credentials.unreadable:
        raise RefreshFailed(
            "secrets_unreadable",
            "The stored credentials do not decrypt with any key in FLOTILLA_FIELD_KEYS: enter them again.",
            session_lost=True,
        )
    driver = registry.driver_for(device.gateway)
    return device, DeviceConfig(
        device_id=device.pk,
        base_url=device.base_url or settings.FLOTILLA_GATEWAY_URLS.get(device.gateway) or driver.default_base_url,
        credentials=device.credentials,
        options=device.options,
    )


def _load(device_id: int) -> Device:
    with _loading:
        try:
            return Device.objects.get(pk=device_id)
        except Device.DoesNotExist:
            raise RefreshFailed("device_gone", "The device was deleted.", session_lost=True) from None
        finally:
            if not connection.in_atomic_block:
                connection.close()


_shared = ClientRegistry()


def shared_registry() -> ClientRegistry:
    """This process's registry."""
    return _shared
