"""One open WhatsApp session: the library's client, what it told so far, and a thread that hands its news on.

Threads of a session: one inside the library's ``connect()`` (which brings a second of its own), one that hands news to
the host, and one for each native call while it lasts. The library calls the handlers below on threads of its own, one
kind of event after the other, and stops listening when a hundred of a kind wait: they only note and queue.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import structlog

from devices import session_store
from devices.gateways.base import Accepted, SessionLost, Temporary, Throttled
from devices.gateways.neonize_events import (
    BANNED_FOR_GOOD,
    OUTDATED,
    REPLACED,
    UNLINKED,
    ban_text,
    device_event_of,
    failure_code,
    failure_text,
    is_ban,
    receipts_of,
    replies_of,
)
from devices.gateways.neonize_library import Late, proxy_of, text_of, within
from devices.gateways.news import News
from devices.gateways.session_base import SessionHost
from devices.gateways.whatsmeow_errors import readable

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 10.0
DIAL_SECONDS = 75.0
"""The library gives a dial up after 60 s by itself; one that takes longer than this is lost."""
MENDING_SECONDS = 15.0
"""So long a broken connection may take to mend itself before the session is opened anew."""
NEWS_AT_ONCE = 100
TELL_AGAIN_SECONDS = 2.0

_LISTENED_TO = (
    "ConnectedEv", "DisconnectedEv", "LoggedOutEv", "StreamReplacedEv", "TemporaryBanEv", "ConnectFailureEv",
    "ClientOutdatedEv", "KeepAliveTimeoutEv", "KeepAliveRestoredEv", "OfflineSyncCompletedEv", "ReceiptEv", "MessageEv",
)  # fmt: skip

Verdict = SessionLost | Throttled | Temporary

_dialling: dict[bytes, threading.Thread] = {}
"""Clients by the library's key whose dial has not ended. A second one under the same key would overwrite the first."""

_DRAINED = object()
_END = object()


class Session:
    """A client of the library from its first dial to its end. Not reopened: a refresh makes a new one."""

    def __init__(
        self,
        *,
        library: SimpleNamespace,
        store_url: str,
        name: str,
        device_id: int,
        host: SessionHost,
        jid: dict[str, Any],
        proxy: str = "",
    ) -> None:
        self._library = library
        self._store_url = store_url
        self._name = name
        self._device_id = device_id
        self._host = host
        self._proxy = proxy
        self._changed = threading.Condition()
        self._connected = False
        self._was_connected = False
        self._silent = False
        self._away_since: float | None = None
        self._lost_call = False
        self._closed = False
        self._verdict: Verdict | None = None
        self._error: str | None = None
        self._news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._drained = threading.Event()
        self._teller: threading.Thread | None = None
        self.client: Any = library.NewClient(
            session_store.library_url(store_url, name=name),
            jid=library.proto.JID(**jid),
            props=library.DeviceProps(os="Flotilla", platformType=library.DeviceProps.CHROME),
        )
        # Collected as garbage, a client stops whatever runs under its key by then, which may be its successor.
        self.client._stop_finalizer.detach()  # noqa: SLF001 - there is no other way
        self._key: bytes = self.client.uuid
        self._listen()

    @staticmethod
    def is_dialling(user: str) -> bool:
        """Whether an earlier client of the same number still dials in this process."""
        thread = _dialling.get(user.encode())
        return thread is not None and thread.is_alive()

    # -- Opening and closing ------------------------------------------------------------------------------------------

    def open(self, *, seconds: float) -> Verdict | None:
        """Dial and wait until logged in. None if it is; else why not, and everything is closed or closing."""
        thread = threading.Thread(target=self._run, name=f"session-{self._device_id}", daemon=True)
        _dialling[self._key] = thread
        self._teller = threading.Thread(target=self._tell_all, name=f"news-{self._device_id}", daemon=True)
        self._teller.start()
        thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._verdict or self._error is not None, seconds)
            if self._connected and self._verdict is None:
                return None
            verdict = self._verdict or self._failed_dial()
        self.close()
        return verdict

    def close(self) -> None:
        """Disconnect, let the news go out, and give up what the library holds; within :data:`CLOSE_SECONDS`."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
        self._news.put(_END)
        ends = time.monotonic() + CLOSE_SECONDS - 1
        # While it dials, the library holds a lock until that has ended, which is too long to wait for.
        if self._dials() or not self._stopped(seconds=CLOSE_SECONDS - 1):
            threading.Thread(target=self._see_off, name=f"stopping-{self._device_id}", daemon=True).start()
        teller = self._teller
        if teller is not None and teller is not threading.current_thread():
            teller.join(max(0.0, ends + 1 - time.monotonic()))

    def _run(self) -> None:
        """The thread inside ``connect()``: it stays there until the client is stopped."""
        error = ""
        try:
            self.client.connect(proxy_of(self._library, self._proxy))
        except BaseException as problem:  # noqa: BLE001 - the library raises what it likes
            error = session_store.without_secrets(text_of(problem), store_url=self._store_url)
        with self._changed:
            self._error = error
            self._connected = False
            self._changed.notify_all()
        if _dialling.get(self._key) is threading.current_thread():
            del _dialling[self._key]

    def _stop(self) -> None:
        if self._error is not None:
            return  # it has ended by itself
        self.client.disconnect()
        self.client.stop()
        thread = _dialling.get(self._key)
        if thread is not None:
            thread.join()

    def _dials(self) -> bool:
        with self._changed:
            return not self._was_connected and self._error is None

    def _stopped(self, *, seconds: float) -> bool:
        """Stop it and give up what it holds; False if that takes longer."""
        try:
            within(seconds, self._stop, name=f"stop-{self._device_id}")
        except Late:
            return False
        self._let_go()
        return True

    def _see_off(self) -> None:
        """Wait for an end that nobody else waits for, and report one that never comes."""
        if not self._stopped(seconds=DIAL_SECONDS):
            self._host.wedged("stop")

    def _let_go(self) -> None:
        """Close the connections to the database that the library left open."""
        try:
            session_store.end_connections(self._store_url, name=self._name)
        except session_store.StoreAway as away:
            log.warning("session.connections_left", device_id=self._device_id, reason=str(away))

    def _failed_dial(self) -> Verdict:
        error = self._error
        if error is None:
            return Temporary("timeout", "WhatsApp's servers did not answer in time.")
        if "failed to upgrade database" in error:
            return Temporary("not_started", f"The session store could not be opened: {readable(error)}")
        if "failed to dial" in error or "context deadline exceeded" in error:
            return Temporary("connect", "WhatsApp's servers could not be reached.")
        return Temporary("connect_failed", f"The session did not open: {readable(error) or 'it ended at once'}")

    # -- What is known without asking ---------------------------------------------------------------------------------

    def is_healthy(self) -> bool:
        """Connected and logged in, as far as was told."""
        with self._changed:
            if self._closed or self._verdict or self._error is not None or self._lost_call or self._silent:
                return False
            return self._connected or (
                self._away_since is not None and time.monotonic() - self._away_since < MENDING_SECONDS
            )

    def state(self) -> Accepted | Verdict:
        """The same as an outcome."""
        with self._changed:
            if self._verdict is not None:
                return self._verdict
        return Accepted() if self.is_healthy() else Temporary("not_connected", "The session is not connected.")

    def drain(self, *, seconds: float) -> bool:
        """Wait until the host has been told all that came while the session was away."""
        return self._drained.wait(seconds)

    def risky(self, what: str) -> AbstractContextManager[None]:
        """Around a call that may abort the process."""
        return self._host.risky(what)

    # -- Calls --------------------------------------------------------------------------------------------------------

    def call(
        self,
        what: str,
        native: Callable[[], Any],
        *,
        seconds: float,
        late: Callable[[Any], None] | None = None,
    ) -> Any:
        """A native call with a deadline. Raises what it raises, or Late, after which the session is of no more use."""
        try:
            return within(seconds, native, name=f"{what}-{self._device_id}", late=late)
        except Late:
            with self._changed:
                self._lost_call = True
            self._host.wedged(what)
            raise

    def tell(self, *news: News) -> None:
        """Queue news for the host; what comes when nobody reads the queue any more goes there at once."""
        if self._closed and self._teller is not threading.current_thread():
            self._host.tell(list(news))
            return
        for each in news:
            self._news.put(each)

    # -- Events -------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        events = self._library.events

        def heard(_client: Any, event: Any) -> None:
            # The library swallows what a handler raises.
            try:
                self.hear(event)
            except Exception:
                log.exception("session.event_not_understood", device_id=self._device_id, kind=event.DESCRIPTOR.name)

        # Not a bound method: the library holds those weakly.
        for name in _LISTENED_TO:
            self.client.event(getattr(events, name))(heard)

        def must_not_pair(_client: Any, _code: bytes) -> None:
            self._judge(SessionLost("not_paired", "The stored session is gone."))

        self.client.event.qr(must_not_pair)

    def hear(self, event: Any) -> None:
        """Take in one event of the library."""
        name = event.DESCRIPTOR.name
        if name == "Receipt":
            self.tell(*receipts_of(event))
        elif name == "Message":
            self.tell(*replies_of(event))
        elif name == "OfflineSyncCompleted":
            self._news.put(_DRAINED)
        else:
            self._note(name, event)
            told = device_event_of(event, device_id=self._device_id, now=datetime.now(UTC))
            if told is not None and not self._closed:
                self.tell(told)

    def _note(self, name: str, event: Any) -> None:
        with self._changed:
            if name == "Connected":
                self._connected, self._silent, self._away_since = True, False, None
                self._was_connected = True
            elif name == "Disconnected":
                self._connected, self._away_since = False, time.monotonic()
            elif name in {"KeepAliveTimeout", "KeepAliveRestored"}:
                # The connection looks open and nobody answers: what is sent now may end as unknown.
                self._silent = name == "KeepAliveTimeout"
            self._changed.notify_all()
        verdict = verdict_of(name, event)
        if verdict is not None:
            self._judge(verdict)

    def _judge(self, verdict: Verdict) -> None:
        with self._changed:
            self._verdict, self._connected = self._verdict or verdict, False
            self._changed.notify_all()

    def _tell_all(self) -> None:
        """The thread that hands news over: in order, many at once, again and again while the host cannot take them."""
        ended = False
        while not ended:
            items = [self._news.get()]
            while len(items) < NEWS_AT_ONCE and not self._news.empty():
                items.append(self._news.get())
            ended = any(item is _END for item in items)
            news = [item for item in items if item is not _END and item is not _DRAINED]
            while news and not self._host.tell(news):
                if self._closed:
                    log.warning("session.news_lost", device_id=self._device_id, number=len(news))
                    break
                time.sleep(TELL_AGAIN_SECONDS)
            if any(item is _DRAINED for item in items):
                self._drained.set()


def verdict_of(name: str, event: Any) -> Verdict | None:
    """Whether an event ends the session, and how. None: it goes on, or comes back by itself."""
    match name:
        case "LoggedOut" if is_ban(event):
            return SessionLost("banned", BANNED_FOR_GOOD, banned=True)
        case "LoggedOut":
            return SessionLost("logged_out", UNLINKED)
        case "StreamReplaced":
            return SessionLost("replaced", REPLACED)
        case "TemporaryBan":
            return Throttled("temporary_ban", ban_text(event), max(60.0, float(event.Expire)))
        case "ClientOutdated":
            return SessionLost("outdated", OUTDATED)
        case "ConnectFailure" if is_ban(event):
            return SessionLost("banned", BANNED_FOR_GOOD, banned=True)
        case "ConnectFailure":
            return Temporary(failure_code(event), failure_text(event))
        case _:
            return None
