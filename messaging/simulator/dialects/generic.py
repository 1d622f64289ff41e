"""A gateway that nobody wrote a driver for, under ``/generic``: to be described by a device's options.

It takes what :mod:`messaging.simulator.dialects.native` takes, drops no repeats, and tells its news in the plain format
that Flotilla understands of any gateway, without a signature.
"""

from __future__ import annotations

from typing import Any

from messaging.simulator.dialects.base import Delivery, Route
from messaging.simulator.dialects.native import Native


class Generic(Native):
    """The native requests at another address, with webhooks of another kind."""

    name = "generic"
    dedups = False

    def routes(self) -> tuple[Route, ...]:
        """One address to send to, one to ask for the device's status."""
        return (
            Route("POST", "/generic/v1/devices/{token}/messages", "send"),
            Route("GET", "/generic/v1/devices/{token}", "check"),
        )

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> dict[str, Any]:
        """A receipt in the plain format."""
        del event_id
        return {
            "event": "receipt", "message_id": delivery.external_id, "reference": delivery.reference, "status": status,
            "timestamp": at,
        }  # fmt: skip

    def inbound(self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float) -> dict[str, Any]:
        """A message in the plain format."""
        del device, sender
        return {"event": "message", "message_id": f"in-{event_id}", "from": phone, "text": text, "timestamp": at}

    def signature(self, *, secret: str, body: bytes) -> dict[str, str]:
        """None: who knows the address is believed."""
        del secret, body
        return {}
