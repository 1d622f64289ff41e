"""One request from arrival to answer: what goes wrong, whether the phone gets the message, what the client is told.

The order matters for the truth of the ledger: everything is entered before it is answered, and a request stops being in
flight just before its last byte leaves (so a client that has its answer can never be seen with two in flight), or when
its client closes the connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass, field, replace
from typing import Protocol

from aiohttp import web

from messaging.simulator.dialects.base import Asked, BadRequest, Delivery, DeviceState, Dialect, Parsed, Purpose, Reply
from messaging.simulator.faults import EVERYONE, Faults, Plan, Rule
from messaging.simulator.ledger import NO_MESSAGE, Arrival, Ledger, Ticket
from messaging.simulator.links import Links


class Outbox(Protocol):
    """Where deliveries go on to become receipts and replies."""

    def delivered(self, delivery: Delivery) -> None:
        """A phone got a message."""
        ...

    def device_changed(self, *, dialect: Dialect, device: str, state: DeviceState) -> None:
        """A device was linked to a phone, unlinked, or banned."""
        ...


@dataclass(slots=True)
class Engine:
    """What all requests share. ``token_prefix``: only devices whose token starts like this exist."""

    ledger: Ledger
    faults: Faults
    outbox: Outbox
    token_prefix: str = ""
    links: Links = field(default_factory=Links)
    stopping: bool = False
    waiting: set[asyncio.Task[object]] = field(default_factory=set)

    async def handle(self, request: web.Request, dialect: Dialect, purpose: Purpose) -> web.StreamResponse:
        """Answer one request of a dialect."""
        at, monotonic = time.time(), time.monotonic()
        try:
            body = await request.read()
        except BaseException:  # cancelled or cut off: the client went away before its request was whole
            self.ledger.incomplete_requests += purpose == "send"
            raise
        device = dialect.device(request, body)
        if purpose != "send":
            return await self._asked(request, dialect, Asked(purpose, device, self.state_of(device), request, body))
        refusal: Reply | None = None
        try:
            parsed = dialect.parse(request, body)
        except BadRequest as problem:
            parsed, refusal = Parsed(phone="", text=""), problem.reply
        plan = self.faults.plan(device=device, phone=parsed.phone, on="send")
        arrival = Arrival(
            device=device,
            phone=parsed.phone,
            reference=parsed.reference,
            message=NO_MESSAGE if parsed.message is None else parsed.message,
            attempt=parsed.attempt,
            at=at,
            monotonic=monotonic,
            type=parsed.type,
            media_bytes=parsed.media_bytes,
        )
        ticket = self.ledger.open(arrival, faults=plan.labels, transport=request.transport)
        exchange = _Exchange(self, request, dialect, ticket, device, parsed, plan)
        if stranger := dialect.refuses(request):
            return exchange.answer("stranger", stranger)
        if refusal is not None:
            return exchange.answer("bad_request", refusal)
        return await exchange.run()

    async def _asked(self, request: web.Request, dialect: Dialect, asked: Asked) -> web.StreamResponse:
        """A question about the device or a message, or an order; faults on ``check`` strike all of them."""
        plan = self.faults.plan(device=asked.device, phone="", on="check")
        exchange = _Exchange(self, request, dialect, None, asked.device, Parsed(phone="", text=""), plan, asked)
        if stranger := dialect.refuses(request):
            return exchange.answer("stranger", stranger)
        return await exchange.run()

    def knows(self, device: str) -> bool:
        """Whether there is a device of this token. The rules' word for everybody is nobody's token."""
        return bool(device) and device != EVERYONE and (device.startswith(self.token_prefix) or self.links.made(device))

    def state_of(self, device: str) -> DeviceState:
        """How it stands with a device."""
        if device in self.faults.banned:
            return "banned"
        if not self.knows(device):
            return "unknown"
        return "unlinked" if self.links.is_cut(device) else "linked"

    def obey(self, asked: Asked, dialect: Dialect) -> Asked:
        """Carry out an order, or note a question; what is then to be answered."""
        before = asked.state
        self.links.heed(asked)
        state = self.state_of(asked.device)
        if before in ("linked", "unlinked") and state != before:
            self.outbox.device_changed(dialect=dialect, device=asked.device, state=state)
        # whoever makes a device, or cuts it off, hears how it was before: to do it twice is an error in some gateways
        return asked if asked.purpose in ("create", "log_out") else replace(asked, state=state)

    def stop(self) -> None:
        """Give up every request that is waiting."""
        self.stopping = True
        for task in list(self.waiting):
            task.cancel()


@dataclass(slots=True)
class _Exchange:
    """One request on its way. Without a ticket (questions: ``asked``) nothing is entered in the ledger."""

    engine: Engine
    request: web.Request
    dialect: Dialect
    ticket: Ticket | None
    device: str
    parsed: Parsed
    plan: Plan
    asked: Asked | None = None

    async def run(self) -> web.StreamResponse:
        """Go through the phases, and tell the ledger if the client gives up in one of them."""
        try:
            return await self._phases()
        except (asyncio.CancelledError, ConnectionError):
            self._close("simulator_stopped" if self.engine.stopping else "client_gone", 0)
            raise
        finally:
            self._close("simulator_error", 500)  # a defect of ours must not leave a request in flight for ever

    async def _phases(self) -> web.StreamResponse:
        await self._pause(self.plan.before_seconds)
        refused = await self._before()
        if refused is not None:
            return refused
        external_id = self._accept()
        await self._pause(self.plan.after_seconds)
        return await self._after(external_id)

    async def _before(self) -> web.StreamResponse | None:
        """Everything that keeps the message from the phone."""
        plan, dialect, engine = self.plan, self.dialect, self.engine
        if plan.decides("ban"):
            engine.faults.banned.add(self.device)
        if plan.decides("unlink"):
            engine.links.cut(self.device)
        if self.asked is None and (refused := self._unable()):
            return refused
        if rule := plan.decides("throttle"):
            return self.answer("throttled", dialect.throttled(rule.params["retry_after_seconds"]))
        if rule := plan.decides("reject"):
            return self.answer("rejected", dialect.rejected(rule.params["code"], rule.params["text"]))
        if rule := plan.decides("error", "before"):
            return self._error(rule)
        if rule := plan.decides("broken_json", "before"):
            return self._broken("sim-never")
        if plan.decides("reset", "before"):
            return self._reset()
        if plan.decides("hang", "before"):
            await self._hang()
        return None

    def _unable(self) -> web.StreamResponse | None:
        """Why this device cannot send, if it cannot."""
        match self.engine.state_of(self.device):
            case "banned":
                return self.answer("banned", self.dialect.refused(banned=True))
            case "unknown":
                return self.answer("unknown_device", self.dialect.refused(banned=False))
            case "unlinked":
                return self.answer("unlinked", self.dialect.unlinked())
        return None

    def _told(self, asked: Asked) -> Reply:
        """The answer to a question, or to an order that is carried out now."""
        if asked.purpose != "look_up":
            return self.dialect.asked(self.engine.obey(asked, self.dialect))
        if asked.state != "linked":
            return self.dialect.refused(banned=asked.state == "banned")
        try:
            reference = self.dialect.sought(asked.request)
        except BadRequest as problem:
            return problem.reply
        return self.dialect.looked_up(reference, self.engine.ledger.find(device=self.device, reference=reference))

    def _accept(self) -> str:
        if self.ticket is None:
            return ""
        external_id, now = self.engine.ledger.accept(self.ticket, dedups=self.dialect.dedups)
        external_id = self.parsed.external_id or external_id
        if now:
            delivery = Delivery(
                dialect=self.dialect,
                device=self.device,
                sender=self.parsed.sender,
                phone=self.parsed.phone,
                reference=self.parsed.reference,
                external_id=external_id,
            )
            self.engine.outbox.delivered(delivery)
        return external_id

    async def _after(self, external_id: str) -> web.StreamResponse:
        """The phone has it; what the client hears of it is another matter."""
        plan = self.plan
        if plan.decides("hang", "after"):
            await self._hang()
        if plan.decides("reset", "after"):
            return self._reset()
        if rule := plan.decides("error", "after"):
            return self._error(rule)
        if plan.decides("broken_json", "after"):
            return self._broken(external_id)
        reply = self._told(self.asked) if self.asked else self.dialect.accepted(external_id, self.parsed)
        if plan.drip is not None:
            return await self._drip(reply, plan.drip)
        return self.answer("accepted", reply)

    # -- ways to answer --------------------------------------------------------------------------------------------

    def answer(self, word: str, reply: Reply) -> web.Response:
        """A plain answer."""
        self._close(word, reply.status)
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    def _error(self, rule: Rule) -> web.Response:
        taken = rule.params["phase"] == "after"
        return self.answer("error", self.dialect.failed(rule.params["status"], taken=taken))

    def _broken(self, external_id: str) -> web.Response:
        whole = self.dialect.accepted(external_id, self.parsed)
        return self.answer("broken_json", Reply(200, whole.body[: len(whole.body) // 2], whole.headers))

    def _reset(self) -> web.Response:
        """Cut the connection with a TCP reset: no lingering, no last bytes."""
        self._close("reset", 0)
        transport = self.request.transport
        if transport is not None:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        return web.Response(status=500)  # goes nowhere: aiohttp wants something to hand to the closed connection

    async def _drip(self, reply: Reply, rule: Rule) -> web.StreamResponse:
        """Headers at once, then the body in pieces."""
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.content_length = len(reply.body)
        await response.prepare(self.request)
        size = rule.params["chunk_bytes"]
        for start in range(0, len(reply.body), size):
            await self._pause(rule.params["interval_seconds"])
            if start + size >= len(reply.body):
                self._close("accepted", reply.status)
            await response.write(reply.body[start : start + size])
        await response.write_eof()
        return response

    # -- waiting ---------------------------------------------------------------------------------------------------

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        if self.ticket is not None:
            self.engine.ledger.wait(self.ticket)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - handlers run in tasks
        self.engine.waiting.add(task)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.engine.waiting.discard(task)

    async def _hang(self) -> None:
        """Until the client closes its connection, which cancels this handler."""
        while True:
            await self._pause(3600)

    def _close(self, word: str, status: int) -> None:
        if self.ticket is not None:
            self.engine.ledger.close(self.ticket, answer=word, status=status)
