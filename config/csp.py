"""What a browser may load and run on our pages: nothing from elsewhere, and no script that stands in a page.

The admin's scripts are files of ours, of unfold and of Django. unfold's pages are driven by Alpine, which turns the
attributes it finds into functions: that takes ``'unsafe-eval'``, on the admin's pages and on no other. It lets no
script in: what somebody manages to write into a page as ``<script>`` or ``onclick`` does not run. Styles may stand in
pages, since unfold and Alpine write them there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse

HEADER: Final = "Content-Security-Policy"
_PAGE: Final = (
    "default-src 'self'; script-src 'self'{eval}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; object-src 'none'; frame-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
PAGES: Final = _PAGE.format(eval="")
ADMIN: Final = _PAGE.format(eval=" 'unsafe-eval'")
NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"
"""For answers that are no pages: should a browser take one for a page, it loads nothing."""


class ContentSecurityPolicyMiddleware:
    """Says so with every answer that does not say it itself, as served media do."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if HEADER not in response:
            response[HEADER] = policy_of(path=request.path, content_type=response.get("Content-Type", ""))
        response.setdefault("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
        return response


def policy_of(*, path: str, content_type: str) -> str:
    """The policy of an answer."""
    if not content_type.startswith("text/html"):
        return NOTHING
    # error pages show the admin's frame at any address to whoever is logged in
    return ADMIN if not path.startswith(("/api/", "/status/")) else PAGES
