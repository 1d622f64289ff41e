"""The control API: what tests, benchmarks and the chaos run use to set faults and to ask the judge.

Every call needs ``Authorization: Bearer <control token>`` and must come from this machine. Errors are 400 with
``{"error": "…"}`` in words that say what to change.

=============================== =======================================================================
``GET /control/health``         200 once it serves
``GET POST DELETE …/faults``    rules: list, add one or a list (all or none), drop all; ``DELETE …/faults/{id}``
``POST …/ban`` ``…/unban``      ``{"devices": [token, …]}``; unban also takes ``{"devices": "*"}``
``POST …/unlink``               ``{"devices": [token, …], "dialect"?}``: their phone logs them out, and webhooks say so
``GET …/ledger``                JSON lines; ``?since=N&limit=M``; next ``since`` in header ``X-Ledger-Next``
``GET …/order``                 ``?device=token``: its requests in the order of arrival; without: all tokens
``GET …/summary``               counts, duplicates, greatest number in flight of each device
``GET POST DELETE …/webhook``   where receipts and replies go (see :mod:`messaging.simulator.phones`)
``POST …/reply``                ``{"from", "text", "sender"?, "device"?, "dialect"?}``: one phone writes now
``GET POST …/sessions``         who is logged in, and what is special to sessions (:mod:`messaging.simulator.sessions`)
``GET …/sessions/log``          who held which session from when to when
``POST …/reset``                forget ledger, rules, bans, links, webhook; ``{"keep": ["faults", …]}``
=============================== =======================================================================
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

from messaging.simulator.dialects import DIALECTS
from messaging.simulator.dialects.base import Dialect
from messaging.simulator.engine import Engine
from messaging.simulator.faults import EVERYONE, BadRule
from messaging.simulator.phones import BadWebhook, is_loopback, parse_settings
from messaging.simulator.sessions import BadCommand, Sessions
from messaging.simulator.webhooks import Webhooks

PAGE = 10_000
MAX_PAGE = 100_000
FLUSH_LINES = 1_000
RESETTABLE = ("ledger", "faults", "bans", "links", "webhook")


class BadControl(ValueError):  # noqa: N818 - reads as a fact
    """A control call that makes no sense, with words that say what to change."""


@dataclass(slots=True)
class Control:
    """The handlers, and what they act on."""

    engine: Engine
    webhooks: Webhooks
    token: str
    allow_remote: bool = False
    sessions: Sessions = field(init=False)

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.engine)

    def routes(self) -> list[web.RouteDef]:
        """All control addresses, each behind the token."""
        table: list[tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]]] = [
            ("GET", "health", self.health),
            ("GET", "faults", self.list_faults),
            ("POST", "faults", self.add_faults),
            ("DELETE", "faults", self.clear_faults),
            ("DELETE", r"faults/{id:\d+}", self.remove_fault),
            ("POST", "ban", self.ban),
            ("POST", "unban", self.unban),
            ("POST", "unlink", self.unlink),
            ("GET", "ledger", self.ledger),
            ("GET", "order", self.order),
            ("GET", "summary", self.summary),
            ("GET", "webhook", self.show_webhook),
            ("POST", "webhook", self.set_webhook),
            ("DELETE", "webhook", self.drop_webhook),
            ("POST", "reply", self.reply),
            ("POST", "reset", self.reset),
            ("GET", "sessions", self.show_sessions),
            ("POST", "sessions", self.command_sessions),
            ("GET", "sessions/log", self.show_stays),
        ]
        return [web.route(method, f"/control/{path}", self._guarded(handler)) for method, path, handler in table]

    def _guarded(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        expected = f"Bearer {self.token}".encode()

        async def guarded(request: web.Request) -> web.StreamResponse:
            if not is_loopback(request.remote or ""):
                return _json({"error": "control calls are taken from this machine only"}, status=403)
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, expected):
                return _json({"error": "the control token is missing or wrong"}, status=401)
            try:
                return await handler(request)
            except (BadCommand, BadControl, BadRule, BadWebhook) as problem:
                return _json({"error": str(problem)}, status=400)

        return guarded

    async def health(self, _request: web.Request) -> web.Response:
        """It serves."""
        return _json({"status": "ok", "dialects": [dialect.name for dialect in DIALECTS]})

    # -- faults ----------------------------------------------------------------------------------------------------

    async def list_faults(self, _request: web.Request) -> web.Response:
        """Rules and how often each has hit; bans."""
        faults = self.engine.faults
        return _json({"rules": [rule.as_json() for rule in faults.rules()], "banned": sorted(faults.banned)})

    async def add_faults(self, request: web.Request) -> web.Response:
        """One rule or a list of rules."""
        return _json({"rules": [rule.as_json() for rule in self.engine.faults.add(await _body(request))]})

    async def clear_faults(self, _request: web.Request) -> web.Response:
        """Drop all rules."""
        self.engine.faults.clear()
        return _json({})

    async def remove_fault(self, request: web.Request) -> web.Response:
        """Drop one rule."""
        if not self.engine.faults.remove(int(request.match_info["id"])):
            raise BadControl(f"there is no rule {request.match_info['id']}")
        return _json({})

    async def ban(self, request: web.Request) -> web.Response:
        """These devices get 401 from now on."""
        self.engine.faults.banned.update(_devices(await _body(request)))
        return _json({"banned": len(self.engine.faults.banned)})

    async def unban(self, request: web.Request) -> web.Response:
        """These devices (or all) may send again."""
        body = await _body(request)
        if isinstance(body, dict) and body.get("devices") == EVERYONE:
            self.engine.faults.banned.clear()
        else:
            self.engine.faults.banned.difference_update(_devices(body))
        return _json({"banned": len(self.engine.faults.banned)})

    async def unlink(self, request: web.Request) -> web.Response:
        """These devices lose their phone: until they are paired again, they cannot send."""
        body = await _body(request)
        dialect = _dialect(body)
        for device in _devices(body):
            self.engine.links.cut(device)
            self.webhooks.device_changed(dialect=dialect, device=device, state="unlinked")
        return _json({"unlinked": self.engine.links.cut_off()})

    # -- the judge -------------------------------------------------------------------------------------------------

    async def ledger(self, request: web.Request) -> web.StreamResponse:
        """A page of the ledger as JSON lines."""
        since, limit = _query(request, "since", 0), min(_query(request, "limit", PAGE), MAX_PAGE)
        ledger = self.engine.ledger
        end = max(since, min(len(ledger), since + limit))
        headers = {
            "Content-Type": "application/x-ndjson",
            "X-Ledger-Next": str(end),
            "X-Ledger-Total": str(len(ledger)),
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        generation = ledger.generation
        for start in range(since, end, FLUSH_LINES):
            if ledger.generation != generation:
                break  # reset while we were writing: what is left of this page is gone
            entries = ledger.entries(since=start, limit=min(FLUSH_LINES, end - start))
            await response.write(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
        await response.write_eof()
        return response

    async def order(self, request: web.Request) -> web.Response:
        """What one device did, in the order of arrival; or which devices there are."""
        device = request.query.get("device")
        if device is None:
            return _json({"devices": self.engine.ledger.devices()})
        return _json({"device": device, "requests": self.engine.ledger.of_device(device)})

    async def summary(self, _request: web.Request) -> web.Response:
        """The counts."""
        return _json({**self.engine.ledger.summary(), "webhook": self.webhooks.status()})

    async def reset(self, request: web.Request) -> web.Response:
        """Start afresh, but for what is to be kept."""
        body = await _body(request) if request.can_read_body else {}
        keep = body.get("keep", []) if isinstance(body, dict) else None
        if not isinstance(keep, list) or not all(part in RESETTABLE for part in keep) or set(body) - {"keep"}:
            raise BadControl(f"keep must be a list of some of {', '.join(RESETTABLE)}")
        if "ledger" not in keep:
            self.engine.ledger.reset()
        if "faults" not in keep:
            self.engine.faults.clear()
        if "bans" not in keep:
            self.engine.faults.banned.clear()
        if "links" not in keep:
            self.engine.links.reset()
        if "webhook" not in keep:
            self.webhooks.reset()
        await self.sessions.command({"reset": True})
        return _json({})

    # -- sessions --------------------------------------------------------------------------------------------------

    async def show_sessions(self, _request: web.Request) -> web.Response:
        """Who is logged in."""
        return _json(self.sessions.status())

    async def show_stays(self, _request: web.Request) -> web.Response:
        """Who held which session from when to when, the oldest first."""
        return _json([asdict(stay) for stay in self.sessions.stays])

    async def command_sessions(self, request: web.Request) -> web.Response:
        """What is special to sessions."""
        return _json(await self.sessions.command(await _body(request)))

    # -- webhooks --------------------------------------------------------------------------------------------------

    async def show_webhook(self, _request: web.Request) -> web.Response:
        """Where to, and how it goes."""
        return _json(self.webhooks.status())

    async def set_webhook(self, request: web.Request) -> web.Response:
        """Use these settings from now on."""
        self.webhooks.configure(parse_settings(await _body(request), allow_remote=self.allow_remote))
        return _json(self.webhooks.status())

    async def drop_webhook(self, _request: web.Request) -> web.Response:
        """No more webhooks; what waits is dropped."""
        self.webhooks.configure(None)
        return _json({})

    async def reply(self, request: web.Request) -> web.Response:
        """One phone writes to one device, now."""
        body = await _body(request)
        words = ("from", "text", "sender", "device", "dialect")
        if not isinstance(body, dict) or not all(name in words and isinstance(body[name], str) for name in body):
            raise BadControl(f"a reply is an object of texts: {', '.join(words)}")
        if not body.get("from") or not body.get("text"):
            raise BadControl("a reply needs from and text")
        if self.webhooks.settings is None:
            raise BadControl("there is no webhook to post a reply to")
        self.webhooks.reply(
            dialect=_dialect(body),
            device=body.get("device", ""),
            sender=body.get("sender", ""),
            phone=body["from"],
            text=body["text"],
        )
        return _json({})


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.json_response(value, status=status)


async def _body(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError):
        raise BadControl("the body is not JSON") from None


def _query(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > 12:
        raise BadControl(f"{name} must be a whole number, not {text[:20]!r}")
    return int(text)


def _dialect(body: Any) -> Dialect:
    name = body.get("dialect", DIALECTS[0].name) if isinstance(body, dict) else ""
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    raise BadControl(f"dialect must be one of {', '.join(dialect.name for dialect in DIALECTS)}")


def _devices(body: Any) -> list[str]:
    devices = body.get("devices") if isinstance(body, dict) else None
    if not isinstance(devices, list) or not devices or not all(isinstance(device, str) for device in devices):
        raise BadControl("devices must be a list of tokens")
    return devices
