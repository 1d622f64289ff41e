"""A gateway like the simulator's own but for its memory: it never drops a repeat, so a phone gets what is sent twice.

``POST /forgetful/v1/devices/{token}/messages`` and ``GET /forgetful/v1/devices/{token}``; bodies, answers and webhooks
as in :mod:`messaging.simulator.dialects.native`. It is what most real gateways are, and so the one to judge by.
"""

from __future__ import annotations

from messaging.simulator.dialects.base import Route
from messaging.simulator.dialects.native import Native


class Forgetful(Native):
    """The native dialect at another address, delivering every repeat."""

    name = "forgetful"
    dedups = False

    def routes(self) -> tuple[Route, ...]:
        """One address to send to, one to ask for the device's status."""
        return (
            Route("POST", "/forgetful/v1/devices/{token}/messages", "send"),
            Route("GET", "/forgetful/v1/devices/{token}", "check"),
        )
