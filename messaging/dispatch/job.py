"""What a send needs to know, from one row of the PEEK statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings

from messaging.content.prepare import variables_of
from messaging.dispatch import courtesy
from messaging.dispatch.breaker import Address
from messaging.dispatch.pool import Row
from messaging.dispatch.publish import Released
from messaging.models import Priority
from messaging.pacing import Rhythm, Window, warm_up_cap

GatewayState = Literal["rests", "probing", "deferred"]
"""A gateway address rests, has rested but nobody was met since, or had too many calls hanging: see ``breaker``."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a send needs to know of its message, batch, device and lead, as they are now."""

    message_id: int
    release_no: int
    device_id: int
    uid: UUID
    round: int
    phone: str
    content: Mapping[str, Any]
    batch_rhythm: Rhythm
    gateway: str
    base_url: str
    gateway_state: GatewayState | None
    config_version: int
    device_rhythm: Rhythm
    paced: bool
    capped_lanes: bool
    now: datetime
    warm_up_cap: int | None
    window: Window | None
    lead: courtesy.Addressee
    new_contact_seconds: float
    request_id: str
    variables: Mapping[str, Any]

    @property
    def has_gap(self) -> bool:
        """Whether the device has to rest after this send."""
        return self.device_rhythm.max_seconds > 0 or self.batch_rhythm.max_seconds > 0

    @property
    def reference(self) -> str:
        """Our id at the gateway: the same for every attempt of a round."""
        return f"{self.message_id}-{self.round}-{self.uid.hex[:12]}"

    @property
    def address(self) -> Address:
        """What this device shares with others of its gateway."""
        return self.gateway, self.base_url

    @property
    def released(self) -> Released:
        """What a task carries to go on with it."""
        return Released(
            message_id=self.message_id, device_id=self.device_id, release_no=self.release_no, gateway=self.gateway
        )

    @property
    def key(self) -> dict[str, Any]:
        """The fence every statement about this send carries."""
        return {"message": self.message_id, "release_no": self.release_no, "device": self.device_id}


class _Peeked(NamedTuple):
    """A row of the PEEK statement."""

    message_id: int
    release_no: int
    device_id: int
    uid: str
    round: int
    phone: str
    content: dict[str, Any]
    batch_min: float
    batch_max: float
    gateway: str
    base_url: str
    gateway_state: GatewayState | None
    config_version: int
    lanes: int
    device_min: float
    device_max: float
    capped: bool
    now: datetime
    warm_from: datetime | None
    window_start: time | None
    window_end: time | None
    zone: str
    name: str | None
    status: str | None
    niches: list[str] | None
    triggers: list[str] | None
    custom: dict[str, Any] | None
    lead_zone: str | None
    priority: int
    new_contact_seconds: float
    request_id: str


def job_of(found: Row) -> Job:
    """The job behind a row of PEEK."""
    row = _Peeked(*found)
    window = None
    if row.window_start is not None and row.window_end is not None:
        window = Window(row.window_start, row.window_end, ZoneInfo(row.zone or settings.TIME_ZONE))
    return Job(
        message_id=row.message_id,
        release_no=row.release_no,
        device_id=row.device_id,
        uid=UUID(row.uid),
        round=row.round,
        phone=row.phone,
        content=row.content,
        gateway=row.gateway,
        base_url=row.base_url,
        gateway_state=row.gateway_state,
        config_version=row.config_version,
        device_rhythm=Rhythm(row.device_min, row.device_max),
        batch_rhythm=Rhythm(row.batch_min, row.batch_max),
        paced=row.capped or row.device_max > 0 or row.batch_max > 0,
        capped_lanes=row.capped and row.lanes > 1,
        now=row.now,
        warm_up_cap=warm_up_cap(age=row.now - row.warm_from) if row.warm_from else None,
        window=window,
        lead=courtesy.Addressee(phone=row.phone, zone=row.lead_zone or "", bulk=row.priority > Priority.INTERACTIVE),
        new_contact_seconds=float(row.new_contact_seconds),
        request_id=row.request_id,
        variables=variables_of(
            name=row.name or "",
            phone=row.phone,
            status=row.status or "",
            niches=row.niches or [],
            triggers=row.triggers or [],
            custom=row.custom or {},
        ),
    )
