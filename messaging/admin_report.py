"""The device report as a page: cards and lines that open the leads behind them, filters, and both as CSV.

Whoever has batches (a run, a sequence) describes itself as a :class:`Subject` and gets the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils.text import slugify

from devices.admin_pages import change_url, list_url, page
from devices.models import Device, DeviceState
from messaging import groups
from messaging.admin_filters import BY_STATUS, TOGETHER
from messaging.admin_progress import bar
from messaging.device_report import STATUSES, Line, chosen, lines_of, total_of
from messaging.device_report_csv import device_lines, recipient_lines
from messaging.models import Message

PER_PAGE = 100
COLOURS = {
    **dict.fromkeys(("sent", "delivered", "read", "replied"), "sent"),
    **dict.fromkeys(("failed", "cancelled", "expired"), "failed"),
}
"""Which of the five words a status is drawn like, where that is not its own."""
NOTES = {
    "total": "messages, one per lead",
    "queued": "with a worker or a gateway",
    "sent": "delivered and read ones too",
    "delivered": "read ones too",
    "unknown": "may have reached the phone",
}
WORDS = {status: status.capitalize() for status in STATUSES}
SHOWN_ALWAYS = ("total", "pending", "queued", "sent", "delivered", "read", "replied", "failed", "unknown")


@dataclass(frozen=True, slots=True)
class Part:
    """A share of a subject: a variant, a step. ``key`` as in :mod:`messaging.groups`."""

    key: str
    name: str
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is reported on. ``replied`` by batch and device, None where nobody counts replies by device.

    ``answered`` is the kind of key under which those who replied are found.
    """

    key: str
    name: str
    row: Any
    batches: tuple[int, ...]
    parts: tuple[Part, ...] = ()
    part_word: str = "Part"
    replied: Mapping[int, Mapping[int, int]] | None = None
    answered: str = ""
    back: str = ""
    links: Sequence[tuple[str, str]] = field(default=())


def report_view(request: HttpRequest, *, model_admin: Any, subject: Subject) -> HttpResponse | StreamingHttpResponse:
    """The page, or with ``?csv=devices`` or ``?csv=leads`` a file of what it shows."""
    part = next((each for each in subject.parts if each.key == request.GET.get("part")), None)
    batches = part.batches if part else subject.batches
    asked = {
        "part": part.key if part else "",
        "device": request.GET.get("device", "").strip()[:100],
        "status": _one_of(request.GET.get("status", ""), STATUSES),
        "sort": _one_of(request.GET.get("sort", ""), STATUSES),
    }
    key = part.key if part else subject.key
    if request.GET.get("csv") == "leads":
        return _leads(request, key=key, status=asked["status"], subject=subject)
    replied = None if subject.replied is None else _by_device(subject.replied, batches)
    every = lines_of(batches, replied=replied)
    lines = chosen(every, device=asked["device"], status=asked["status"], sort=asked["sort"])
    if request.GET.get("csv") == "devices":
        return _file(device_lines(lines), f"{subject.name} devices")
    shown = Paginator(lines, PER_PAGE).get_page(request.GET.get("page"))
    statuses = [name for name in STATUSES if name != "replied" or subject.replied is not None]
    total = total_of(every)
    context = {
        "subject": subject,
        "original": subject.row,
        "asked": asked,
        "cards": [_card(total, name, key=_key(subject, key, name)) for name in statuses if _matters(total, name)],
        "bar": bar(total.counts),
        "any": bool(every),
        "columns": [(name, WORDS[name], _query(asked, sort=name)) for name in statuses if _matters(total, name)],
        "rows": [_row(line, statuses, total=total, subject=subject, key=key) for line in shown.object_list],
        "shown": shown,
        "devices": len(every),
        "statuses": [(name, WORDS[name]) for name in statuses if name != "total"],
        "earlier": _query(asked, page=shown.previous_page_number()) if shown.has_previous() else "",
        "later": _query(asked, page=shown.next_page_number()) if shown.has_next() else "",
        "devices_csv": _query(asked, csv="devices"),
        "leads_csv": _query(asked, csv="leads"),
        "clear": _query({"part": asked["part"]}) if any(asked[name] for name in ("device", "status")) else "",
    }
    title = f"Device report of “{subject.name}”"
    return page(
        request, model_admin=model_admin, template="admin/messaging/device_report.html", title=title, context=context
    )


def _leads(request: HttpRequest, *, key: str, status: str, subject: Subject) -> StreamingHttpResponse:
    """The messages themselves, those of one status or all."""
    found = groups.find(_key(subject, key, status), user=request.user)
    messages: QuerySet[Message] = Message.objects.visible_to(request.user)
    messages = found.narrow(messages) if found else messages.none()
    if status not in {"", "total", "replied"}:
        messages = messages.filter(state__in=_states(status))
    return _file(recipient_lines(messages), f"{subject.name} {status or 'all'}")


def _states(status: str) -> tuple[str, ...]:
    return TOGETHER[BY_STATUS[status]][1] if status in BY_STATUS else (status,)


def _by_device(replied: Mapping[int, Mapping[int, int]], batches: Sequence[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for batch in batches:
        for device, number in replied.get(batch, {}).items():
            found[device] = found.get(device, 0) + number
    return found


def _matters(total: Line, status: str) -> bool:
    """Cancelled and expired are shown where there are any."""
    return status in SHOWN_ALWAYS or total.number(status) > 0


def _card(total: Line, status: str, *, key: str) -> dict[str, Any]:
    number = total.number(status)
    share = f"{100 * number / total.counts.total:.1f} %" if total.counts.total and status != "total" else ""
    return {
        "status": status,
        "word": WORDS[status],
        "number": number,
        "note": ", ".join(filter(None, (share, NOTES.get(status, "")))),
        "css": f"fl-{COLOURS.get(status, status)}",
        "url": _leads_url(key, status),
    }


def _row(line: Line, statuses: Sequence[str], *, total: Line, subject: Subject, key: str) -> dict[str, Any]:
    return {
        "line": line,
        "url": change_url(Device(pk=line.device_id)),
        "state": DeviceState(line.state).label,
        "colour": "success" if line.state == DeviceState.ACTIVE else "warning",
        "bar": bar(line.counts),
        "cells": [
            (WORDS[name], line.number(name), _leads_url(_key(subject, key, name), name, device=line.device_id))
            for name in statuses
            if _matters(total, name)
        ],
    }


def _key(subject: Subject, key: str, status: str) -> str:
    """Who replied is a group of its own, by the same numbers."""
    return key.replace(subject.key.partition("-")[0], subject.answered, 1) if status == "replied" else key


def _leads_url(key: str, status: str, *, device: int | None = None) -> str:
    query: dict[str, Any] = {"of": key, "archived": "all"}
    if status not in {"total", "replied"}:
        query["state__exact"] = BY_STATUS.get(status, status)
    if device is not None:
        query["device__id__exact"] = device
    return list_url(Message, urlencode(query))


def _query(asked: Mapping[str, str], **more: Any) -> str:
    return "?" + urlencode({name: value for name, value in {**asked, **more}.items() if value})


def _one_of(value: str, known: Sequence[str]) -> str:
    return value if value in known else ""


def _file(lines: Any, name: str) -> StreamingHttpResponse:
    answer = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{slugify(name) or "report"}.csv"'
    return answer
