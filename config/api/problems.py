"""Every error of the API as a problem document (RFC 9457) with a stable ``code``.

::

    {"type": "urn:flotilla:problem:invalid", "title": "Some values cannot be accepted", "status": 400,
     "code": "invalid", "detail": "…", "errors": [{"field": "phone", "code": "too_short", "message": "…"}]}

Refusals of the domain (:class:`SendRefused`, :class:`CampaignNotReady`, …) are translated here and nowhere else: any
exception of an app that carries ``code`` and ``text``, or a list of ``problems``, becomes a 422.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings
from django.core.exceptions import (
    NON_FIELD_ERRORS,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    ValidationError,
)
from django.db import DataError, IntegrityError
from django.db.models import ProtectedError, RestrictedError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import exceptions

MEDIA_TYPE = "application/problem+json"
DOMAIN_APPS = frozenset({"devices", "leads", "messaging", "campaigns", "sequences"})

CODES: dict[str, tuple[int, str]] = {
    "invalid": (400, "Some values cannot be accepted"),
    "parse_error": (400, "The request's body cannot be read"),
    "bad_request": (400, "The request cannot be understood"),
    "idempotency_key_invalid": (400, "The Idempotency-Key cannot be used"),
    "not_authenticated": (401, "Log in first"),
    "authentication_failed": (401, "The credentials are not right"),
    "second_factor_required": (401, "The code of the authenticator app is missing"),
    "bad_signature": (401, "The signature does not fit"),
    "permission_denied": (403, "This is not allowed"),
    "scope_missing": (403, "The token does not reach this far"),
    "second_factor_owed": (403, "This account needs a second factor first"),
    "not_found": (404, "There is nothing here for you"),
    "method_not_allowed": (405, "This address does not take that method"),
    "not_acceptable": (406, "The answer cannot be given in that format"),
    "conflict": (409, "Something else stands in the way"),
    "in_use": (409, "Other things still need it"),
    "idempotency_key_in_progress": (409, "The first request with this key is still running"),
    "too_large": (413, "The request is too large"),
    "uri_too_long": (414, "The address is too long"),
    "unsupported_media_type": (415, "The body's format is not understood"),
    "refused": (422, "It cannot be done as things stand"),
    "idempotency_key_reused": (422, "This Idempotency-Key belongs to another request"),
    "throttled": (429, "Too many requests"),
    "headers_too_large": (431, "The header fields are too large"),
    "error": (500, "Something broke on our side"),
    "unavailable": (503, "A part of the system does not answer"),
}
"""Status and title by code. The domain's refusals bring codes of their own, with status and title of ``refused``."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field; ``field`` is a path as ``steps.0.text``, empty for the whole request."""

    field: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An error on its way out."""

    code: str
    detail: str
    errors: tuple[FieldError, ...] = ()
    status: int = 0

    def http_status(self) -> int:
        """The given status, else the one its code stands for."""
        return self.status or CODES.get(self.code, CODES["refused"])[0]

    def body(self) -> dict[str, Any]:
        """The JSON document."""
        known = self.code if self.code in CODES else "refused"
        return {
            "type": f"urn:flotilla:problem:{known}",
            "title": CODES[known][1],
            "status": self.http_status(),
            "code": self.code,
            "detail": self.detail,
            "errors": [asdict(error) for error in self.errors],
        }

    def response(self, headers: Mapping[str, str] | None = None) -> JsonResponse:
        """The answer that carries it."""
        return JsonResponse(
            self.body(),
            status=self.http_status(),
            content_type=MEDIA_TYPE,
            headers=headers,
            json_dumps_params={"ensure_ascii": False},
        )


def handle(exc: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """DRF's exception handler. None (an unhandled error) lets Django log it and :func:`server_error` answer.

    Not a DRF response: a problem is JSON whatever the view renders.
    """
    if isinstance(exc, UnicodeDecodeError) and not hasattr(context["request"], "_user"):
        exc = exceptions.AuthenticationFailed("Invalid token.")  # knox decodes whatever bytes a stranger sends
    problem = problem_of(exc)
    if problem is None:
        return None
    headers = {}
    if getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = str(exc.auth_header)  # type: ignore[attr-defined]
    if getattr(exc, "wait", None):
        headers["Retry-After"] = str(int(exc.wait) + 1)  # type: ignore[attr-defined]
    return problem.response(headers)


def problem_of(exc: Exception) -> Problem | None:
    """The problem that ``exc`` stands for; None when it is a mistake of ours."""
    match exc:
        case exceptions.ValidationError():
            return invalid(_flat(exc.detail))
        case exceptions.APIException():
            return _of_api_exception(exc)
        case Http404():
            return Problem("not_found", "It does not exist, or you may not see it.")
        case PermissionDenied():
            return Problem("permission_denied", str(exc) or "You may not do this.")
        case ValidationError():
            return invalid(_of_django(exc))
        case ProtectedError() | RestrictedError():
            return _in_use(exc)
        case IntegrityError() | DataError():
            return _of_database(exc)
        case RequestDataTooBig():
            most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
            return Problem("too_large", f"Without its files, a body may have {most} bytes (FLOTILLA_BODY_MAX_MB).")
        case SuspiciousOperation():
            return Problem("bad_request", "The request cannot be understood.")
    return _refusal(exc)


def invalid(errors: Iterable[FieldError]) -> Problem:
    """Values that cannot be accepted, each with its reason."""
    found = tuple(errors)
    detail = found[0].message if len(found) == 1 else f"{len(found)} values cannot be accepted; see errors."
    return Problem("invalid", detail, found)


def _of_api_exception(exc: exceptions.APIException) -> Problem:
    detail = exc.detail
    code = str(getattr(detail, "code", "") or exc.default_code)
    text = str(detail) if isinstance(detail, str) else "; ".join(error.message for error in _flat(detail))
    if isinstance(exc, exceptions.NotFound):
        return Problem("not_found", text)
    return Problem(code, text, tuple(getattr(exc, "errors", ())), status=exc.status_code)


def _flat(detail: Any, path: tuple[str, ...] = ()) -> Iterator[FieldError]:
    """DRF's nested error details as one list."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            is_whole = name in {"non_field_errors", NON_FIELD_ERRORS}
            yield from _flat(inner, path if is_whole else (*path, str(name)))
    elif isinstance(detail, list | tuple):
        for index, inner in enumerate(detail):
            yield from _flat(inner, path if isinstance(inner, str) else (*path, str(index)))
    else:
        yield FieldError(".".join(path), str(getattr(detail, "code", None) or "invalid"), str(detail))


def _of_django(exc: ValidationError) -> Iterator[FieldError]:
    """A model's or form's ValidationError as a flat list."""
    if not hasattr(exc, "error_dict"):
        yield from (
            FieldError("", error.code or "invalid", text) for error in exc.error_list for text in error.messages
        )
        return
    for name, errors in exc.error_dict.items():
        field = "" if name == NON_FIELD_ERRORS else name
        yield from (FieldError(field, error.code or "invalid", text) for error in errors for text in error.messages)


def _in_use(exc: ProtectedError | RestrictedError) -> Problem:
    rows = exc.protected_objects if isinstance(exc, ProtectedError) else exc.restricted_objects
    kinds = sorted({str(row._meta.verbose_name_plural) for row in rows})  # noqa: SLF001 - Django's public name for it
    return Problem("in_use", f"It cannot be deleted while {', '.join(kinds)} refer to it.")


def sqlstate_of(exc: Exception) -> str | None:
    """PostgreSQL's five-character code of a database error, whichever psycopg Django found."""
    return getattr(exc.__cause__, "sqlstate", None) or getattr(exc.__cause__, "pgcode", None)


def _of_database(exc: IntegrityError | DataError) -> Problem | None:
    """What two requests at once, or a value no validator knows of, come to; other violations are mistakes of ours."""
    if isinstance(exc, DataError):
        return invalid([FieldError("", "invalid", "A value cannot be stored (too large, or with a NUL character).")])
    match sqlstate_of(exc):
        case "23505":  # unique_violation
            return Problem("conflict", "Another one like it exists already.")
        case "23503":  # foreign_key_violation
            return Problem("conflict", "Something it refers to, or that refers to it, has just changed.")
    return None


def _refusal(exc: Exception) -> Problem | None:
    """A refusal by one of the apps' services: ``code`` and ``text``, or a list of ``problems`` that have them."""
    if type(exc).__module__.partition(".")[0] not in DOMAIN_APPS:
        return None
    problems = getattr(exc, "problems", None)
    if isinstance(problems, list | tuple) and problems:
        errors = tuple(FieldError(getattr(p, "field", ""), p.code, p.text) for p in problems)
        return Problem(getattr(exc, "code", "refused"), str(exc), errors, status=422)
    code, text = getattr(exc, "code", None), getattr(exc, "text", None)
    if not isinstance(code, str) or not isinstance(text, str):
        return None
    field = getattr(exc, "field", "") or ""
    return Problem(code, text, (FieldError(field, code, text),) if field else (), status=422)


# -- Django's own error pages ------------------------------------------------------------------------------------------


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler400: API callers get a problem, people Django's page."""
    if _is_api(request):
        return (problem_of(exception) or Problem("bad_request", "The request cannot be understood.")).response()
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler403."""
    if _is_api(request):
        return Problem("permission_denied", "You may not do this.").response()
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler404."""
    if _is_api(request):
        return Problem("not_found", "There is no such address; /api/docs lists them.").response()
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """handler500. Says nothing of the cause, which is in the log."""
    if _is_api(request):
        return Problem("error", "The request was not carried out. It may be tried again; the log says more.").response()
    return defaults.server_error(request)
