"""The process that pairs: started for one attempt, listened to, and killed when its time is up.

The library's connect() never returns once its last QR code has passed, and some of its calls abort the process. So
pairing and logging out each have a child of their own, which can be killed whatever it is doing, and which shares
nothing with the workers but the session store.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import IO, Any

import structlog
from django.conf import settings
from django.utils import timezone

from devices import pairing
from devices.gateways.base import Pairing, PairingStatus
from devices.gateways.neonize import PROXY
from devices.gateways.neonize_events import phone_of_jid
from devices.models import Device, PairingAttempt
from devices.sessions import store_url

log = structlog.get_logger(__name__)

PAIR_SECONDS = 240.0
"""Six codes last 160 s; then the phone may still be busy linking."""
LOG_OUT_SECONDS = 75.0
LOOK_SECONDS = 2.0
CHILD = "devices.gateways.neonize_pairing"
_FROM_US = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""All that a child gets of our environment: it holds keys that it has no use for."""


def run(*, attempt_id: int) -> None:
    """Pair one device, from its first code to its end."""
    attempt = PairingAttempt.objects.select_related("device").filter(pk=attempt_id, ended_at=None).first()
    if attempt is None or not pairing.alive(attempt_id=attempt_id, now=timezone.now()):
        return  # stopped before it began, or a task that came late
    order = {"do": "pair", "phone": attempt.phone.lstrip("+"), "proxy": attempt.device.credentials.get(PROXY, "")}
    ends = time.monotonic() + PAIR_SECONDS
    with _child({**order, "name": f"pairing {attempt_id}", "store_url": store_url()}) as lines:
        for line in lines:
            now = timezone.now()
            if line is None:
                if not pairing.alive(attempt_id=attempt_id, now=now):
                    return
                if time.monotonic() > ends:
                    _give_up(attempt_id, "expired", "Nobody scanned it in time: start again.")
                    return
            elif line["status"] == "connected":
                jid = str(line["jid"])
                pairing.connected(attempt_id=attempt_id, now=now, phone=phone_of_jid(jid), jid=jid)
                return
            elif not pairing.show(attempt_id=attempt_id, pairing=_pairing(line), now=now):
                return
    _give_up(attempt_id, "failed", "The process that pairs ended unexpectedly: start again.")


def log_out(*, device_id: int) -> None:
    """Unlink one session from its phone, and write down what came of it."""
    device = Device.objects.filter(pk=device_id).first()
    jid = device.credentials.get(pairing.JID, "") if device else ""
    if device is None or not jid:
        return
    order = {"do": "log_out", "jid": jid, "proxy": device.credentials.get(PROXY, "")}
    ends = time.monotonic() + LOG_OUT_SECONDS
    text = "The process that logs out ended unexpectedly."
    with _child({**order, "name": f"log out {device_id}", "store_url": store_url()}) as lines:
        for line in lines:
            if line is not None and line["status"] == "done":
                pairing.clear_session(device=device, now=timezone.now())
                return
            if line is not None:
                text = str(line["text"])
                break
            if time.monotonic() > ends:
                text = "WhatsApp did not confirm it in time."
                break
    remedy = "Remove “Flotilla” on the phone under Linked devices, then clear the session here."
    pairing.unpair(device_id=device_id, reason=f"Not unlinked from its phone: {text} {remedy}")
    log.warning("pairing.log_out_failed", device_id=device_id)


def _give_up(attempt_id: int, status: PairingStatus, text: str) -> None:
    pairing.show(attempt_id=attempt_id, pairing=Pairing(status, text=text), now=timezone.now())


def _pairing(line: Mapping[str, Any]) -> Pairing:
    """What the child tells, as the seam has it. It counts seconds; the clock is ours."""
    seconds = line.get("seconds")
    return Pairing(
        status=line["status"],
        qr=str(line.get("qr", "")),
        code=str(line.get("code", "")),
        expires_at=timezone.now() + timedelta(seconds=float(seconds)) if seconds else None,
        text=str(line.get("text", "")),
    )


@contextmanager
def _child(order: Mapping[str, Any]) -> Iterator[Iterator[dict[str, Any] | None]]:
    """What a child tells, line by line, with None whenever it has been silent for a moment. It is killed on leaving.

    The order goes through a pipe, since it holds the store's password, and the answers through another: the library
    prints on standard output as it likes.
    """
    reading, writing = os.pipe()
    environment = {name: os.environ[name] for name in _FROM_US if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", CHILD, str(writing)],
        cwd=settings.BASE_DIR,
        env={**environment, "NEONIZE_BOT_TAG": "off"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[writing],
    )
    os.close(writing)
    try:
        with process.stdin as stdin:  # type: ignore[union-attr]  # it is a pipe: see above
            stdin.write(json.dumps(order).encode())
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            yield _lines(pipe)
    finally:
        process.kill()
        process.wait()


def _lines(pipe: IO[bytes]) -> Iterator[dict[str, Any] | None]:
    """JSON lines until the other side closes, None after each moment without one."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(LOOK_SECONDS):
                yield None
                continue
            chunk = pipe.read(65_536)
            if not chunk:
                return
            *whole, pending = (pending + chunk).split(b"\n")
            for line in whole:
                yield json.loads(line)
