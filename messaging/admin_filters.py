"""Filters of the list of messages: by state, and by what the messages belong to above."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import DropdownFilter

from messaging import groups
from messaging.models import Message
from messaging.states import State

TOGETHER: dict[str, tuple[str, tuple[State, ...]]] = {
    "all_queued": ("Queued or sending", (State.QUEUED, State.SENDING)),
    "all_sent": ("Sent, delivered or read", (State.SENT, State.DELIVERED, State.READ)),
    "all_delivered": ("Delivered or read", (State.DELIVERED, State.READ)),
}
"""States that reports count as one."""

BY_STATUS = {"queued": "all_queued", "sent": "all_sent", "delivered": "all_delivered"}
"""What this filter calls a status of a report, where that is not the state's own name."""


class StateFilter(DropdownFilter):
    """One state, or those that reports count together."""

    title = "state"
    parameter_name = "state__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Single states first."""
        single = [(state.value, state.value.capitalize()) for state in State]
        return [*single, *((name, words) for name, (words, _) in TOGETHER.items())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Message]) -> QuerySet[Message]:
        """An address made by hand that names no state finds nothing."""
        value = self.value()
        if not value:
            return queryset
        if value in TOGETHER:
            return queryset.filter(state__in=TOGETHER[value][1])
        return queryset.filter(state=value) if value in {state.value for state in State} else queryset.none()


class GroupFilter(DropdownFilter):
    """A run or a step, as its report links to it: shown while it is in force, to be taken off."""

    title = "report"
    parameter_name = "of"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Only the one that was asked for: reports are where one chooses."""
        value = self.value()
        self.group = groups.find(value, user=request.user) if value else None
        if not value:
            return []
        return [(value, self.group.title if self.group else "Not there")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Message]) -> QuerySet[Message]:
        """Nothing where the name says nothing to this person."""
        if not self.value():
            return queryset
        return self.group.narrow(queryset) if self.group else queryset.none()
