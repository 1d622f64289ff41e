"""List filters that offer, and name, only what the person may see, and that never load whole tables to do so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest
from unfold.contrib.filters.admin import AutocompleteSelectFilter


class VisibleSelectFilter(AutocompleteSelectFilter):
    """One related row, found by typing.

    The choices come page by page from the related admin's autocomplete, which knows who sees what. The stock filter
    loads every related row beforehand, and names a chosen one whoever asks.
    """

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> list[tuple[Any, str]]:
        """Nothing beforehand."""
        return []

    def has_output(self) -> bool:
        """Also with nothing loaded."""
        return True

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """The form, which knows the chosen row only if it is visible."""
        for choice in super().choices(changelist):
            for field in choice["form"].fields.values():
                field.queryset = field.queryset.visible_to(self.request.user)
            yield choice
