"""What an API caller may do; which rows they may do it to is :mod:`devices.access`'s business."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.permissions import SAFE_METHODS, BasePermission

from devices.access import may_change, may_change_row, role_of

if TYPE_CHECKING:  # rest_framework.views reads the settings that name this module
    from rest_framework.request import Request
    from rest_framework.views import APIView


class RolePermission(BasePermission):
    """Anybody with a role may read what is visible to them; admin and staff may change it if it is theirs."""

    message = "You may look at this but not change it."

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002 - DRF's signature
        if role_of(request.user) is None:
            return False
        return request.method in SAFE_METHODS or may_change(request.user)

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:  # noqa: ARG002
        """What is shared with somebody is theirs to look at, whatever their role."""
        return request.method in SAFE_METHODS or may_change_row(request.user, obj)
