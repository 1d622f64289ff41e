"""How often callers may knock. Counters live in the cache."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import structlog
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from redis.exceptions import RedisError
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import BaseThrottle, UserRateThrottle

log = structlog.get_logger(__name__)


class Unavailable(APIException):
    """Something that this request cannot do without does not answer."""

    status_code = 503
    default_code = "unavailable"


class UserThrottle(UserRateThrottle):
    """Requests per user. Without Redis it lets everybody pass: work is accepted while the broker is down."""

    def allow_request(self, request: Request, view: Any) -> bool:
        """Whether the caller may go on."""
        try:
            allowed = bool(super().allow_request(request, view))
        except RedisError as problem:
            log.warning("throttle.unavailable", error=type(problem).__name__)
            return True
        history: list[float] = getattr(self, "history", [])
        limit, seconds = self.parse_rate(self.rate)
        if limit is not None and seconds is not None:
            reset = seconds - (self.now - history[-1]) if history else seconds
            request._request.flotilla_rate = (limit, limit - len(history), reset)  # type: ignore[attr-defined]  # noqa: SLF001
        return allowed


class RateHeaders:
    """Tells callers, in every answer that was counted, how many requests they have left, and until when.

    ``RateLimit-Limit``, ``RateLimit-Remaining`` and ``RateLimit-Reset`` (seconds until the oldest request counted is
    forgotten), as the IETF's draft on rate limits names them.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        answer = self.get_response(request)
        if (rate := getattr(request, "flotilla_rate", None)) is not None:
            limit, left, reset = rate
            answer["RateLimit-Limit"] = str(limit)
            answer["RateLimit-Remaining"] = str(max(0, left))
            answer["RateLimit-Reset"] = str(max(0, math.ceil(reset)))
        return answer


class LoginThrottle(BaseThrottle):
    """Ten log-ins a minute for one user name from one address.

    Counts with an atomic increment, so that a burst of parallel guesses is counted in full, and closes when the
    counter cannot be reached. The address is the connection's own unless ``NUM_PROXIES`` says how many proxies to
    trust: a forwarded address anybody may write would make the limit worthless.
    """

    limit = 10
    window_seconds = 60

    def allow_request(self, request: Request, view: Any) -> bool:  # noqa: ARG002 - DRF's signature
        """Whether this try is within the limit."""
        data = request.data if isinstance(request.data, dict) else {}
        who = f"{self.get_ident(request)}|{str(data.get('username', '')).casefold()}"
        key = f"login:{hashlib.sha256(who.encode()).hexdigest()}"
        try:
            cache.add(key, 0, self.window_seconds)
            try:
                tries = cache.incr(key)
            except ValueError:  # it expired between the two
                cache.set(key, 1, self.window_seconds)
                tries = 1
        except RedisError:
            raise Unavailable("Logging in is not possible right now: the counter of tries does not answer.") from None
        return tries <= self.limit

    def wait(self) -> float:
        """Seconds after which it makes sense to try again."""
        return self.window_seconds

    def get_ident(self, request: Request) -> str:
        """The caller's address."""
        if api_settings.NUM_PROXIES:
            return super().get_ident(request)
        return str(request.META.get("REMOTE_ADDR", ""))
