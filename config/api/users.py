"""People who log in, over REST: for admins, and through a token only with full access."""

from __future__ import annotations

from typing import Any

import django_filters  # type: ignore[import-untyped]
from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as Weak
from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from devices.access import Role, role_of

ROLES = [role.value for role in Role]


class AdminsOnly(BasePermission):
    """Who may log in is decided by admins."""

    message = "Only admins see and change who may log in."

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002 - DRF's signature
        return role_of(request.user) is Role.ADMIN


@extend_schema_field(serializers.ListSerializer(child=serializers.ChoiceField(choices=ROLES)))
class RolesField(serializers.MultipleChoiceField):
    """Names of the groups that mean something here; others stay as they are."""

    def get_attribute(self, instance: User) -> Any:
        """From the groups that were read with the user."""
        return [group.name for group in instance.groups.all()]

    def to_internal_value(self, data: Any) -> list[str]:  # type: ignore[override]
        """Each once, the most powerful first. Raises ValidationError."""
        chosen = super().to_internal_value(data)
        return [role for role in ROLES if role in chosen]

    def to_representation(self, value: Any) -> list[str]:  # type: ignore[override]
        """The most powerful first."""
        return [role for role in ROLES if role in value]


class UserSerializer(serializers.ModelSerializer[User]):
    """Somebody who logs in. The password goes in and never comes out."""

    roles = RolesField(
        choices=ROLES,
        required=False,
        help_text="With several, the most powerful counts. Without any, one sees nothing.",
    )
    password = serializers.CharField(
        max_length=128, trim_whitespace=False, write_only=True, required=False, help_text="Needed for a new user."
    )

    class Meta:
        model = User
        fields = [
            "id", "username", "password", "email", "first_name", "last_name", "roles", "is_active", "is_staff",
            "is_superuser", "last_login", "date_joined",
        ]  # fmt: skip
        read_only_fields = ["is_superuser", "last_login", "date_joined"]
        extra_kwargs = {
            "is_active": {"help_text": "Whoever is not can no longer log in, and none of their tokens works."},
            "is_staff": {"help_text": "Whether they may log in to the admin; true for a new user unless said."},
        }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """A password that is good enough for this person; and nobody shuts themselves out."""
        if self.instance is None and "password" not in attrs:
            raise serializers.ValidationError({"password": "A new user needs a password."}, "required")
        if "password" in attrs:
            known = {name: attrs[name] for name in ("username", "email", "first_name", "last_name") if name in attrs}
            person = self.instance or User(**known)
            try:
                validate_password(attrs["password"], person)
            except Weak as weak:
                raise serializers.ValidationError({"password": list(weak.messages)}, "weak") from None
        if self.instance is not None and self.instance == self.context["request"].user:
            self._stays_in(attrs)
        return attrs

    def _stays_in(self, attrs: dict[str, Any]) -> None:
        """Raises ValidationError."""
        if not attrs.get("is_active", True):
            raise serializers.ValidationError({"is_active": "Another admin must do that to you."}, "own_account")
        if Role.ADMIN.value not in attrs.get("roles", [Role.ADMIN.value]) and not self.instance.is_superuser:  # type: ignore[union-attr]
            raise serializers.ValidationError({"roles": "Another admin must take your role."}, "own_account")

    def create(self, validated_data: dict[str, Any]) -> User:
        """With their roles, or not at all."""
        roles = validated_data.pop("roles", [])
        with transaction.atomic():
            user = User.objects.create_user(**{"is_staff": True, **validated_data})
            _give(user, roles)
        return user

    def update(self, instance: User, validated_data: dict[str, Any]) -> User:
        """The named columns and nothing else; a new password ends their sessions."""
        roles, password = validated_data.pop("roles", None), validated_data.pop("password", None)
        with transaction.atomic():
            for name, value in validated_data.items():
                setattr(instance, name, value)
            if password is not None:
                instance.set_password(password)
            columns = [*validated_data, *(["password"] if password is not None else [])]
            if columns:
                instance.save(update_fields=columns)
            if roles is not None:
                _give(instance, roles)
        return instance


def _give(user: User, roles: list[str]) -> None:
    """Exactly these roles; groups that mean nothing here stay."""
    groups = {group.name: group for group in Group.objects.filter(name__in=ROLES)}
    missing = [role for role in roles if role not in groups]
    groups |= {name: Group.objects.get_or_create(name=name)[0] for name in missing}
    user.groups.remove(*(group for name, group in groups.items() if name not in roles))
    user.groups.add(*(groups[name] for name in roles))
    user._prefetched_objects_cache = {}  # type: ignore[attr-defined]  # noqa: SLF001 - the groups read before


class UserFilter(django_filters.FilterSet):
    """Which users to list."""

    username = django_filters.CharFilter(label="The whole name.")
    role = django_filters.ChoiceFilter(field_name="groups__name", choices=[(role, role) for role in ROLES])
    is_active = django_filters.BooleanFilter()

    class Meta:
        model = User
        fields: list[str] = []


class UserViewSet(
    mixins.CreateModelMixin, mixins.UpdateModelMixin, mixins.RetrieveModelMixin, mixins.ListModelMixin,
    GenericViewSet[User],
):  # fmt: skip
    """People who log in, newest first. They stay, since their rows and the audit trail need them; end their access with
    `is_active`."""

    queryset = User.objects.prefetch_related("groups")
    serializer_class = UserSerializer
    filterset_class = UserFilter
    permission_classes = [AdminsOnly]

    def get_queryset(self) -> QuerySet[User]:
        """Everybody."""
        found = super().get_queryset()
        return found.none() if getattr(self, "swagger_fake_view", False) else found

    @extend_schema(operation_id="users_partial_update")
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        """Change what is named. Only a superuser changes a superuser: a new password would be a way to become one."""
        if self.get_object().is_superuser and not request.user.is_superuser:
            raise PermissionDenied("Only a superuser changes a superuser.")
        return super().partial_update(request, *args, **kwargs)
