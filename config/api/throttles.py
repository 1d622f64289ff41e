"""How often callers may knock. Counters live in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse
from redis.exceptions import RedisError
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle, UserRateThrottle

from config.audit import address_of
from config.knocking import CounterAway, TooManyTries, knock

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
    """Tries to log in, by the counters that the admin's log-in uses as well (:mod:`config.knocking`).

    The address is the connection's own unless ``FLOTILLA_PROXIES`` says how many proxies to trust: a forwarded address
    anybody may write would make the limit worthless.
    """

    seconds = 60

    def allow_request(self, request: Request, view: Any) -> bool:  # noqa: ARG002 - DRF's signature
        """Whether this try is within the limits. Raises Unavailable."""
        data = request.data if isinstance(request.data, dict) else {}
        address = address_of(request._request) or ""  # noqa: SLF001 - Django's request, behind DRF's
        try:
            knock(name=str(data.get("username", "")), address=address)
        except TooManyTries as problem:
            self.seconds = problem.seconds
            return False
        except CounterAway as problem:
            raise Unavailable(str(problem)) from None
        return True

    def wait(self) -> float:
        """Seconds after which it makes sense to try again."""
        return self.seconds
