"""Live clients of a worker process: got from here before each send, connected when needed, dropped when idle."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import structlog
from django.conf import settings
from django.db import connection

from devices.gateways import registry
from devices.gateways.base import Client, DeviceConfig
from devices.models import Device

log = structlog.get_logger(__name__)

MAX_CLIENTS = 5000

_loading = threading.BoundedSemaphore(4)
"""Hundreds of threads may need a client in the same moment; a few of them at a time open a database connection."""


class RefreshFailed(Exception):  # noqa: N818 - reads as a fact
    """A device could not be connected. ``session_lost`` says that only a person can mend it."""

    def __init__(self, code: str, text: str, *, session_lost: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.session_lost = session_lost


@dataclass(slots=True)
class _Entry:
    """One device's place in the registry; its lock lets one of many callers connect."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    client: Client | None = None
    version: int = 0


class ClientRegistry:
    """Clients by device, at most ``most`` of them, the least recently used leaving first. Safe for threads."""

    def __init__(self, *, most: int = MAX_CLIENTS) -> None:
        self._most = most
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, *, device_id: int, config_version: int) -> Client:
        """The device's client, connected if it is not yet or if its settings changed. Raises RefreshFailed.

        However many callers ask at once, one of them connects and the others wait for it.
        """
        entry = self._entry(device_id)
        with entry.lock:
            if entry.client is None or entry.version != config_version:
                if entry.client is not None:
                    entry.client.close()
                    entry.client = None
                entry.client, entry.version = connect(device_id=device_id)
            return entry.client

    def discard(self, *, device_id: int) -> None:
        """Close and forget the device's client, if there is one."""
        with self._lock:
            entry = self._entries.pop(device_id, None)
        _close(entry)

    def close(self) -> None:
        """Close every client."""
        with self._lock:
            entries = list(self._entries.values())
            self._entries.clear()
        for entry in entries:
            _close(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def _entry(self, device_id: int) -> _Entry:
        with self._lock:
            entry = self._entries.get(device_id)
            if entry is None:
                entry = self._entries[device_id] = _Entry()
            self._entries.move_to_end(device_id)
            evicted = self._entries.popitem(last=False)[1] if len(self._entries) > self._most else None
        _close(evicted)
        return entry


def connect(*, device_id: int) -> tuple[Client, int]:
    """A fresh client for the device and the version of the settings it was made from. Raises RefreshFailed."""
    device = _load(device_id)
    if device.credentials.unreadable:
        raise RefreshFailed(
            "secrets_unreadable",
            "The stored credentials do not decrypt with any key in FLOTILLA_FIELD_KEYS: enter them again.",
            session_lost=True,
        )
    driver = registry.http_driver_for(device.gateway)
    config = DeviceConfig(
        device_id=device.pk,
        base_url=device.base_url or settings.FLOTILLA_GATEWAY_URLS.get(device.gateway) or driver.default_base_url,
        credentials=device.credentials,
        options=device.options,
    )
    return driver.connect(config), device.config_version


def _load(device_id: int) -> Device:
    with _loading:
        try:
            return Device.objects.get(pk=device_id)
        except Device.DoesNotExist:
            raise RefreshFailed("device_gone", "The device was deleted.", session_lost=True) from None
        finally:
            if not connection.in_atomic_block:
                connection.close()


def _close(entry: _Entry | None) -> None:
    if entry is not None:
        with entry.lock:
            if entry.client is not None:
                entry.client.close()
                entry.client = None


_shared = ClientRegistry()


def shared_registry() -> ClientRegistry:
    """This process's registry."""
    return _shared
