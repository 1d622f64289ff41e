"""What clients of hosted gateways share: forms, and pictures to scan that come as a PNG."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from devices.gateways import http
from devices.gateways.base import Pairing, SessionLost, Temporary
from devices.gateways.json_client import QR_SECONDS

_PNG = b"\x89PNG\r\n\x1a\n"


def form_of(fields: Mapping[str, str]) -> http.Content:
    """A form as a request's body."""
    return http.Content("application/x-www-form-urlencoded", (urlencode(fields).encode(),))


def picture(answer: http.Answer | Temporary | SessionLost, *, label: str) -> Pairing:
    """The picture in an answer, good for as long as WhatsApp takes one; waiting if there is none yet."""
    if not isinstance(answer, http.Answer):
        return Pairing("failed", text=answer.text)
    if not answer.body.startswith(_PNG):
        return Pairing("waiting", text=f"{label} gave no picture to scan: try again, or scan on its own page.")
    until = datetime.now(UTC) + timedelta(seconds=QR_SECONDS)
    return Pairing("qr", qr_png=answer.body, expires_at=until, text="Scan this picture with the phone.")
