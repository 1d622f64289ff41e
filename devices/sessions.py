"""Opening sessions, and what the process that houses them offers to their drivers (:class:`House`)."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from urllib.parse import quote, urlencode

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, connections

from devices import risky
from devices.gateways.base import NETWORK_CODES, DeviceConfig, SessionLost, Temporary, Throttled
from devices.gateways.news import DeviceEvent, News
from devices.gateways.session_base import SessionClient, SessionDriver
from devices.refreshing import RefreshFailed
from devices.weather import Change, Weather

log = structlog.get_logger(__name__)

WRITERS = 4
"""How many sessions may write their news down at the same moment: each takes a database connection."""

NEWS_SECONDS = 10.0
REPLACED_AGAIN_SECONDS = 600.0
BUSY_SECONDS = 2.0

TakeIn = Callable[[str, Sequence[News]], object]
"""Writes down the news of a gateway kind. Raises a database error when it could not."""


@dataclass(slots=True)
class House:
    """One process's sessions: its lease, its network, and how news gets out. Safe for threads."""

    holds: Callable[[int], bool]
    take_in: TakeIn
    store_url: str = field(repr=False)
    open_seconds: float = 30.0
    drain_seconds: float = 10.0
    weather: Weather = field(default_factory=Weather)
    on_change: Callable[[Change, str], object] = lambda _change, _reason: None
    connects: int = 0
    wedged: int = 0
    _slots: defaultdict[str, _Slots] = field(init=False, repr=False)
    _writing: threading.BoundedSemaphore = field(init=False, repr=False)
    _replaced_at: dict[int, float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._slots = defaultdict(_Slots)
        self._writing = threading.BoundedSemaphore(WRITERS)

    def open(self, *, driver: SessionDriver, config: DeviceConfig) -> SessionClient:
        """Open the device's session, its backlog drained. Raises RefreshFailed."""
        self._demand_lease(config.device_id)
        wait = self.weather.wait_seconds()
        if wait > 0:
            raise RefreshFailed("host_offline", "No session of this host can connect now.", wait_seconds=wait)
        try:
            return self._open(driver, config)
        finally:
            self.weather.gave_up()

    def _open(self, driver: SessionDriver, config: DeviceConfig) -> SessionClient:
        device_id, began = config.device_id, monotonic()
        suspect = risky.deaths(device_id=device_id) > 0
        with self._slots[driver.kind].taken(driver.opens_at_once, alone=suspect, seconds=self.open_seconds):
            self._demand_lease(device_id)
            log.info("refresh.started", device_id=device_id, gateway=driver.kind)
            with self._marked(device_id, driver.kind):
                opened = driver.open(config, host=_Host(self, driver.kind, device_id), seconds=self.open_seconds)
            self.connects += 1
        seconds = round(monotonic() - began, 3)
        if isinstance(opened, Temporary | Throttled | SessionLost):
            log.warning("refresh.failed", device_id=device_id, code=opened.code, seconds=seconds)
            raise self._failure(device_id, opened)
        if not self.holds(device_id):
            opened.close()
            self._demand_lease(device_id)
        self._note(self.weather.met())
        risky.end(device_id=device_id, peace=True)
        drained = opened.drain(seconds=self.drain_seconds)
        log.info("refresh.succeeded", device_id=device_id, gateway=driver.kind, seconds=seconds, drained=drained)
        return opened

    def _demand_lease(self, device_id: int) -> None:
        if not self.holds(device_id):
            raise RefreshFailed("not_here", "Another worker holds this device's session.", wait_seconds=1.0)

    @contextmanager
    def _marked(self, device_id: int, kind: str) -> Iterator[None]:
        """Around an open: the marker, which a native abort leaves behind."""
        deaths = risky.begin(device_id=device_id, call="open")
        if deaths >= risky.MOST_DEATHS:
            risky.end(device_id=device_id)  # nothing is called; the count stays until somebody wants it tried again
            log.error("sessions.offender_set_aside", device_id=device_id, gateway=kind, deaths=deaths)
            raise RefreshFailed(
                "brought_host_down",
                f"Connecting it has brought its session host down {deaths} times in a row.",
                session_lost=True,
            )
        try:
            yield
        except Exception as problem:
            log.exception("refresh.driver_raised", device_id=device_id)
            text = f"The gateway driver failed: {type(problem).__name__}."
            raise RefreshFailed("driver_error", text) from problem
        finally:
            risky.end(device_id=device_id)

    def _failure(self, device_id: int, outcome: Temporary | Throttled | SessionLost) -> RefreshFailed:
        if isinstance(outcome, Temporary) and outcome.code in NETWORK_CODES:
            self._note(self.weather.met_nobody(device_id=device_id), reason=outcome.text)
            return RefreshFailed(outcome.code, outcome.text, weather=self.weather)
        self._note(self.weather.met())
        if isinstance(outcome, Throttled):
            return RefreshFailed(outcome.code, outcome.text, rest_seconds=outcome.retry_after_seconds)
        if isinstance(outcome, SessionLost):
            return RefreshFailed(outcome.code, outcome.text, session_lost=True, banned=outcome.banned)
        return RefreshFailed(outcome.code, outcome.text)

    def _note(self, change: Change | None, *, reason: str = "") -> None:
        if change is not None:
            name = "incident.began" if change.began else "incident.ended"
            log.warning(name, scope="host", devices=len(change.devices))
            self.on_change(change, reason)

    # -- what drivers are offered --------------------------------------------------------------------------------------

    def tell(self, *, kind: str, device_id: int, news: Sequence[News]) -> bool:
        """See SessionHost.tell."""
        told = [replace(each, device_id=device_id) for each in news if not self._once(device_id, each)]
        if not told:
            return True
        if not self._writing.acquire(timeout=NEWS_SECONDS):
            return False
        try:
            self.take_in(kind, told)
        except (DatabaseError, InterfaceError) as problem:
            log.warning("news.not_taken_in", device_id=device_id, pieces=len(told), error=type(problem).__name__)
            return False
        except Exception:
            log.exception("news.not_taken_in", device_id=device_id, pieces=len(told))
            return False
        finally:
            if not connection.in_atomic_block:
                connection.close()  # this thread is the driver's and may live as long as its session
            self._writing.release()
        return True

    def _once(self, device_id: int, news: News) -> bool:
        """Whether to let it pass: a session replaced once may have been another host of ours, frozen past its lease in
        the middle of connecting. The next send takes it back; replaced again soon, it is somebody else."""
        if not (isinstance(news, DeviceEvent) and news.status == "replaced"):
            return False
        last, now = self._replaced_at.get(device_id), monotonic()
        self._replaced_at[device_id] = now
        if last is None or now - last > REPLACED_AGAIN_SECONDS:
            log.warning("session.replaced_once", device_id=device_id)
            return True
        return False


@dataclass(frozen=True, slots=True)
class _Host:
    """The house as one device's driver sees it."""

    house: House = field(repr=False)
    kind: str
    device_id: int

    @property
    def store_url(self) -> str:
        return self.house.store_url

    def tell(self, news: Sequence[News]) -> bool:
        return self.house.tell(kind=self.kind, device_id=self.device_id, news=news)

    @contextmanager
    def risky(self, call: str) -> Iterator[None]:
        risky.begin(device_id=self.device_id, call=call)
        try:
            yield
        finally:
            risky.end(device_id=self.device_id)
            if not connection.in_atomic_block:
                connection.close()

    def wedged(self, call: str) -> None:
        self.house.wedged += 1
        log.error("session.call_wedged", device_id=self.device_id, gateway=self.kind, call=call)


class _Slots:
    """A bounded number of opens at once; one that is suspected of killing its host goes alone."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._busy = 0
        self._alone = False

    @contextmanager
    def taken(self, most: int, *, alone: bool, seconds: float) -> Iterator[None]:
        """A slot. Raises RefreshFailed when none comes free in time."""

        def ready() -> bool:
            return self._busy == 0 if alone else self._busy < most and not self._alone

        with self._free:
            if not self._free.wait_for(ready, timeout=seconds):
                text = "Too many sessions of this host are connecting."
                raise RefreshFailed("host_busy", text, wait_seconds=BUSY_SECONDS)
            self._busy += 1
            self._alone = alone
        try:
            yield
        finally:
            with self._free:
                self._busy -= 1
                self._alone = False
                self._free.notify_all()


def store_url() -> str:
    """The project's database as a libpq address that Go's driver reads as well. A secret."""
    # Never a pooler's: Go's driver prepares statements, and what it leaves open is closed by its application's name.
    params = connections[settings.FLOTILLA_OWN_CONNECTION].get_connection_params()
    query = {"sslmode": params.get("sslmode", "disable")}
    host, port = str(params.get("host") or "localhost"), str(params.get("port") or "")
    name = quote(str(params.get("dbname") or params.get("database")), safe="")
    user, password = str(params.get("user") or ""), str(params.get("password") or "")
    if host.startswith("/"):
        query |= {"host": host, "user": user, **({"password": password} if password else {})}
        query |= {"port": port} if port else {}
        return f"postgres:///{name}?{urlencode(query)}"
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return f"postgres://{login}@{host}{f':{port}' if port else ''}/{name}?{urlencode(query)}"
