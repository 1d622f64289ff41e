"""“Why has this message not been sent yet?”, answered from the rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from devices.gateways import registry
from devices.models import BANNED, Device, DeviceState, GatewayRest
from devices.session_models import SessionHost
from messaging import halting
from messaging.dispatch import courtesy
from messaging.doubt import Policy, policy_for
from messaging.models import BatchState, InboundMessage, Message, Priority
from messaging.states import State


@dataclass(frozen=True, slots=True)
class Why:
    """A stable code, a sentence for a person, and the moment at which it changes by itself (None: not by itself)."""

    code: str
    text: str
    until: datetime | None = None


def why_not_sent(message: Message, *, now: datetime) -> Why | None:
    """The first thing in this message's way; None once it was sent. Reads the message's batch, device and lead."""
    match State(message.state):
        case State.SENT | State.DELIVERED | State.READ:
            return None
        case State.PENDING:
            return _pending(message, now)
        case State.QUEUED:
            words = f"It is in the queue of {message.device}, next to be taken by a worker."
            return _no_session_host(message, now) or Why("queued", words)
        case State.SENDING:
            return Why("sending", f"A worker is sending it through {message.device} right now.", message.lease_until)
        case State.UNKNOWN:
            return _unknown(message)
        case State.FAILED:
            archived = " It is in the archive." if message.archived_at is not None else ""
            return Why("failed", f"It failed.{_because(message)}{archived}")
        case State.CANCELLED:
            return Why("cancelled", f"It was cancelled.{_because(message)}")
        case State.EXPIRED:
            return Why("expired", "It was not sent before its batch expired.")


def _pending(message: Message, now: datetime) -> Why:
    return (
        _stopped(message, now)
        or _device_cannot(message, now)
        or _not_now_to_this_lead(message, now)
        or _not_to_strangers(message, now)
        or (
            Why("retry", f"The next attempt is planned.{_because(message)}", message.due_at)
            if message.due_at > now and message.attempts
            else None
        )
        or (Why("not_due", "It is planned for later.", message.due_at) if message.due_at > now else None)
        or _no_session_host(message, now)
        or _its_turn(message, now)
    )


def _unknown(message: Message) -> Why:
    """Nobody knows: what the gateway's policy makes of that, and when."""
    text = f"It may have been sent: the gateway was called and gave no certain answer.{_because(message)}"
    if message.presumed_at is not None:
        return Why("presumed_sent", f"{text} It has counted as sent since nobody knew better; you may still settle it.")
    driver = registry.driver_for(message.device.gateway)
    last = message.attempt_set.order_by("-release_no").first()
    since = (last.finished_at or last.started_at) if last else message.created_at
    closes_at = since + timedelta(hours=settings.FLOTILLA_UNKNOWN_CLOSE_HOURS)
    if driver.id_semantics == "searchable":
        return Why("unknown", f"{text} {driver.label} is being asked whether it has it.", closes_at)
    policy = policy_for(message.device.gateway, policies=settings.FLOTILLA_UNKNOWN_POLICY)
    if driver.id_semantics != "dedups" and policy is Policy.FAIL:
        return Why("unknown", f"{text} By policy it counts as failed in a moment.", message.due_at)
    wait = f"A receipt or a person settles it; else it counts as sent {_within(closes_at)}."
    return Why("unknown", f"{text} It is not sent again by itself. {wait}", closes_at)


def _within(moment: datetime) -> str:
    return f"from {timezone.localtime(moment):%Y-%m-%d %H:%M %Z} on"


def _stopped(message: Message, now: datetime) -> Why | None:
    batch, lead = message.batch, message.lead
    halt = halting.current()
    if halt is not None:
        return Why("halted", f"Everything is halted{f': {halt.reason}' if halt.reason else ''}.")
    if batch.state == BatchState.PAUSED:
        return Why("batch_paused", f"“{batch}” is paused. {batch.reason}".strip())
    if batch.expires_at <= now:
        return Why("expiring", f"“{batch}” has expired.")
    if lead is None:
        return Why("lead_deleted", "Its lead was deleted.")
    if lead.review_at is not None:
        return Why("in_review", f"{lead} wrote something that may be a refusal: somebody has to decide.")
    if lead.opted_out_at is not None and not batch.confirms_opt_out:
        return Why("opted_out", f"{lead} opted out.")
    return None


def _device_cannot(message: Message, now: datetime) -> Why | None:
    device = message.device
    reason = f": {device.state_reason}" if device.state_reason else "."
    if device.state == DeviceState.PAUSED:
        return Why("device_paused", f"{device} is paused{reason}")
    if device.state != DeviceState.ACTIVE:
        return Why("device_not_connected", f"{device} is not connected{reason}{_elsewhere(message, now)}")
    if device.held_until is not None and device.held_until > now:
        rests = f"{device} rests. {device.hold_reason}".strip()
        if device.held_until > now + timedelta(seconds=settings.FLOTILLA_FAILOVER_AFTER_SECONDS):
            rests += _elsewhere(message, now)
        return Why("device_rests", rests, device.held_until)
    rest = GatewayRest.objects.filter(gateway=device.gateway, base_url=device.base_url, until__gt=now).first()
    if rest is not None:
        return Why("gateway_rests", f"Nobody answers at the gateway of {device}. {rest.reason}".strip(), rest.until)
    return None


def _not_to_strangers(message: Message, now: datetime) -> Why | None:
    """The gateway has asked the device to write to nobody new for a while."""
    held_until = message.device.new_contacts_held_until
    if held_until is None or held_until <= now or message.lead_id is None:
        return None
    known = Message.objects.filter(
        lead_id=message.lead_id, device_id=message.device_id, state__in=[State.SENT, State.DELIVERED, State.READ]
    )
    heard = InboundMessage.objects.filter(lead_id=message.lead_id, device_id=message.device_id)
    if known.exists() or heard.exists():
        return None
    text = f"{message.device} may not write to people for the first time now: its gateway asked for a rest."
    return Why("new_contacts_rest", text, held_until)


def _no_session_host(message: Message, now: datetime) -> Why | None:
    """Nobody houses the sessions."""
    if message.device.gateway not in registry.session_kinds():
        return None
    if SessionHost.objects.filter(lease_until__gt=now).exists():
        return None
    return Why("no_session_host", f"No worker houses sessions now: start one for {message.device}.")


def _elsewhere(message: Message, now: datetime) -> str:
    """Whether another device takes it over, as a sentence; see messaging.dispatch.failover for the rules."""
    batch, device = message.batch, message.device
    if not batch.failover:
        return " It waits for this device: its batch moves nothing to another."
    if device.state == DeviceState.NEEDS_ATTENTION and device.attention_code == BANNED:
        return " It waits for this device: a ban moves nothing."
    if message.attempt_set.filter(round=message.round, outcome="unknown").exists():
        return " It stays with this device, because an earlier attempt may have arrived."
    able = Device.objects.able().filter(pool_id=device.pool_id, pool__isnull=False)
    if not able.filter(Q(held_until__isnull=True) | Q(held_until__lte=now)).exists():
        return " No other device of its pool can send now; the first that can takes it over."
    return " Another device of its pool takes it over within seconds."


def _not_now_to_this_lead(message: Message, now: datetime) -> Why | None:
    lead = message.lead
    if lead is None:
        return None
    asked = courtesy.Addressee(
        phone=lead.phone, zone=lead.time_zone, bulk=message.batch.priority > Priority.INTERACTIVE
    )
    window = courtesy.window_of(asked)
    closed_seconds = window.opens_in_seconds(now) if window else 0.0
    if window and closed_seconds:
        until = now + timedelta(seconds=closed_seconds)
        here = now.astimezone(window.zone)
        return Why(
            "quiet_hours",
            f"It is {here:%H:%M} for {lead} ({window.zone.key}): quiet hours until {window.start:%H:%M}.",
            until,
        )
    enough = courtesy.had_enough_now(message_id=message.pk) if courtesy.capped(asked) else None
    if enough is None:
        return None
    until = now + timedelta(seconds=enough.for_seconds)
    had = f"{enough.number} message{'' if enough.number == 1 else 's'} in the last {enough.cap.per}"
    return Why("lead_capped", f"{lead} had {had}, of {enough.cap.number} allowed.", until)


def _its_turn(message: Message, now: datetime) -> Why:
    ahead = Message.objects.filter(
        stream_id=message.stream_id, state=State.PENDING, due_at__lte=message.due_at, pk__lt=message.pk
    )[:1000].count()
    number = f"{ahead:,}" if ahead < 1000 else "1,000 or more"
    device = message.device
    pace = device.next_send_at if device.next_send_at is not None and device.next_send_at > now else None
    return Why("waiting_its_turn", f"{number} of the same batch go before it through {device}.", pace)


def _because(message: Message) -> str:
    return f" {message.error_text}" if message.error_text else ""
