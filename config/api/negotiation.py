"""Which format an answer comes in."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import MethodNotAllowed, NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request


class Negotiation(DefaultContentNegotiation):
    """As the framework's, but a method that an address does not take is the first thing to say about it."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        """The renderer and its media type. Raises MethodNotAllowed, else NotAcceptable."""
        try:
            return super().select_renderer(request, renderers, format_suffix)
        except NotAcceptable:
            view, method = request.parser_context["view"], str(request.method)
            if method.lower() not in view.http_method_names or not hasattr(view, method.lower()):
                raise MethodNotAllowed(method) from None
            raise
