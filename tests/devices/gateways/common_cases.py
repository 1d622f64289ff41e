"""Messages and behaviours that the suites of several gateways share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from devices.gateways.base import (
    Accepted,
    ContentType,
    Media,
    MessageTemplate,
    Outgoing,
    Rejected,
    SessionLost,
    Temporary,
    Throttled,
    Unknown,
)
from tests.devices.gateways.conformance import HASTY, SHORT, Behaviour

TEXT = Outgoing(message_id=7, attempt=2, reference="7-1-abcdefabcdef", phone="+628110000001", text="Halo & ayo 👋")
LINK = "https://example.com/m/file?sig=1&x=2"
_MIME = {"image": "image/jpeg", "document": "application/pdf", "video": "video/mp4", "audio": "audio/ogg"}


def media(kind: ContentType, *, text: str = "a caption") -> Outgoing:
    """A message of this kind with an attachment."""
    attached = Media(mime_type=_MIME[kind], filename="a.bin", size_bytes=1, url=LINK, read=lambda: b"x")
    return Outgoing(8, 1, "8-1-abcdefabcdef", "+628110000002", text, type=kind, media=attached)


TEMPLATE = Outgoing(
    9, 1, "9-1-abcdefabcdef", "+628110000003", "", type="template",
    template=MessageTemplate(name="order_ready", language="en_US", parameters=("Ayu", "4711")),
)  # fmt: skip


def behaviours(
    *, throttled: Mapping[str, Any] | None = None, banned: bool, rejected: Mapping[str, Any]
) -> tuple[Behaviour, ...]:
    """What every gateway that the simulator speaks comes to; the details of three outcomes are its own."""
    waits = {"retry_after_seconds": 37.0, "scope": "device", **(throttled or {})}
    rest = ({"fault": "throttle", "retry_after_seconds": 37},)
    return (
        Behaviour("accepted", Accepted, reached=True),
        Behaviour("accepted, slowly", Accepted, reached=True, faults=({"fault": "latency", "seconds": 0.2},)),
        Behaviour("rejected", Rejected, reached=False, faults=({"fault": "reject"},), details=dict(rejected)),
        Behaviour("temporary", Temporary, reached=False, faults=({"fault": "error", "status": 503},)),
        Behaviour("throttled", Throttled, reached=False, faults=rest, details=waits),
        Behaviour("banned", SessionLost, reached=False, faults=({"fault": "ban"},), details={"banned": banned}),
        Behaviour("logged out", SessionLost, reached=False, faults=({"fault": "unlink"},), details={"banned": False}),
        Behaviour("reset before", Unknown, reached=False, faults=({"fault": "reset", "phase": "before"},)),
        Behaviour("reset after", Unknown, reached=True, faults=({"fault": "reset", "phase": "after"},)),
        Behaviour("500 before", Unknown, reached=False, faults=({"fault": "error", "status": 500},)),
        Behaviour("502 after", Unknown, reached=True, faults=({"fault": "error", "status": 502, "phase": "after"},)),
        Behaviour("broken json", Unknown, reached=True, faults=({"fault": "broken_json"},)),
        Behaviour("silence after", Unknown, reached=True, faults=({"fault": "hang"},), deadlines=HASTY),
        Behaviour("silence, total deadline", Unknown, reached=True, faults=({"fault": "hang"},), deadlines=SHORT),
    )


def unclear(status: int) -> Unknown:
    """What an undescribed status comes to."""
    return Unknown(f"http_{status}", f"The gateway answered HTTP {status}, which does not say whether it was sent.")


NONSENSE = Unknown("broken_answer", "The gateway answered HTTP 200 and a body that makes no sense.")
REFUSED = SessionLost("http_401", "The gateway refuses this device's credentials.")
NOWHERE = SessionLost("http_404", "Nothing lives at this address: check the gateway address of the device.")
