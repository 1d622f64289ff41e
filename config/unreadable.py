"""What a caller is told whose request cannot be read as one, so that it never gets to the application."""

from __future__ import annotations

import ssl

from gunicorn.http import errors  # type: ignore[import-untyped]

from config.api.problems import Problem
from config.stack.programs import FIELD_BYTES, FIELDS, REQUEST_LINE_BYTES


def problem_for(exc: Exception) -> Problem | None:
    """The problem that one of gunicorn's errors stands for; None where the mistake is ours."""
    match exc:
        case errors.InvalidResponseHeader() | errors.InvalidResponseHeaderName() | errors.ConfigurationProblem():
            return None
        case errors.LimitRequestLine():
            return Problem(
                "uri_too_long",
                f"The request line, which is method, address and query, may have {REQUEST_LINE_BYTES:,} bytes: "
                "send long lists in the body of a POST.",
            )
        case errors.LimitRequestHeaders():
            return Problem(
                "headers_too_large",
                f"There may be {FIELDS} header fields of {FIELD_BYTES:,} bytes each: send fewer or shorter ones.",
            )
        case errors.UnsupportedTransferCoding():
            return Problem("bad_request", "The body's transfer coding is not understood: send it chunked, or plain.")
        case errors.ExpectationFailed():
            return Problem("bad_request", "The header Expect may only ask for 100-continue.")
        case errors.ParseException() | ssl.SSLError():
            return Problem("bad_request", "This is not a request of HTTP/1.1 as it is written down.")
    return None
