"""Who may look at Flower, by role: what the proxy asks before it lets a request through.

Flower knows one password and no roles. The proxies of deploy/ ask here with the visitor's session first, and give
Flower its password themselves; where there is no proxy, the password alone guards it.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from config import second_factor
from devices.access import Role, role_of


@never_cache
@require_safe
def may_see_flower(request: HttpRequest) -> HttpResponse:
    """204 for admin and ops, 403 for everybody else who is logged in, 401 for who is not."""
    if not request.user.is_authenticated or not request.user.is_active:
        return HttpResponse(status=401)
    if role_of(request.user) not in {Role.ADMIN, Role.OPS} or second_factor.owed(request.user):
        return HttpResponse(status=403)
    return HttpResponse(status=204)
