"""How often callers may knock. Counters live in the cache."""

from __future__ import annotations

import hashlib
from typing import Any

import structlog
from django.core.cache import cache
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
            return super().allow_request(request, view)
        except RedisError as problem:
            log.warning("throttle.unavailable", error=type(problem).__name__)
            return True


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
