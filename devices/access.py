"""Who may see what: the one place that decides.

Every model that belongs to somebody declares an :class:`Access` and uses :class:`OwnedQuerySet`; admin, API and
reports all go through :meth:`OwnedQuerySet.visible_to` to read and :meth:`OwnedQuerySet.changeable_by` to act. Roles
are Django groups:

* **admin** (or superuser): everything.
* **staff**: what they own; and, read only, what hangs on a device shared with them.
* **team**: what hangs on a device shared with them, read only.
* **ops**: health, workers, queues and Flower; no leads, no messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db import models
from django.db.models import Q

AnyUser = User | AnonymousUser | AbstractBaseUser


class Role(StrEnum):
    """What somebody may do; the values are the names of the Django groups."""

    ADMIN = "admin"
    STAFF = "staff"
    TEAM = "team"
    OPS = "ops"


@dataclass(frozen=True, slots=True)
class Access:
    """Where a model keeps its owner and, if it hangs on one, its device (as ORM look-up paths).

    Without owner, rows are the whole installation's: admins see them.
    """

    owner: str | None
    device: str | None = None


def role_of(user: AnyUser) -> Role | None:
    """The most powerful role of ``user``; None for nobody in particular."""
    if not user.is_authenticated or not user.is_active:
        return None
    if getattr(user, "is_superuser", False):
        return Role.ADMIN
    names = _group_names(user)
    return next((role for role in Role if role.value in names), None)


def may_change(user: AnyUser) -> bool:
    """Whether ``user`` may change the rows they see at all."""
    return role_of(user) in {Role.ADMIN, Role.STAFF}


def _group_names(user: Any) -> set[str]:
    """Group names, read once per user object (one request)."""
    cached = getattr(user, "_flotilla_groups", None)
    if cached is None:
        cached = user._flotilla_groups = set(user.groups.values_list("name", flat=True))  # noqa: SLF001
    return cached


class OwnedQuerySet(models.QuerySet[Any]):
    """Rows that belong to somebody. The model says where in its ``access`` attribute."""

    def visible_to(self, user: AnyUser) -> Self:
        """Only the rows ``user`` may see."""
        access: Access = self.model.access
        match role_of(user):
            case Role.ADMIN:
                return self
            case Role.STAFF if access.owner is not None:
                mine = Q(**{access.owner: user})
                # Most staff have no shares. Their query stays one condition, which the indexes by owner serve.
                shared = _shared_devices(user) if access.device is not None else frozenset()
                return self.filter(mine | _on_devices(access, shared) if shared else mine)
            case Role.TEAM if access.device is not None:
                return self.filter(_on_devices(access, _shared_devices(user)))
            case _:
                return self.none()

    def changeable_by(self, user: AnyUser) -> Self:
        """Only the rows ``user`` may change or act on: what is shared with somebody is theirs to look at."""
        access: Access = self.model.access
        match role_of(user):
            case Role.ADMIN:
                return self
            case Role.STAFF if access.owner is not None:
                return self.filter(Q(**{access.owner: user}))
            case _:
                return self.none()


def may_change_row(user: AnyUser, row: models.Model) -> bool:
    """Whether ``user``, who sees this row, may change it.

    Costs a query only for staff with whom devices are shared: what anybody else of them sees is their own.
    """
    access: Access | None = getattr(row, "access", None)
    if access is None or access.device is None or row.pk is None or role_of(user) is not Role.STAFF:
        return may_change(user)
    if not _shared_devices(user):
        return True
    manager: Any = type(row)._default_manager  # noqa: SLF001 - Django's own idiom
    return bool(manager.filter(pk=row.pk).changeable_by(user).exists())


def _on_devices(access: Access, devices: frozenset[int]) -> Q:
    return Q(**{"pk__in" if access.device == "self" else f"{access.device}__in": devices})


def _shared_devices(user: Any) -> frozenset[int]:
    """Ids of the devices shared with ``user``, read once per user object (one request)."""
    cached: frozenset[int] | None = getattr(user, "_flotilla_shared", None)
    if cached is None:
        cached = user._flotilla_shared = frozenset(user.device_shares.values_list("device", flat=True))  # noqa: SLF001
    return cached
