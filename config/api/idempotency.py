"""``Idempotency-Key``: a POST that is sent twice happens once and is answered twice.

The view runs in one transaction together with the row of its key, so that the effect and the stored answer are
committed together or not at all. A duplicate that arrives meanwhile waits at that row (see
:meth:`config.models.IdempotencyKeyQuerySet.claim`) and then gets the stored answer.

Only success is stored. An error, whoever's fault, rolls everything back including the key: nothing happened, so the
mended request may use the same key.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.files.uploadedfile import UploadedFile
from django.db import OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.settings import api_settings

from config.api.problems import Problem, problem_of, sqlstate_of
from config.models import KEY_LIFETIME, IdempotencyKey

HEADER = "Idempotency-Key"
REPLAY_HEADER = "Idempotent-Replay"
PREFIX = "/api/v1/"
EXEMPT = (
    *(
        "/api/v1/auth/",
        "/api/v1/tokens",
        "/api/v1/leads/sources",
    ),  # answers hold secrets, which are never stored readable
    "/api/v1/media",  # stored once by content in any case; a file may be fetched, for which no transaction waits
)
_SECRET_ANSWERS = re.compile(r"/api/v1/(subscribers(/[^/]+/rotate)?|devices/[^/]+/(webhook|status-link))/?")
WAIT_SECONDS = 10
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

GetResponse = Callable[[HttpRequest], HttpResponseBase]


class KeyBusy(Exception):  # noqa: N818 - reads as a fact
    """The first request with this key ran for longer than a duplicate waits."""


class IdempotencyMiddleware:
    """Goes last: between it and the view there is nothing that could answer or write."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        key = request.headers.get(HEADER)
        if key is None or request.method != "POST" or not request.path.startswith(PREFIX):
            return self.get_response(request)
        if is_exempt(request.path):
            return self.get_response(request)
        user = _user_of(request)
        if user is None:
            return self.get_response(request)  # which answers 401 or 403
        if not _KEY.fullmatch(key):
            return Problem("idempotency_key_invalid", "Use 1 to 255 visible ASCII characters, as a UUID.").response()
        try:
            fingerprint = fingerprint_of(request)
        except (RequestDataTooBig, SuspiciousOperation) as problem:
            return (problem_of(problem) or Problem("bad_request", "The body cannot be read.")).response()
        except MultiPartParserError:
            return Problem("parse_error", "The multipart body cannot be read.").response()
        try:
            return self._once(request, user_id=user.pk, key=key, fingerprint=fingerprint)
        except KeyBusy:
            return Problem(
                "idempotency_key_in_progress", f"It has run for over {WAIT_SECONDS} s. Ask again in a moment."
            ).response({"Retry-After": "5"})

    def _once(self, request: HttpRequest, *, user_id: int, key: str, fingerprint: str) -> HttpResponseBase:
        """The view's answer, or the stored one. Raises KeyBusy."""
        with transaction.atomic(durable=True):
            if not _claim(user_id=user_id, key=key, fingerprint=fingerprint):
                return _replay(IdempotencyKey.objects.get(user_id=user_id, key=key), fingerprint)
            response = self.get_response(request)
            if not isinstance(response, HttpResponse) or not 200 <= response.status_code < 300:
                transaction.set_rollback(True)
                return response
            IdempotencyKey.objects.filter(user_id=user_id, key=key).update(
                status=response.status_code,
                content_type=response.get("Content-Type", ""),
                location=response.get("Location", ""),
                body=response.content,
            )
        return response


def is_exempt(path: str) -> bool:
    """Whether POSTs to this address keep no answers."""
    return path.startswith(EXEMPT) or _SECRET_ANSWERS.fullmatch(path) is not None


def fingerprint_of(request: HttpRequest) -> str:
    """SHA-256 over method, address and body. Of multipart bodies the parts count, since clients vary the boundary."""
    digest = hashlib.sha256(f"{request.method} {request.get_full_path()}\n".encode())
    if request.content_type == "multipart/form-data":
        digest.update(json.dumps(sorted(request.POST.lists())).encode())
        for name, files in sorted(request.FILES.lists()):
            for file in files:
                digest.update(json.dumps([name, file.name, _file_digest(file)]).encode())
    else:
        digest.update(request.body)
    return digest.hexdigest()


def expire_keys(*, now: datetime, limit: int = 10_000) -> int:
    """Delete keys older than a day, at most ``limit`` in one go; returns how many went."""
    ids = IdempotencyKey.objects.expired(now=now).order_by("created_at").values_list("pk", flat=True)[:limit]
    return IdempotencyKey.objects.filter(pk__in=list(ids)).delete()[0]


def _user_of(request: HttpRequest) -> AbstractBaseUser | None:
    """Who the API's own authenticators say is calling; None for nobody or for credentials the view will refuse."""
    before = request.user
    classes: Sequence[type[BaseAuthentication]] = api_settings.DEFAULT_AUTHENTICATION_CLASSES  # type: ignore[assignment]
    wrapped = Request(request, authenticators=[each() for each in classes])
    try:
        user = wrapped.user
    except (APIException, PermissionDenied, UnicodeDecodeError):  # the last by knox, for a token that is no text
        return None
    finally:
        request.user = before  # DRF has overwritten it; the view authenticates for itself, from the same start
    return user if user.is_authenticated else None


def _claim(*, user_id: int, key: str, fingerprint: str) -> bool:
    """Take the key, waiting a bounded time for whoever holds it. Raises KeyBusy."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{WAIT_SECONDS}s"])
        try:
            first = IdempotencyKey.objects.all().claim(
                user_id=user_id, key=key, fingerprint=fingerprint, now=timezone.now()
            )
        except OperationalError as problem:
            if sqlstate_of(problem) == "55P03":  # lock_not_available
                raise KeyBusy from None
            raise
        cursor.execute("SET LOCAL lock_timeout TO DEFAULT")  # the view waits as it always does
    return first


def _replay(stored: IdempotencyKey, fingerprint: str) -> HttpResponse:
    """The stored answer again, or a refusal when the key came with another request."""
    if stored.fingerprint != fingerprint:
        hours = int(KEY_LIFETIME.total_seconds() // 3600)
        return Problem(
            "idempotency_key_reused", f"It came with another request in the last {hours} hours. Use a new key."
        ).response()
    headers = {REPLAY_HEADER: "true"}
    if stored.location:
        headers["Location"] = stored.location
    return HttpResponse(
        bytes(stored.body), status=stored.status, content_type=stored.content_type or None, headers=headers
    )


def _file_digest(file: UploadedFile) -> str:
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    file.seek(0)  # the view reads it from the start
    return digest.hexdigest()
