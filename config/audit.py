"""Tells the database who acts, so that its triggers can write it down; and writes down log-ins.

While a request is answered, each writing statement says who asked, from where and for what (:mod:`config.acting`).
Workers say nothing and are not written down: they are not somebody.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.db import connection
from django.http import HttpRequest, HttpResponse
from rest_framework.settings import api_settings

from config.acting import Says
from config.audit_models import AuditEntry

log = structlog.get_logger(__name__)

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class AuditMiddleware:
    """Comes after the one that finds the user. Reading requests are let through as they are, but for log-ins."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.method in _READS:
            return self.get_response(request)
        with connection.execute_wrapper(Says(lambda: _who(request))):
            return self.get_response(request)


def _who(request: HttpRequest) -> dict[str, Any]:
    user = getattr(request, "user", None)
    return {"user": getattr(user, "pk", None), "address": address_of(request), "action": _action(request)}


def _action(request: HttpRequest) -> str:
    found = request.resolver_match
    return f"{request.method} {found.view_name if found else ''}"[:120]


def address_of(request: HttpRequest) -> str | None:
    """The caller's address; behind proxies, the one that the outermost trusted proxy saw (``NUM_PROXIES``)."""
    address = request.META.get("REMOTE_ADDR") or None
    if proxies := api_settings.NUM_PROXIES:
        hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
        address = hops[-min(proxies, len(hops))] if hops else address
    return address if address and re.fullmatch(r"[0-9A-Fa-f.:]{2,45}", address) else None


def logged_in(sender: Any, request: HttpRequest | None, user: User, **more: Any) -> None:  # noqa: ARG001
    """Somebody began a session."""
    _note(request, AuditEntry.Event.LOGIN, user)


def login_refused(sender: Any, credentials: dict[str, Any], request: Any = None, **more: Any) -> None:  # noqa: ARG001
    """A wrong password. The name is kept only if somebody has it: people type passwords into that field, too."""
    name = str(credentials.get("username", ""))[:150]
    user = User.objects.filter(username=name).first() if "\0" not in name else None
    _note(request, AuditEntry.Event.REFUSED, user)


def refuse_log_in(request: Any, user: User) -> None:
    """A right password with a wrong code of the second factor."""
    _note(request, AuditEntry.Event.REFUSED, user)


def listen() -> None:
    """Called once, when Django is ready."""
    user_logged_in.connect(logged_in, dispatch_uid="flotilla.audit")
    user_login_failed.connect(login_refused, dispatch_uid="flotilla.audit")


def _note(request: Any, event: AuditEntry.Event, user: User | None) -> None:
    django_request = getattr(request, "_request", request)  # Django's, behind the API's
    log.info("login", outcome=event.value, user_id=user.pk if user else None)
    AuditEntry.objects.create(
        user=user,
        address=address_of(django_request) if django_request is not None else None,
        action=_action(django_request) if django_request is not None else "",
        event=event,
        table=User._meta.db_table,  # noqa: SLF001 - Django's documented model API
        object_id=str(user.pk) if user else "",
    )
