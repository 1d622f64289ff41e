"""What a call says: ``{"events": [{"id", "type", "at", "data"}, …]}``, from the rows as they are now.

Rows that are gone, or people who were erased, are told by their ids alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from devices.models import Device
from messaging import services
from messaging.models import InboundMessage, Message
from messaging.outgoing.kinds import Kind
from messaging.outgoing.models import Delivery

Words = dict[int, dict[str, Any]]
"""What is said of each row, by its id."""


def body_of(deliveries: Sequence[Delivery]) -> bytes:
    """The body that tells these events, in this order; a query or two for each sort of them."""
    words = {sort: say([each for each in deliveries if _sort(each) == sort]) for sort, say in _SORTS.items()}
    events = [
        {
            "id": str(each.pk),
            "type": each.kind,
            "at": each.happened_at.isoformat(),
            "data": words[_sort(each)].get(each.subject, {}) | each.data,
        }
        for each in deliveries
    ]
    return json.dumps({"events": events}, ensure_ascii=False).encode()


def _sort(delivery: Delivery) -> str:
    return delivery.kind.partition(".")[0]


def _messages(deliveries: Iterable[Delivery]) -> Words:
    found = Message.objects.filter(pk__in={each.subject for each in deliveries}).select_related("batch").defer(
        "batch__content"
    )  # fmt: skip
    rows = {message.pk: message for message in found}
    return {each.subject: _message(each, rows.get(each.subject)) for each in deliveries}


def _message(delivery: Delivery, message: Message | None) -> dict[str, Any]:
    said: dict[str, Any] = {"message": delivery.subject}
    if message is not None:
        said |= {
            "batch": message.batch_id,
            "batch_name": message.batch.name,
            "device": message.device_id,
            "lead": message.lead_id,
            "phone": message.phone,
            "external_id": message.external_id,
        }
    return said


def _replies(deliveries: Iterable[Delivery]) -> Words:
    ids = {each.subject for each in deliveries}
    return {pk: {"reply": pk} for pk in ids} | {
        reply.pk: {
            "reply": reply.pk,
            "device": reply.device_id,
            "lead": reply.lead_id,
            "phone": reply.phone,
            "text": reply.text,
            "written_at": reply.written_at.isoformat(),
        }
        for reply in InboundMessage.objects.filter(pk__in=ids)
    }


def _devices(deliveries: Iterable[Delivery]) -> Words:
    ids = {each.subject for each in deliveries}
    return {pk: {"device": pk} for pk in ids} | {
        device.pk: {"device": device.pk, "name": device.name, "gateway": device.gateway, "reason": device.state_reason}
        for device in Device.objects.filter(pk__in=ids).defer("credentials")
    }


def _runs(deliveries: Iterable[Delivery]) -> Words:
    """What a run is stands in ``data``; its batches are ours to count."""
    given = list(deliveries)
    counts = services.counts_of({batch for each in given for batch in each.data.get("batches", [])})
    return {
        each.subject: {
            "run": each.subject,
            **{
                name: sum(getattr(counts[batch], name) for batch in each.data.get("batches", []) if batch in counts)
                for name in ("total", "sent", "delivered", "read", "failed", "cancelled", "expired", "unknown")
            },
        }
        for each in given
    }


def _test(deliveries: Iterable[Delivery]) -> Words:
    return {each.subject: {"text": "A test: nothing has happened."} for each in deliveries}


_SORTS: dict[str, Callable[[list[Delivery]], Words]] = {
    "message": _messages,
    "reply": _replies,
    "device": _devices,
    "run": _runs,
    "test": _test,
}
assert {kind.value.partition(".")[0] for kind in Kind} == set(_SORTS)  # noqa: S101 - a kind without words is a mistake
