"""Logging in and out of the API, and the tokens it knows people's programs by.

Tokens are django-rest-knox': stored as hashes, shown once, expiring, revocable. It was held against a model of our own
and kept; what it has no word for (a name, scopes, the last use) is in :class:`config.token_models.ApiToken`, which
takes its model's place the way it provides for.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import structlog
from django.contrib.auth import authenticate, logout
from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from knox.settings import knox_settings
from rest_framework import mixins, serializers, status
from rest_framework.exceptions import APIException, AuthenticationFailed, PermissionDenied
from rest_framework.permissions import AllowAny, BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from config import second_factor
from config.api.throttles import LoginThrottle
from config.audit import refuse_log_in
from config.scopes import FULL, MEANINGS, SCOPES
from config.token_models import ApiToken
from devices.access import role_of

log = structlog.get_logger(__name__)

BY_PASSWORD = "log-in by password"  # noqa: S105 - a token's name


def make_token(
    *, user: User, name: str = "", scopes: tuple[str, ...] = (FULL,), days: int | None = None
) -> tuple[str, datetime | None]:
    """A new token and when it expires. The token itself is kept nowhere.

    ``days`` is at most the installation's setting, which is also what None means.
    """
    token, row = issue(user=user, name=name, scopes=scopes, days=days)
    return token, row.expiry


def most_days() -> int:
    """The longest life of a token; at least a day."""
    return max(1, int(knox_settings.TOKEN_TTL / timedelta(days=1)))


def issue(*, user: User, name: str, scopes: tuple[str, ...], days: int | None) -> tuple[str, ApiToken]:
    """:func:`make_token`, with the row that was stored."""
    life = knox_settings.TOKEN_TTL if days is None else min(timedelta(days=days), knox_settings.TOKEN_TTL)
    row, token = ApiToken.objects.create(user=user, name=name, scopes=list(scopes), expiry=life)
    log.info("token.created", user_id=user.pk, token_id=str(row.public_id), scopes=list(scopes))
    return token, row


class ScopesField(serializers.MultipleChoiceField):
    """Scopes, in the order of their list."""

    def __init__(self, **kwargs: Any) -> None:
        words = "; ".join(f"`{scope}`: {meaning}" for scope, meaning in MEANINGS.items())
        kwargs.setdefault("help_text", f"What it may open. To write in an area includes reading there. {words}.")
        super().__init__(choices=SCOPES, allow_empty=False, **kwargs)

    def to_internal_value(self, data: Any) -> list[str]:  # type: ignore[override]
        """In order, each once. Raises ValidationError."""
        chosen = super().to_internal_value(data)
        return [scope for scope in SCOPES if scope in chosen]

    def to_representation(self, value: Any) -> list[str]:  # type: ignore[override]
        """As stored."""
        return list(value)


class _NewToken(serializers.Serializer[Any]):
    """What may be said of a token that is to be made."""

    name = serializers.CharField(max_length=100, help_text="What it is for, as “web shop”.")
    scopes = ScopesField()
    expires_in_days = serializers.IntegerField(
        required=False, min_value=1, help_text="Its life; without, the installation's setting, which is also the most."
    )

    def validate_expires_in_days(self, days: int) -> int:
        """At most what the installation allows."""
        if days > most_days():
            raise serializers.ValidationError(f"At most {most_days()} days (FLOTILLA_TOKEN_DAYS).")
        return days


class NewTokenSerializer(_NewToken):
    """A token to be made."""


class CredentialsSerializer(_NewToken):
    """A user name and its password, and the token that is wanted for them."""

    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=128, trim_whitespace=False, write_only=True)
    code = serializers.CharField(
        max_length=20,
        required=False,
        write_only=True,
        help_text="Of the authenticator app, or a recovery code; needed by whoever has set one up.",
    )
    name = serializers.CharField(max_length=100, default=BY_PASSWORD)
    scopes = ScopesField(default=[FULL])


class TokenSerializer(serializers.Serializer[Any]):
    """A token, to be sent as ``Authorization: Token …``."""

    token = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)


class ApiTokenSerializer(serializers.ModelSerializer[ApiToken]):
    """What is known of a token: never the token itself."""

    id = serializers.UUIDField(source="public_id", read_only=True)
    begins_with = serializers.CharField(source="token_key", read_only=True)
    created_at = serializers.DateTimeField(source="created", read_only=True)
    expires_at = serializers.DateTimeField(source="expiry", read_only=True, allow_null=True)
    scopes = ScopesField(read_only=True)

    class Meta:
        model = ApiToken
        fields = ["id", "user", "name", "scopes", "begins_with", "created_at", "expires_at", "last_used_at"]
        read_only_fields = fields


class MadeTokenSerializer(ApiTokenSerializer):
    """A token that has just been made, with what opens the API: shown this once."""

    token = serializers.CharField(read_only=True)

    class Meta(ApiTokenSerializer.Meta):
        fields = [*ApiTokenSerializer.Meta.fields, "token"]
        read_only_fields = fields


class CodeMissing(APIException):
    """The password was right; this account has an authenticator app as well."""

    status_code = 401
    default_code = "second_factor_required"
    default_detail = "This account has an authenticator app: send its code, or a recovery code, as “code”."


class FactorOwed(PermissionDenied):
    """The installation wants a second factor of this person, who has none."""

    default_code = "second_factor_owed"
    default_detail = "Log in to the admin once and set up an authenticator app: this account may not go without."


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
        form = CredentialsSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        user = authenticate(request, username=given["username"], password=given["password"])
        if not isinstance(user, User):
            raise AuthenticationFailed("No active user has this name and password.")
        _second_step(request, user, given.get("code", ""))
        token, expires_at = make_token(
            user=user, name=given["name"], scopes=tuple(given["scopes"]), days=given.get("expires_in_days")
        )
        body = TokenSerializer({"token": token, "expires_at": expires_at}).data
        return Response(body, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})


def _second_step(request: Request, user: User, code: str) -> None:
    """Raises CodeMissing, FactorOwed or AuthenticationFailed."""
    if second_factor.owed(user):
        raise FactorOwed
    if not second_factor.is_on(user):
        return
    if not code:
        raise CodeMissing
    if not second_factor.accept(user=user, code=code, now=timezone.now()):
        refuse_log_in(request, user)
        raise AuthenticationFailed("The code is not right, or was used before.")


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
        if isinstance(request.auth, ApiToken):
            request.auth.delete()
        else:
            logout(request._request)  # noqa: SLF001 - Django's function wants Django's request
        return Response(status=status.HTTP_204_NO_CONTENT)


class HasRole(BasePermission):
    """Whoever has a role may use the API within it, and so have tokens."""

    message = "Tokens are for people with a role; an admin gives roles."

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002 - DRF's signature
        return role_of(request.user) is not None


class TokenViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.DestroyModelMixin, GenericViewSet[ApiToken]
):
    """One's own API tokens; admins see everybody's. Through a token, only one with full access gets here."""

    queryset = ApiToken.objects.all()
    serializer_class = ApiTokenSerializer
    permission_classes = [HasRole]
    lookup_field = "public_id"
    lookup_url_kwarg = "pk"
    pagination_class = None

    def get_queryset(self) -> Any:
        """Newest first."""
        if getattr(self, "swagger_fake_view", False):
            return ApiToken.objects.none()
        return ApiToken.objects.all().seen_by(self.request.user).order_by("-created", "digest")

    @extend_schema(request=NewTokenSerializer, responses={201: MadeTokenSerializer})
    def create(self, request: Request) -> Response:
        """Make a token for yourself. It is shown in this answer and nowhere else."""
        form = NewTokenSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        user = request.user
        if not isinstance(user, User):  # the permission lets nobody else through
            raise PermissionDenied
        token, row = issue(
            user=user, name=given["name"], scopes=tuple(given["scopes"]), days=given.get("expires_in_days")
        )
        row.token = token  # for this answer only
        return Response(
            MadeTokenSerializer(row).data, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"}
        )

    def perform_destroy(self, instance: ApiToken) -> None:
        """It stops working at once."""
        log.info("token.revoked", token_id=str(instance.public_id), user_id=instance.user_id)
        instance.delete()
