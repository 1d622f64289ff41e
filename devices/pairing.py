"""Linking devices to phones, and taking the link away again.

A platform's device is paired by its gateway, which is asked each time somebody looks. A session of our own is paired by
a child process that :mod:`devices.pairing_run` supervises; the page and the API only read what it writes down.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import structlog
from celery import current_app
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Least, Now
from kombu.exceptions import OperationalError

from devices import session_store
from devices.clients import connect
from devices.gateways import registry
from devices.gateways.base import Accepted, Pairing, SessionLost
from devices.models import Device, DeviceState, PairingAttempt, PairingState
from devices.refreshing import RefreshFailed
from devices.secrets import Secrets
from devices.sessions import store_url

log = structlog.get_logger(__name__)

QUEUE = "pairing"
PAIR_TASK, LOG_OUT_TASK = "devices.pair", "devices.log_out"
JID = "jid"
"""Where a session of our own is named among its device's credentials."""

ASK_AGAIN_SECONDS = 1.5
GATEWAY_SECONDS = 300
SILENT_SECONDS = 45
_PHONE = re.compile(r"\+?[0-9]{8,15}")

NOT_PAIRED = "It is not linked to a phone: pair it."
LINKED_ELSEWHERE = (
    "This number is linked to another device of this installation. Remove “Flotilla” on the phone under Linked devices"
    " and pair another number."
)


class CannotPair(Exception):  # noqa: N818 - reads as a fact
    """It cannot be begun, or ended, as things stand; ``text`` is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


# -- Beginning and following -------------------------------------------------------------------------------------------


def start(*, device: Device, now: datetime, phone: str = "") -> PairingAttempt:
    """Begin to link ``device``: by a code typed on ``phone``, else by a picture. One that is under way is stopped.

    Raises CannotPair.
    """
    driver = registry.driver_for(device.gateway)
    phone = re.sub(r"[\s().-]", "", phone)
    if not driver.pairing:
        raise CannotPair("not_pairable", f"Devices of {driver.label} are not linked to a phone here.")
    if phone and "code" not in driver.pairing:
        raise CannotPair("no_phone_code", f"{driver.label} links by QR code only: leave the phone number out.")
    if not phone and "qr" not in driver.pairing:
        raise CannotPair("no_qr", f"{driver.label} links by a code typed on the phone: give its number.")
    if phone and not _PHONE.fullmatch(phone):
        raise CannotPair("bad_phone", "Give the phone's number with its country code, as +628110000001.")
    if device.state == DeviceState.ACTIVE and _session_of(device):
        raise CannotPair("already_linked", "This device is linked to a phone: log it out first.")
    with transaction.atomic():
        Device.objects.select_for_update(no_key=True).get(pk=device.pk)
        _end(PairingAttempt.objects.filter(device=device), PairingState.STOPPED, now=now)
        attempt = PairingAttempt.objects.create(device=device, phone=phone, started_at=now)
    log.info("pairing.started", device_id=device.pk, attempt_id=attempt.pk, gateway=device.gateway)
    if driver.transport == "session":
        _publish(PAIR_TASK, attempt_id=attempt.pk)
        return attempt
    return follow(attempt=attempt, now=now)


def latest(*, device: Device) -> PairingAttempt | None:
    """The device's last attempt, open or not."""
    return PairingAttempt.objects.filter(device=device).order_by("-id").first()


def follow(*, attempt: PairingAttempt, now: datetime) -> PairingAttempt:
    """How far it is by now. Asks a platform's gateway, at most every other second however many look."""
    if attempt.ended_at is None:
        if registry.driver_for(attempt.device.gateway).transport == "session":
            _notice_silence(attempt, now=now)
        elif _takes_turn(attempt, now=now):
            _ask_gateway(attempt, now=now)
        attempt.refresh_from_db()
    return attempt


def stop(*, device: Device, now: datetime) -> bool:
    """End the attempt that is under way; whether there was one."""
    return bool(_end(PairingAttempt.objects.filter(device=device), PairingState.STOPPED, now=now))


# -- What whoever runs an attempt writes -------------------------------------------------------------------------------


def alive(*, attempt_id: int, now: datetime) -> bool:
    """A sign of life; False if somebody has ended the attempt, so that its runner ends too."""
    return bool(PairingAttempt.objects.filter(pk=attempt_id, ended_at=None).update(seen_at=now))


def show(*, attempt_id: int, pairing: Pairing, now: datetime) -> bool:
    """Write down how far it is, unless that has ended; False then. ``connected`` goes through :func:`connected`."""
    open_ones = PairingAttempt.objects.filter(pk=attempt_id, ended_at=None)
    if pairing.status in {"expired", "failed"}:
        return bool(_end(open_ones, PairingState(pairing.status), now=now, text=pairing.text, problem=pairing.status))
    expires_at, shown = pairing.expires_at, open_ones.first()
    if shown is not None and (shown.qr, shown.code, bytes(shown.qr_png)) == (pairing.qr, pairing.code, pairing.qr_png):
        # Some gateways say "for another minute" each time; the page would count down from there for ever.
        expires_at = shown.expires_at or expires_at
    return bool(
        open_ones.update(
            state=PairingState(pairing.status),
            qr=pairing.qr,
            qr_png=pairing.qr_png,
            code=pairing.code,
            expires_at=expires_at,
            text=pairing.text[:300],
            seen_at=now,
        )
    )


def connected(*, attempt_id: int, now: datetime, phone: str = "", jid: str = "") -> bool:
    """The phone is linked: the device can send from now on. With ``jid``, the session that is stored for it.

    False if the attempt had ended, or if the number belongs to another device; the session is then forgotten.
    """
    try:
        with transaction.atomic():
            linked, old = _link(attempt_id, phone=phone, jid=jid, now=now)
    except IntegrityError:  # device_session_phone
        linked, old = False, ""
        _end(PairingAttempt.objects.filter(pk=attempt_id), PairingState.FAILED, now=now, text=LINKED_ELSEWHERE)
    unwanted = old if linked else jid
    if unwanted and unwanted != (jid if linked else ""):
        _forget(unwanted)
    return linked


def _link(attempt_id: int, *, phone: str, jid: str, now: datetime) -> tuple[bool, str]:
    """Whether it is linked, and the session that this one takes the place of."""
    attempt = PairingAttempt.objects.filter(pk=attempt_id).first()
    if attempt is None:
        return False, ""
    device = Device.objects.select_for_update(no_key=True).get(pk=attempt.device_id)
    if not _end(PairingAttempt.objects.filter(pk=attempt_id), PairingState.CONNECTED, now=now):
        return False, ""
    columns: dict[str, Any] = {}
    old = _session_of(device)
    if jid:
        device.credentials = Secrets({**device.credentials, JID: jid})
        device.session_phone = phone
        columns |= {"credentials": None, "session_phone": None}
    if phone:
        device.phone = phone
        columns["phone"] = None
    if columns:
        device.save(update_fields=list(columns))
    # A pause is a person's wish and stays; whatever else stood in the way is mended.
    Device.objects.filter(pk=device.pk).exclude(state=DeviceState.PAUSED).update(
        state=DeviceState.ACTIVE,
        state_reason="",
        attention_code="",
        reconnect_failures=0,
        wake_at=Least("wake_at", Now()),
    )
    log.info("pairing.connected", device_id=device.pk, attempt_id=attempt_id)
    return True, old


def _end(attempts: Any, state: PairingState, *, now: datetime, text: str = "", problem: str = "") -> int:
    """End those of ``attempts`` that are open; what could be scanned or typed is gone."""
    ended: int = attempts.filter(ended_at=None).update(
        state=state, ended_at=now, text=text[:300], problem=problem, qr="", qr_png=b"", code="", expires_at=None
    )
    return ended


# -- Taking the link away ----------------------------------------------------------------------------------------------


def log_out(*, device: Device, now: datetime) -> None:
    """Unlink the device from its phone. It sends nothing from now on; what waits for it waits. Raises CannotPair.

    A session is logged out by a process of its own, some seconds later; the device's row says what came of it.
    """
    driver = registry.driver_for(device.gateway)
    if not driver.pairing:
        raise CannotPair("not_pairable", f"Devices of {driver.label} are not linked to a phone here.")
    stop(device=device, now=now)
    if driver.transport == "session":
        if not _session_of(device):
            raise CannotPair("not_linked", "This device is not linked to a phone.")
        unpair(device_id=device.pk, reason="It is being unlinked from its phone.")
        _publish(LOG_OUT_TASK, device_id=device.pk)
        return
    try:
        client: Any = connect(device_id=device.pk)[0]
    except RefreshFailed as failed:
        raise CannotPair(failed.code, failed.text) from None
    try:
        answer = client.log_out()
    finally:
        client.close()
    if isinstance(answer, Accepted):
        unpair(device_id=device.pk, reason=NOT_PAIRED)
    elif isinstance(answer, SessionLost):
        unpair(device_id=device.pk, reason=answer.text)
    else:
        raise CannotPair(answer.code, answer.text)


def clear_session(*, device: Device, now: datetime) -> None:
    """Forget the stored session without asking the phone, which keeps a dead entry in its list. Raises CannotPair."""
    if registry.driver_for(device.gateway).transport != "session":
        raise CannotPair("no_session", "This gateway keeps its sessions itself: log the device out instead.")
    stop(device=device, now=now)
    with transaction.atomic():
        locked = Device.objects.select_for_update(no_key=True).get(pk=device.pk)
        jid = _session_of(locked)
        locked.credentials = Secrets({name: value for name, value in locked.credentials.items() if name != JID})
        locked.session_phone = ""
        locked.save(update_fields=["credentials", "session_phone"])
        unpair(device_id=device.pk, reason=NOT_PAIRED)
    if jid:
        _forget(jid)
    log.info("pairing.session_cleared", device_id=device.pk)


def reset(*, device: Device, now: datetime, phone: str = "") -> PairingAttempt:
    """Begin from scratch: whatever link there is goes, and a new one is begun. Raises CannotPair."""
    if registry.driver_for(device.gateway).transport == "session":
        clear_session(device=device, now=now)
    else:
        log_out(device=device, now=now)
    device.refresh_from_db()
    return start(device=device, phone=phone, now=now)


def unpair(*, device_id: int, reason: str) -> None:
    """The device is linked to no phone: nothing is released to it until it is paired."""
    Device.objects.filter(pk=device_id).update(
        state=DeviceState.UNPAIRED, state_reason=reason[:300], attention_code="", refresh_asked_at=None
    )


def _session_of(device: Device) -> str:
    return device.credentials.get(JID, "")


def _forget(jid: str) -> None:
    try:
        session_store.forget(store_url(), jid=jid)
    except session_store.StoreAway as away:
        log.warning("pairing.session_left_behind", reason=str(away))


# -- Asking ------------------------------------------------------------------------------------------------------------


def _notice_silence(attempt: PairingAttempt, *, now: datetime) -> None:
    """Give up on an attempt that nobody runs: the worker died, or there is none."""
    since = now - timedelta(seconds=SILENT_SECONDS)
    silent = PairingAttempt.objects.filter(Q(seen_at__lt=since) | Q(seen_at=None, started_at__lt=since), pk=attempt.pk)
    text = f"Nobody took this up: start a worker with -Q {QUEUE}." if attempt.seen_at is None else "Its process died."
    _end(silent, PairingState.FAILED, now=now, text=text, problem="no_worker")


def _takes_turn(attempt: PairingAttempt, *, now: datetime) -> bool:
    """Whether this caller is the one to ask the gateway: one UPDATE, so that of many pages one asks."""
    since = now - timedelta(seconds=ASK_AGAIN_SECONDS)
    free = PairingAttempt.objects.filter(Q(seen_at=None) | Q(seen_at__lt=since), pk=attempt.pk, ended_at=None)
    return bool(free.update(seen_at=now))


def _ask_gateway(attempt: PairingAttempt, *, now: datetime) -> None:
    if now - attempt.started_at > timedelta(seconds=GATEWAY_SECONDS):
        text = "Nobody scanned it in five minutes: start again."
        _end(PairingAttempt.objects.filter(pk=attempt.pk), PairingState.EXPIRED, now=now, text=text, problem="expired")
        return
    try:
        client: Any = connect(device_id=attempt.device_id)[0]
    except RefreshFailed as failed:
        show(attempt_id=attempt.pk, pairing=Pairing("failed", text=failed.text), now=now)
        return
    try:
        pairing: Pairing = client.pair(phone=attempt.phone or None)
    finally:
        client.close()
    if pairing.status == "connected":
        connected(attempt_id=attempt.pk, now=now, phone=pairing.phone)
    else:
        show(attempt_id=attempt.pk, pairing=pairing, now=now)


def _publish(task: str, **what: int) -> None:
    """After the commit, into the queue of the workers that pair."""

    def publish() -> None:
        try:
            current_app.send_task(task, kwargs=what, queue=QUEUE, ignore_result=True, retry=False)
        except (OperationalError, ConnectionError, TimeoutError) as problem:
            # The row says what happens next: an attempt that nobody takes up fails by itself.
            log.warning("pairing.not_published", task=task, error=type(problem).__name__, **what)

    transaction.on_commit(publish)
