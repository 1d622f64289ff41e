"""Searching lists of what hangs on leads by whom it is about."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

from leads.admin import phone_in
from leads.models import Lead
from leads.searching import named

MOST = 1_000
"""Leads of one name that are followed; whoever has more namesakes goes by the number."""


class ByLead:
    """Of a ModelAdmin whose rows have a ``lead``: found like leads are, then by the index on the lead."""

    search_fields = ("lead__phone",)
    search_help_text = "Beginnings of the lead's names, or a whole phone number"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Rows of the leads that are meant."""
        term = search_term.strip()
        if not term:
            return queryset, False
        leads = Lead.objects.visible_to(request.user)
        phone = phone_in(term)
        meant = leads.filter(phone=phone) if phone else named(leads, term)
        return queryset.filter(lead__in=list(meant.order_by().values_list("pk", flat=True)[:MOST])), False
