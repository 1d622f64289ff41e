"""Every address there is, read from the resolver, and what somebody gets who asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tests.api_support import caller
from tests.config.role_world import World

PREFIXES = {
    "leads": "lead", "consent/waivers": "waiver", "consentwaiver": "waiver", "inboundmessage": "reply",
    "mediafile": "media", "leadsource": "leads/sources", "leadimport": "leads/imports", "apitoken": "token",
    "auditentry": "audit", "delivery": "deliveries", "queues": "device", "users": "user",
}  # fmt: skip
"""Where a part of an address is not a row's name in :class:`World` (or its plural): that name."""
GROUP = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>[^)]*\)")
VERBS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True)
class Route:
    """One address, as it stands in the resolver, with the methods it answers to."""

    pattern: str
    methods: tuple[str, ...]

    @property
    def in_admin(self) -> bool:
        """Whether a session opens it, rather than a token."""
        return self.pattern.startswith("admin/")

    def address(self, world: World) -> str:
        """The address of ``world``'s row."""
        return "/" + GROUP.sub(lambda found: str(self._value(found, world)), self.pattern).replace("^", "").rstrip("$")

    def _value(self, found: re.Match[str], world: World) -> Any:
        fixed = {
            "first": world.rows["lead"],
            "second": world.rows["twin"],
            "device_id": world.device.pk,
            "what": "refresh",
            "app_label": "devices",
            "user": world.owner.pk,
            "url": "nowhere/",
            "content_type_id": 1,
            "gateway": "simulator",
            "key": "nobody",
            "token": "nothing",
        }
        name = found[1] or found[2]
        if name in fixed and not (name == "token" and self.in_admin):
            return fixed[name]
        before = self.pattern[: found.start()].strip("/^").removeprefix("api/v1/").replace("^", "")
        before = before.split("/")[2] if self.in_admin and before.count("/") > 1 else before
        before = "lead" if before == "message" and "erase-lead" in self.pattern else before
        key = PREFIXES.get(before, before)
        return world.rows.get(key, world.rows.get(f"{key}s"))


def routes() -> list[Route]:
    """All of them."""
    return [
        Route(pattern, _methods(pattern, found.callback)) for pattern, found in _walk(get_resolver().url_patterns, "")
    ]


def _walk(found: list[Any], before: str) -> Iterator[tuple[str, URLPattern]]:
    for each in found:
        pattern = before + str(each.pattern)
        if isinstance(each, URLResolver):
            yield from _walk(each.url_patterns, pattern)
        else:
            yield pattern, each


def _methods(pattern: str, view: Any) -> tuple[str, ...]:
    if actions := getattr(view, "actions", None):
        return tuple(verb for verb in VERBS if verb in actions)
    if kind := getattr(view, "cls", None):
        return tuple(verb for verb in VERBS if hasattr(kind, verb))
    return ("get", "post") if pattern.startswith("admin/") else ("get",)


def answers(user: Any, world: World) -> Iterator[tuple[str, str]]:
    """``("METHOD pattern", what came)`` for every address and method; whatever a request changed is undone."""
    browser = Client(raise_request_exception=False)
    program = caller(user) if user else Client(raise_request_exception=False)
    program.raise_request_exception = False
    for route in routes():
        for method in route.methods:
            if user and route.in_admin:
                browser.force_login(user)
            client, body = (browser, {"confirmed": "yes"}) if route.in_admin else (program, {})
            with transaction.atomic():
                answer = getattr(client, method)(route.address(world), body if method != "delete" else None)
                transaction.set_rollback(True)
            yield f"{method.upper()} {route.pattern}", _told(answer)


def _told(answer: Any) -> str:
    """The status; of a redirect also whether it leads to the log-in, or to the home page (“there is no such row”)."""
    if answer.status_code not in {301, 302}:
        return str(answer.status_code)
    to = answer["Location"]
    return "login" if to.startswith("/admin/login/") else "home" if to == "/admin/" else "302"
