"""Who a token stands for, and whether it opens this address: the one place where scopes are checked.

It is the authenticator, not a permission of the views, that asks: views name permissions of their own, and none of
them can forget this.
"""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from knox.auth import TokenAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from config.api.problems import FieldError
from config.scopes import FULL, allows, needed


class ScopeMissing(PermissionDenied):
    """The token is good and does not reach this far. ``errors`` names the scope for programs."""

    default_code = "scope_missing"

    def __init__(self, scope: str) -> None:
        text = (
            "Only a token with full access (the scope “all”), or a log-in, opens this."
            if scope == FULL
            else f"This token lacks the scope “{scope}”. Make one that has it."
        )
        super().__init__(text)
        self.errors = (FieldError("", scope, text),)


class ScopedTokens(TokenAuthentication):
    """knox' tokens, within their scopes."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        """The user and the token; None without one. Raises AuthenticationFailed and ScopeMissing."""
        found: tuple[Any, Any] | None = super().authenticate(request)
        if found is None:
            return None
        token = found[1]
        token.note_use(now=timezone.now())
        scope = needed(method=request.method or "", path=request.path_info)
        if not allows(token.scopes, scope):
            raise ScopeMissing(str(scope))
        return found
