"""A report and the leads behind it as CSV, line by line: UTF-8 with a mark, and no cell that begins like a formula."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from leads.cells import guarded
from messaging.device_report import STATUSES, Line
from messaging.models import Message

_FIELDS = (
    "pk", "lead__name", "phone", "state", "device__name", "batch__name", "sent_at", "delivered_at", "read_at",
    "attempts", "error_code", "error_text",
)  # fmt: skip
_TITLES = (
    "message", "name", "phone", "state", "device", "batch", "sent_at", "delivered_at", "read_at", "attempts",
    "error_code", "error",
)  # fmt: skip
_AT_ONCE = 2000


class _Echo:
    """A file for :mod:`csv` that hands each line back."""

    def write(self, line: str) -> str:
        return line


def device_lines(lines: Iterable[Line]) -> Iterator[str]:
    """The report: a row per device."""
    writer = csv.writer(_Echo())
    yield "\ufeff" + writer.writerow(["device", "device_id", "device_state", *STATUSES])
    for line in lines:
        numbers = [line.number(status) for status in STATUSES]
        yield writer.writerow([guarded(line.device), line.device_id, line.state, *numbers])


def recipient_lines(messages: QuerySet[Message]) -> Iterator[str]:
    """The leads behind it: a row per message, oldest first, through a server-side cursor."""
    writer = csv.writer(_Echo())
    yield "\ufeff" + writer.writerow(_TITLES)
    rows = messages.using(settings.FLOTILLA_OWN_CONNECTION).order_by("pk").values_list(*_FIELDS)
    for row in rows.iterator(_AT_ONCE):
        yield writer.writerow([_cell(value) for value in row])


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return guarded(value) if isinstance(value, str) else "" if value is None else value
