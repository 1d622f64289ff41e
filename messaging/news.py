"""The one path for what gateways tell, by webhook or through an open session: receipts, replies, news of devices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from devices.gateways.news import DeviceEvent, News, Receipt, Reply
from messaging.device_news import apply_device_events
from messaging.dispatch.pool import Pool
from messaging.inbound import store_replies
from messaging.receipts import apply_receipts


@dataclass(frozen=True, slots=True)
class Taken:
    """What it came to: messages moved, news that waits for its message, new replies."""

    moved: int
    waiting: int
    replies: int


def take_in(*, gateway: str, news: Iterable[News], now: datetime, pool: Pool | None = None) -> Taken:
    """Write down what a gateway of this kind told. Doing it again changes nothing.

    Raises Django's or psycopg2's OperationalError or InterfaceError while the database is away.
    """
    told = list(news)
    applied = apply_receipts(gateway=gateway, receipts=[each for each in told if isinstance(each, Receipt)], pool=pool)
    heard = store_replies(gateway=gateway, replies=[each for each in told if isinstance(each, Reply)], now=now)
    events = [each for each in told if isinstance(each, DeviceEvent)]
    apply_device_events(events, gateway=gateway, now=now, pool=pool)
    return Taken(applied.moved, applied.waiting, len(heard))
