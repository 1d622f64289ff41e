"""The audit trail in the admin: to read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from config.audit_models import AuditEntry
from devices.admin_base import InfinitePaginator, ReadOnlyAdmin
from devices.admin_text import moment_column

SHOWN = 120


@admin.register(AuditEntry)
class AuditAdmin(ReadOnlyAdmin):
    """Admins see everybody's entries, staff their own."""

    paginator = InfinitePaginator
    list_display = ("moment", "user", "event", "table", "object_id", "changes", "action", "address")
    list_display_links = None
    list_filter = (("event", ChoicesDropdownFilter),)
    list_select_related = ("user",)
    search_fields = ("=object_id", "=table", "=user__username")
    search_help_text = "Number of the row, its table, or the user's name"
    ordering = ("-id",)
    sortable_by = ()

    moment = moment_column("at", "When", in_full=True)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The database writes these."""
        return False

    @display(description="Before → after")
    def changes(self, entry: AuditEntry) -> str:
        """The fields, as far as they fit."""
        before, after = entry.before or {}, entry.after or {}
        said = ", ".join(f"{name}: {before.get(name)} → {after.get(name)}" for name in sorted({*before, *after}))
        return said if len(said) <= SHOWN else f"{said[:SHOWN]}…"
