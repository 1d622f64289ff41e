"""Logging in and out of the API. Tokens are stored hashed: each is shown once, when it is made."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog
from django.contrib.auth import authenticate, logout
from django.contrib.auth.models import User
from drf_spectacular.utils import extend_schema
from knox.models import get_token_model
from rest_framework import serializers, status
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from config.api.throttles import LoginThrottle

log = structlog.get_logger(__name__)


def make_token(*, user: User) -> tuple[str, datetime | None]:
    """A new token and when it expires. The token itself is kept nowhere."""
    row, token = get_token_model().objects.create(user=user)
    log.info("token.created", user_id=user.pk)
    return token, row.expiry


class CredentialsSerializer(serializers.Serializer[Any]):
    """A user name and its password."""

    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=128, trim_whitespace=False, write_only=True)


class TokenSerializer(serializers.Serializer[Any]):
    """A token, to be sent as ``Authorization: Token …``."""

    token = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)


class TokenView(APIView):
    """Log in."""

    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]
    throttle_classes = [LoginThrottle]

    def get_authenticate_header(self, request: Request) -> str:  # noqa: ARG002 - DRF's signature
        """What a 401 names as the way in; without it DRF would answer 403."""
        return "Token"

    @extend_schema(request=CredentialsSerializer, responses={201: TokenSerializer}, operation_id="auth_token_create")
    def post(self, request: Request) -> Response:
        """Exchange a user name and password for a token. It is shown this once. Ten tries a minute."""
        given = CredentialsSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user = authenticate(request, **given.validated_data)
        if not isinstance(user, User):
            raise AuthenticationFailed("No active user has this name and password.")
        token, expires_at = make_token(user=user)
        body = TokenSerializer({"token": token, "expires_at": expires_at}).data
        return Response(body, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})


class LogoutView(APIView):
    """Log out: the token that came with the request is deleted, or the session ended."""

    permission_classes = [IsAuthenticated]

    @extend_schema(request=None, responses={204: None}, operation_id="auth_logout_create")
    def post(self, request: Request) -> Response:
        """Forget this token."""
        return self._forget(request)

    @extend_schema(request=None, responses={204: None}, operation_id="auth_logout_destroy")
    def delete(self, request: Request) -> Response:
        """Forget this token."""
        return self._forget(request)

    def _forget(self, request: Request) -> Response:
        if isinstance(request.auth, get_token_model()):
            request.auth.delete()
        else:
            logout(request._request)  # noqa: SLF001 - Django's function wants Django's request
        return Response(status=status.HTTP_204_NO_CONTENT)
