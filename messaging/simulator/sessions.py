"""Pretend WhatsApp: long-lived sessions over WebSockets, one holder each, with a memory for who was away.

``GET /session/v1`` with the stored session in the header ``X-Session`` and an upgrade. From then on JSON objects:

================================== ==================================================================================
from here                          meaning
================================== ==================================================================================
``connected``                      logged in; whoever held the session before has just heard ``replaced``
``logged_out`` ``banned``          not, or no longer; then the connection ends
``replaced``                       somebody else logged in with this session; then the connection ends
``receipt`` ``message``            news with an ``id``; told again at each log-in until ``{"type": "ack", "id"}``
``caught_up``                      what had waited has all been told
``sent`` ``refused``               the answer to ``{"type": "send", "seq", "to", "text", "id", "message", "attempt"}``
``abort``                          the client's process is to die the way native code does
================================== ==================================================================================

Sends are entered in the ledger and suffer the faults like any other; no repeat is dropped. The control address
``/control/sessions`` shows who is here, and sets what is special to sessions (:meth:`Sessions.command`);
``/control/sessions/log`` tells who held which session from when to when.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter, OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from messaging.simulator.engine import Engine
from messaging.simulator.faults import Plan
from messaging.simulator.ledger import NO_MESSAGE, Arrival

HEADER = "X-Session"
MOODS = ("abort", "abort_on_send", "reach_out", "temporary_ban")
REST_SECONDS = 600
LOGGED_STAYS = 20_000
KNOWN = {"offline", "receipts", "dial_seconds", "moods", "log_out", "reply", "reset"}


class BadCommand(ValueError):  # noqa: N818 - reads as a fact
    """A control call that makes no sense, with words that say what to change."""


@dataclass(slots=True)
class Stay:
    """One holder of a session, from its log-in to its end, as seen from here; seconds of the wall clock.

    ``heard_at`` is when it last said something. Who vanishes without a word is here until the next log-in.
    """

    session: str
    peer: str
    began_at: float
    heard_at: float
    ended_at: float | None = None
    replaced: bool = False


@dataclass(slots=True)
class _Holder:
    """One logged-in connection."""

    session: str
    socket: web.WebSocketResponse
    transport: asyncio.Transport | None
    stay: Stay
    news: asyncio.Event = field(default_factory=asyncio.Event)
    caught_up: bool = False

    async def say(self, kind: str, **more: Any) -> None:
        if not self.socket.closed:
            await self.socket.send_str(json.dumps({"type": kind, **more}))


@dataclass(slots=True)
class Sessions:
    """All sessions. Used by one thread only: the event loop's. ``offline``: nobody can connect, all are cut off."""

    engine: Engine
    offline: bool = False
    receipts: bool = False
    dial_seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    logins: Counter[str] = field(default_factory=Counter)
    moods: dict[str, str] = field(default_factory=dict)
    logged_out: set[str] = field(default_factory=set)
    stays: deque[Stay] = field(default_factory=lambda: deque(maxlen=LOGGED_STAYS))
    _online: dict[str, _Holder] = field(default_factory=dict)
    _leaving: set[asyncio.Task[None]] = field(default_factory=set)
    _untold: dict[str, OrderedDict[str, dict[str, Any]]] = field(default_factory=dict)

    def routes(self) -> list[web.RouteDef]:
        """Where clients connect."""
        return [web.get("/session/v1", self.connect)]

    # -- control -------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Who is here, and what happened."""
        return {
            "online": sorted(self._online),
            "logins": dict(self.logins),
            "untold": {session: len(news) for session, news in self._untold.items() if news},
            **{name: self.counts[name] for name in ("replaced", "refused", "lost")},
        }

    async def command(self, raw: Any) -> dict[str, Any]:
        """Do what a control call asks; any of these:

        ``offline`` (bool), ``receipts`` (bool: each message is delivered and read), ``dial_seconds``; ``moods``
        ({session: one of MOODS, or ""}); ``log_out`` ([session]); ``reply`` ({"session", "from", "text"}); ``reset``.
        """
        _check(raw)
        if raw.get("reset"):
            await self._reset()
        for name in ("offline", "receipts", "dial_seconds"):
            if name in raw:
                setattr(self, name, type(getattr(self, name))(raw[name]))
        self.moods.update(raw.get("moods", {}))
        for session in raw.get("log_out", []):
            self.logged_out.add(session)
            await self._end(session, "logged_out")
        if "reply" in raw:
            said = raw["reply"]
            self._tell(said["session"], {"type": "message", "from": said["from"], "text": said["text"]})
        if self.offline:
            for holder in list(self._online.values()):
                await self._cut(holder)
        return self.status()

    async def _reset(self) -> None:
        for session in list(self._online):
            await self._end(session, "reset")
        self.counts.clear()
        self.logins.clear()
        self.moods.clear()
        self.logged_out.clear()
        self.stays.clear()
        self._untold.clear()
        self.offline, self.receipts, self.dial_seconds = False, False, 0.0

    async def _end(self, session: str, kind: str) -> None:
        holder = self._online.pop(session, None)
        if holder is not None:
            await holder.say(kind)
            await holder.socket.close()

    async def _cut(self, holder: _Holder) -> None:
        self._online.pop(holder.session, None)
        if holder.transport is not None:
            holder.transport.abort()

    # -- connections ---------------------------------------------------------------------------------------------------

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """One connection, from its dial to its end."""
        session = request.headers.get(HEADER, "")
        plan = self.engine.faults.plan(device=session, phone="", on="check")
        await asyncio.sleep(self.dial_seconds + plan.before_seconds)
        if self.offline or plan.decides("reset") or plan.decides("hang"):
            if plan.decides("hang"):
                await asyncio.sleep(3600)
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        if plan.decides("error"):
            return web.Response(status=503)
        socket = web.WebSocketResponse(max_msg_size=1_000_000)
        await socket.prepare(request)
        now = time.time()
        holder = _Holder(session, socket, request.transport, Stay(session, request.remote or "", now, now))
        refusal = self._refusal(session, plan)
        if refusal is not None:
            self.counts["refused"] += 1
            await holder.say(refusal, seconds=REST_SECONDS)
            await socket.close()
            return socket
        await self._replace(holder)
        telling = asyncio.create_task(self._tell_all(holder))
        try:
            await self._listen(holder)
        finally:
            telling.cancel()
            holder.stay.ended_at = holder.stay.ended_at or time.time()
            if self._online.get(session) is holder:
                del self._online[session]
        return socket

    def _refusal(self, session: str, plan: Plan) -> str | None:
        if plan.decides("ban"):
            self.engine.faults.banned.add(session)
        if session in self.engine.faults.banned:
            return "banned"
        if session in self.logged_out or not self.engine.knows(session):
            return "logged_out"
        mood = self.moods.get(session, "")
        return mood if mood in ("abort", "temporary_ban") else None

    async def _replace(self, holder: _Holder) -> None:
        earlier = self._online.get(holder.session)
        self._online[holder.session] = holder
        self.logins[holder.session] += 1
        self.stays.append(holder.stay)
        if earlier is not None:
            self.counts["replaced"] += 1
            earlier.stay.replaced, earlier.stay.ended_at = True, holder.stay.began_at
            # Apart: whoever has vanished answers no farewell, and the new holder does not wait for that.
            task = asyncio.create_task(self._dismiss(earlier))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        await holder.say("connected")
        holder.news.set()

    async def _dismiss(self, holder: _Holder) -> None:
        with suppress(ConnectionError):
            await holder.say("replaced")
            await holder.socket.close()

    async def _listen(self, holder: _Holder) -> None:
        working: set[asyncio.Task[None]] = set()
        try:
            async for frame in holder.socket:
                if frame.type is not WSMsgType.TEXT:
                    continue
                holder.stay.heard_at = time.time()
                said = json.loads(frame.data)
                if said.get("type") == "ack":
                    self._untold.get(holder.session, OrderedDict()).pop(said.get("id", ""), None)
                elif said.get("type") == "send":
                    task = asyncio.create_task(self._send(holder, said))
                    working.add(task)
                    task.add_done_callback(working.discard)
        finally:
            for task in working:
                task.cancel()

    # -- news ----------------------------------------------------------------------------------------------------------

    def _tell(self, session: str, news: dict[str, Any]) -> None:
        event = f"evt-{uuid.uuid4().hex}"
        self._untold.setdefault(session, OrderedDict())[event] = {**news, "id": event, "timestamp": time.time()}
        holder = self._online.get(session)
        if holder is not None:
            holder.news.set()

    async def _tell_all(self, holder: _Holder) -> None:
        told: set[str] = set()
        while not holder.socket.closed:
            await holder.news.wait()
            holder.news.clear()
            for event, news in list(self._untold.get(holder.session, {}).items()):
                if event not in told:
                    told.add(event)
                    await holder.socket.send_str(json.dumps(news))
            if not holder.caught_up:
                holder.caught_up = True
                await holder.say("caught_up")

    # -- sends ---------------------------------------------------------------------------------------------------------

    async def _send(self, holder: _Holder, said: dict[str, Any]) -> None:
        engine, session, phone = self.engine, holder.session, str(said["to"])
        plan = engine.faults.plan(device=session, phone=phone, on="send")
        arrival = Arrival(
            device=session,
            phone=phone,
            reference=said.get("id"),
            message=said.get("message", NO_MESSAGE),
            attempt=said.get("attempt", 1),
            at=time.time(),
            monotonic=time.monotonic(),
        )
        ticket = engine.ledger.open(arrival, faults=plan.labels, transport=holder.transport)
        answer, word = "lost", ""
        more: dict[str, Any] = {}
        try:
            await asyncio.sleep(plan.before_seconds)
            answer, word, more = await self._verdict(holder, plan)
            if answer == "sent":
                external_id, _ = engine.ledger.accept(ticket, dedups=False)
                more = {"id": external_id, "timestamp": time.time()}
                if self.receipts:
                    for status in ("delivered", "read"):
                        self._tell(session, {"type": "receipt", "message_id": external_id, "status": status})
                await asyncio.sleep(plan.after_seconds)
                if plan.decides("reset", "after") or plan.decides("hang", "after"):
                    word = "cut"
                    await self._cut(holder)
        finally:
            engine.ledger.close(ticket, answer=word or answer, status=200 if answer == "sent" else 0)
        if answer == "lost":
            self.counts["lost"] += 1
            return
        await holder.say(answer, seq=said["seq"], **more)

    async def _verdict(self, holder: _Holder, plan: Plan) -> tuple[str, str, dict[str, Any]]:
        """("sent", "accepted"), ("refused", why, details), or ("lost", why) where there is no answer."""
        session, faults = holder.session, self.engine.faults
        if plan.decides("ban"):
            faults.banned.add(session)
        if session in faults.banned:
            await self._end(session, "banned")
            return "lost", "banned", {}
        mood = self.moods.get(session, "")
        if mood == "abort_on_send":
            await holder.say("abort")
            return "lost", "abort", {}
        if mood == "reach_out":
            return "refused", "reach_out", {"code": "reach_out", "seconds": REST_SECONDS}
        if rule := plan.decides("throttle"):
            seconds = rule.params["retry_after_seconds"]
            return "refused", "throttled", {"code": "throttled", "seconds": seconds if seconds is not None else 60}
        if rule := plan.decides("reject"):
            return "refused", "rejected", {"code": "rejected", "text": rule.params["text"]}
        if plan.decides("error", "before"):
            return "refused", "error", {"code": "unavailable"}
        if plan.decides("reset", "before") or plan.decides("hang", "before"):
            await self._cut(holder)
            return "lost", "reset", {}
        return "sent", "accepted", {}


def _check(raw: Any) -> None:
    """Raises BadCommand."""
    if not isinstance(raw, dict):
        raise BadCommand("a command is a JSON object")
    if unknown := sorted(set(raw) - KNOWN):
        raise BadCommand(f"{', '.join(unknown)}: it takes {', '.join(sorted(KNOWN))}")
    for mood in raw.get("moods", {}).values():
        if mood not in ("", *MOODS):
            raise BadCommand(f"a mood is one of {', '.join(MOODS)}, not {mood!r}")
