"""The driver for the simulator's sessions: a connection that one process holds, as WhatsApp's is, without WhatsApp.

Wire format: :mod:`messaging.simulator.sessions`. One event loop, in a thread of its own, serves all sessions of the
process and ends with the last of them. It exists to try the house that real sessions live in; only installations with
``FLOTILLA_SIMULATED_SESSIONS=1`` know it. Told to abort, it brings its process down for real.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from devices.gateways.base import (
    Accepted,
    Carries,
    ContentType,
    CredentialField,
    DeviceConfig,
    IdSemantics,
    Outcome,
    Outgoing,
    PairingWay,
    Rejected,
    SessionLost,
    Temporary,
    Throttled,
    Transport,
    Unknown,
)
from devices.gateways.news import DeviceEvent, Hook, Malformed, News, Receipt, Reply
from devices.gateways.session_base import SessionHost

if TYPE_CHECKING:
    import aiohttp

HEADER = "X-Session"
TELLERS = 4
CLOSE_SECONDS = 5.0
_LOST = {
    "logged_out": "The session was logged out.",
    "banned": "The number was banned.",
    "replaced": "Another client took the session over.",
}
_T = TypeVar("_T")


class _Loop:
    """The process's event loop for these sessions: runs while somebody needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.tellers: ThreadPoolExecutor | None = None

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self.tellers = ThreadPoolExecutor(TELLERS, thread_name_prefix="session-news")
                self._thread = threading.Thread(target=self._loop.run_forever, name="simulated-sessions", daemon=True)
                self._thread.start()

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._loop is None or self._thread is None:
                return
            loop, thread, tellers = self._loop, self._thread, self.tellers
            self._loop = self._thread = self.tellers = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSE_SECONDS)
        if tellers is not None:
            tellers.shutdown(wait=False)
        if not thread.is_alive():
            loop.close()

    def run(self, work: Coroutine[Any, Any, _T], *, seconds: float) -> _T:
        """The result. Raises TimeoutError after ``seconds``; the work is cancelled then."""
        loop = self._loop
        if loop is None:
            work.close()
            raise FutureTimeout
        future: Future[_T] = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result(seconds)
        except FutureTimeout:
            future.cancel()
            raise


_loop = _Loop()


class SimulatedSession:
    """One logged-in session."""

    def __init__(self, config: DeviceConfig, host: SessionHost) -> None:
        self._config = config
        self._host = host
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = False
        self._lost: str = ""
        self._caught_up = threading.Event()
        self._closed = threading.Lock()

    def __repr__(self) -> str:
        return f"SimulatedSession(device_id={self._config.device_id})"

    # -- opening: in the event loop ------------------------------------------------------------------------------------

    async def open(self) -> Temporary | Throttled | SessionLost | None:
        """Connect and log in; None if it is."""
        import aiohttp  # noqa: PLC0415 - no process but a session host needs it

        url = f"{self._config.base_url.rstrip('/')}/session/v1"
        self._http = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        try:
            self._socket = await self._http.ws_connect(
                url, headers={HEADER: self._config.credentials.get("token", "")}, max_msg_size=1_000_000
            )
        except aiohttp.WSServerHandshakeError:
            return Temporary("unavailable", "The gateway takes no connection now.")
        except (aiohttp.ClientError, OSError):
            return Temporary("connect", "No connection to the gateway.")
        said = await self._next()
        if said is None:
            return Temporary("connect", "The gateway ended the connection before the log-in.")
        kind = said["type"]
        if kind == "abort":
            os.abort()
        if kind == "temporary_ban":
            return Throttled("temporary_ban", "The number may not connect for a while.", float(said["seconds"]))
        if kind != "connected":
            return SessionLost(kind, _LOST.get(kind, "The log-in was refused."), banned=kind == "banned")
        self._ready = True
        news: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._listen(news)), asyncio.create_task(self._pass_on(news))]
        return None

    async def _next(self) -> dict[str, Any] | None:
        socket = self._socket
        with suppress(TypeError, ValueError, OSError):
            if socket is not None:
                said = json.loads(await socket.receive_str())
                return said if isinstance(said, dict) else None
        return None

    async def _listen(self, news: asyncio.Queue[dict[str, Any]]) -> None:
        while (said := await self._next()) is not None:
            match said["type"]:
                case "abort":
                    os.abort()
                case "sent" | "refused":
                    answer = self._answers.pop(said["seq"], None)
                    if answer is not None and not answer.done():
                        answer.set_result(said)
                case _:
                    if said["type"] in _LOST:
                        self._lost, self._ready = said["type"], False
                    await news.put(said)
        self._ready = False
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result({"type": "gone"})

    async def _pass_on(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        """One piece of news after the other; acknowledged only once it is written down."""
        loop = asyncio.get_running_loop()
        while True:
            said = await queue.get()
            if said["type"] == "caught_up":
                self._caught_up.set()
                continue
            news = _news(said)
            if news is None:
                continue
            taken = await loop.run_in_executor(_loop.tellers, self._host.tell, (news,))
            if taken and self._socket is not None and not self._socket.closed and "id" in said:
                with suppress(ConnectionError):
                    await self._socket.send_str(json.dumps({"type": "ack", "id": said["id"]}))

    async def shut(self) -> None:
        """Let go of everything."""
        self._ready = False
        if self._socket is not None:
            with suppress(TimeoutError, OSError):
                await asyncio.wait_for(self._socket.close(), CLOSE_SECONDS / 2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    # -- what the host calls -------------------------------------------------------------------------------------------

    def is_healthy(self) -> bool:
        """Logged in, and nobody has said otherwise."""
        return self._ready

    def drain(self, *, seconds: float) -> bool:
        """Wait for the end of what was told at log-in."""
        return self._caught_up.wait(seconds)

    def send(self, outgoing: Outgoing) -> Outcome:
        """Send one message and wait for the answer."""
        seconds = self._config.deadlines.total_seconds
        try:
            return _loop.run(self._send(outgoing, seconds), seconds=seconds + 2)
        except FutureTimeout:
            self._ready = False
            return Unknown("timeout", "The gateway did not answer in time.")

    async def _send(self, outgoing: Outgoing, seconds: float) -> Outcome:
        if self._lost:
            return SessionLost(self._lost, _LOST[self._lost], banned=self._lost == "banned")
        if not self._ready or self._socket is None or self._socket.closed:
            return Temporary("not_connected", "The session is not connected.")
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        body = {
            "type": "send",
            "seq": number,
            "to": outgoing.phone,
            "text": outgoing.text,
            "id": outgoing.reference,
            "message": outgoing.message_id,
            "attempt": outgoing.attempt,
        }
        try:
            await self._socket.send_str(json.dumps(body))
            said = await asyncio.wait_for(answer, seconds)
        except (TimeoutError, OSError):
            self._ready = False
            return Unknown("timeout", "The gateway did not answer in time.")
        finally:
            self._answers.pop(number, None)
        return _outcome(said)

    def check(self) -> Accepted | Temporary | SessionLost:
        """From what is known."""
        if self._lost:
            return SessionLost(self._lost, _LOST[self._lost], banned=self._lost == "banned")
        return Accepted() if self._ready else Temporary("not_connected", "The session is not connected.")

    def close(self) -> None:
        """Disconnect, once."""
        if not self._closed.acquire(blocking=False):
            return
        try:
            with suppress(FutureTimeout):
                _loop.run(self.shut(), seconds=CLOSE_SECONDS)
        finally:
            _loop.leave()


class SimulatedSessionDriver:
    """Sessions at the simulator."""

    kind: ClassVar[str] = "simulated_session"
    label: ClassVar[str] = "Simulated session"
    transport: ClassVar[Transport] = "session"
    id_semantics: ClassVar[IdSemantics] = "none"
    id_proof: ClassVar[str] = ""
    carries: ClassVar[Mapping[ContentType, Carries]] = {"text": Carries()}
    window_hours: ClassVar[int | None] = None
    pairing: ClassVar[frozenset[PairingWay]] = frozenset()
    signs_webhooks: ClassVar[bool] = False
    receipts: ClassVar[bool] = True
    replies: ClassVar[bool] = True
    rate: ClassVar[str] = "as configured"
    default_base_url: ClassVar[str] = "http://127.0.0.1:8030"
    credential_fields: ClassVar[tuple[CredentialField, ...]] = (
        CredentialField(
            name="token", label="Stored session", help_text="Any text: an unknown session springs to life."
        ),
    )
    opens_at_once: ClassVar[int] = 8

    def open(
        self, config: DeviceConfig, *, host: SessionHost, seconds: float
    ) -> SimulatedSession | Temporary | Throttled | SessionLost:
        """Log in with the stored session."""
        session = SimulatedSession(config, host)
        _loop.enter()
        try:
            refused = _loop.run(session.open(), seconds=seconds)
        except FutureTimeout:
            refused = Temporary("timeout", "The gateway did not answer in time.")
        if refused is None:
            return session
        session.close()
        return refused

    def webhook(self, hook: Hook) -> tuple[News, ...]:  # noqa: ARG002 - the seam's signature
        """Sessions tell their news themselves."""
        raise Malformed("malformed", "This gateway sends no webhooks.")


def _news(said: dict[str, Any]) -> News | None:
    """What the house is told of it."""
    kind = said["type"]
    at = datetime.fromtimestamp(said["timestamp"], UTC) if "timestamp" in said else datetime.now(UTC)
    match kind:
        case "receipt":
            return Receipt(said["id"], said["status"], at, external_id=said["message_id"])
        case "message":
            return Reply(said["id"], said["from"], said["text"], at)
        case "logged_out" | "banned" | "replaced":
            return DeviceEvent(f"{kind}-{at.timestamp()}", kind, at, text=_LOST[kind])
    return None


def _outcome(said: dict[str, Any]) -> Outcome:
    if said["type"] == "sent":
        return Accepted(said["id"])
    if said["type"] == "gone":
        return Unknown("connection_lost", "The connection ended before the answer.")
    match said["code"]:
        case "throttled":
            return Throttled("throttled", "Too many messages: wait.", float(said["seconds"]))
        case "reach_out":
            text = "The number may not write to new people for a while."
            return Throttled("reach_out", text, float(said["seconds"]), scope="new_contacts")
        case "rejected":
            return Rejected("rejected", str(said["text"]))
        case code:
            return Temporary(str(code), "The gateway did not take it.")
