"""What may be asked of messaging: open a batch, send one message, pause, resume, cancel, wrap up, and how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Count, Exists, OuterRef, Q, Sum
from django.db.models.functions import Coalesce

from devices.models import Device, DeviceState
from leads import suppression
from leads.models import Lead
from leads.optout import Heard
from leads.phones import PhoneProblem, parse_phone
from messaging import tracing
from messaging.content.check import check_content
from messaging.content.problems import TemplateProblem
from messaging.content.shape import Content
from messaging.content.wording import check_template
from messaging.ending import ENDS, end_unsent
from messaging.models import Batch, BatchState, Message, Priority, Stream
from messaging.states import IN_FLIGHT, State
from messaging.waking import wake


class SendRefused(Exception):  # noqa: N818 - reads as a fact
    """A message that cannot be accepted; ``field`` names what to change."""

    def __init__(self, code: str, text: str, field: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.field = field


@dataclass(frozen=True, slots=True)
class Counts:
    """How many messages of a batch are where; read from the streams' counters."""

    total: int = 0
    pending: int = 0
    queued: int = 0
    sent: int = 0
    delivered: int = 0
    read: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    unknown: int = 0
    presumed: int = 0
    """How many of the unknown ones count as sent by now."""

    @property
    def settled(self) -> int:
        """Messages that have nothing ahead of them."""
        return self.total - self.pending - self.queued

    @property
    def percent(self) -> float:
        """Share of settled messages, 0 to 100."""
        return 100.0 * self.settled / self.total if self.total else 0.0


def open_batch(
    *,
    owner: User,
    name: str,
    content: Mapping[str, Any],
    now: datetime,
    origin: str | None = None,
    priority: Priority = Priority.BULK,
    delay_min_seconds: float = 0,
    delay_max_seconds: float = 0,
    failover: bool = False,
    expires_after: timedelta | None = None,
) -> Batch:
    """A batch ready to be filled. A second call with the same ``origin`` finds the first one's batch."""
    fields = {
        "owner": owner,
        "name": name,
        "content": dict(content),
        "priority": priority,
        "delay_min_seconds": delay_min_seconds,
        "delay_max_seconds": delay_max_seconds,
        "failover": failover,
        "request_id": tracing.request_id(),
        "created_at": now,
        "expires_at": now + (expires_after or timedelta(days=settings.FLOTILLA_MESSAGE_EXPIRY_DAYS)),
    }
    if origin is None:
        return Batch.objects.create(**fields)
    return Batch.objects.get_or_create(origin=origin, defaults=fields)[0]


def send_single(
    *,
    owner: User,
    now: datetime,
    text: str = "",
    content: Content | None = None,
    lead: Lead | None = None,
    phone: str | None = None,
    device: Device | None = None,
) -> Message:
    """One message to one lead or phone number, ahead of bulk: a reply, or a test. Raises SendRefused, naming the field.

    ``text`` is a plain text; ``content`` anything else. A number that is not a lead yet becomes one. Without ``device``
    the lead's own is used, else any connected one. Whoever opted out is not written to, for a test neither.
    """
    if content is None:
        try:
            check_template(text)
        except TemplateProblem as problem:
            raise SendRefused("bad_text", str(problem), "text") from None
        content = Content(text=text)
    with transaction.atomic():
        lead = lead or _lead_for(owner, phone, now)
        if lead.review_at is not None:
            raise SendRefused(
                "in_review",
                "This lead wrote something that may be a refusal: decide about that first.",
                "lead" if phone is None else "phone",
            )
        if lead.opted_out_at is not None:
            raise SendRefused(
                "opted_out", "This lead opted out and must not be written to.", "lead" if phone is None else "phone"
            )
        device = device or _device_for(owner, lead)
        if device.state != DeviceState.ACTIVE:
            raise SendRefused(
                "device_not_connected", f"{device.name} is not connected ({device.get_state_display()}).", "device"
            )
        for found in check_content(content, owner_id=owner.pk, gateways=[device.gateway], bulk=False):
            raise SendRefused(found.code, found.text, f"content.{found.field}")
        batch = open_batch(
            owner=owner,
            name=f"To {lead}"[:200],
            content=content.to_json(),
            now=now,
            priority=Priority.INTERACTIVE,
        )
        return _only_message(batch, device=device, lead=lead, now=now)


def confirm_opt_out(*, heard: Heard, device: Device, now: datetime) -> Message | None:
    """Answer an opt-out with the installation's words, once, through ``device``, which heard it.

    Nothing is made, and None returned, where there is nothing to say or it was said. It is the only message that is
    claimed for a lead who opted out; it carries no template, so nothing else can hide in it.
    """
    if not heard.reply or heard.event_id is None or heard.lead_id is None:
        return None
    with transaction.atomic():
        lead = Lead.objects.get(pk=heard.lead_id)
        origin = f"opt-out-{heard.event_id}"
        if lead.opted_out_at is None:
            return None
        batch = open_batch(
            owner=device.owner,
            name=f"To {lead}"[:200],
            content={"type": "text", "text": "{% raw %}" + heard.reply + "{% endraw %}"},
            now=now,
            origin=origin,
            priority=Priority.INTERACTIVE,
            expires_after=timedelta(hours=1),
        )
        if batch.streams.exists():  # another call was first
            return None
        Batch.objects.filter(pk=batch.pk).update(confirms_opt_out=True)
        return _only_message(batch, device=device, lead=lead, now=now)


def _only_message(batch: Batch, *, device: Device, lead: Lead, now: datetime) -> Message:
    """Fill the batch with one message and wake its device."""
    Batch.objects.filter(pk=batch.pk).update(filled_at=now)
    stream = Stream.objects.create(
        batch=batch, device=device, priority=batch.priority, is_open=True, total=1, waiting=1
    )
    message = Message.objects.create(batch=batch, stream=stream, device=device, lead=lead, phone=lead.phone, due_at=now)
    wake([device.pk])
    return message


def pause_batch(*, batch_id: int, reason: str = "") -> bool:
    """No claim succeeds any more; what is at a gateway right now ends as it ends. Whether anything changed."""
    running = Batch.objects.filter(pk=batch_id, state=BatchState.RUNNING)
    return bool(running.update(state=BatchState.PAUSED, reason=reason[:300]))


def resume_batch(*, batch_id: int) -> bool:
    """Go on with exactly what is left. Whether anything changed."""
    with transaction.atomic():
        if not Batch.objects.filter(pk=batch_id, state=BatchState.PAUSED).update(state=BatchState.RUNNING, reason=""):
            return False
        wake(Stream.objects.filter(batch_id=batch_id, is_open=True).values_list("device_id", flat=True))
        return True


def end_batch(*, batch_id: int, state: BatchState, now: datetime, reason: str = "") -> bool:
    """End a batch early (cancelled or failed): every unsent message ends with it. Whether anything changed.

    From then on no claim succeeds. Of a very large batch the tick ends what is left (:mod:`messaging.ending`).
    """
    changed = Batch.objects.filter(pk=batch_id, state__in=[BatchState.RUNNING, BatchState.PAUSED]).update(
        state=state, reason=reason, finished_at=now, filled_at=now
    )
    if changed:
        ends_as, code = ENDS[state]
        end_unsent(batch_id=batch_id, state=ends_as, code=code, text=reason)
    return bool(changed)


def wrap_up(*, now: datetime) -> tuple[int, int]:
    """Expire what ran out of time and finish what has nothing left; returns (messages expired, batches finished).

    A batch is finished when nothing of it waits and every unknown outcome is settled or presumed.
    """
    expired = 0
    # An expired batch may stay for its unknown outcomes: once its waiting messages are ended there is nothing to do.
    open_streams = Stream.objects.filter(batch=OuterRef("pk"), is_open=True)
    late = Batch.objects.filter(state__in=["running", "paused"], expires_at__lte=now).filter(
        Q(state="paused") | Q(filled_at__isnull=True) | Exists(open_streams)
    )
    for batch_id in late.values_list("pk", flat=True)[:100]:
        # Claims look at expires_at, so a paused batch can run to its end here without sending anything.
        Batch.objects.filter(pk=batch_id).update(filled_at=Coalesce("filled_at", now), state=BatchState.RUNNING)
        expired += end_unsent(
            batch_id=batch_id, state=State.EXPIRED, code="expired", text="It was not sent before its batch expired."
        )
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE messaging_batch b SET state = 'finished', finished_at = %(now)s
               WHERE b.id IN (SELECT id FROM messaging_batch WHERE state = 'running' AND filled_at IS NOT NULL
                              ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED)
                 AND b.state = 'running'
                 AND NOT EXISTS (SELECT FROM messaging_stream s WHERE s.batch_id = b.id AND s.is_open)
                 AND NOT EXISTS (SELECT FROM messaging_stream s WHERE s.batch_id = b.id AND s.unknown > s.presumed)""",
            {"now": now},
        )
        finished = cursor.rowcount
    return expired, finished


def counts_of(batch_ids: Iterable[int]) -> dict[int, Counts]:
    """Counts per batch, two queries whatever their number: counters of streams, and what is in flight."""
    ids = list(batch_ids)
    sums = (
        Stream.objects.filter(batch_id__in=ids)
        .values_list("batch_id")
        .annotate(*[Sum(name) for name in ("total", *Stream.COUNTERS)])
    )
    # Index message_one_in_flight: at most one row per lane of the fleet.
    flying = dict(
        Message.objects.filter(state__in=sorted(IN_FLIGHT), batch_id__in=ids)
        .order_by()
        .values_list("batch_id")
        .annotate(Count("id"))
    )
    found: dict[int, Counts] = {}
    for batch_id, total, waiting, *settled in sums:
        queued = flying.get(batch_id, 0)
        found[batch_id] = Counts(total, max(waiting - queued, 0), queued, *settled)
    return {batch_id: found.get(batch_id, Counts()) for batch_id in ids}


def _lead_for(owner: User, phone: str | None, now: datetime) -> Lead:
    if not phone:
        raise SendRefused("no_recipient", "Name a lead or a phone number.", "phone")
    try:
        number = parse_phone(phone, region=settings.FLOTILLA_DEFAULT_REGION)
    except PhoneProblem as problem:
        raise SendRefused(problem.code, problem.text, "phone") from None
    found = Lead.objects.filter(owner=owner, phone=number)
    lead = found.first()
    if lead is None:
        with suppression.admitting(owner_id=owner.pk, phones=[number], now=now):
            Lead.objects.get_or_create(owner=owner, phone=number)
        lead = found.get()
    return lead


def _device_for(owner: User, lead: Lead) -> Device:
    if lead.device is not None:
        return lead.device
    device = Device.objects.filter(owner=owner).able().order_by("next_send_at", "id").first()
    if device is None:
        raise SendRefused("no_device", "No device is connected: add one, or resume one that is paused.", "device")
    return device
