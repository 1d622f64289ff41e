"""The transport and its poller: where the event loop meets the channels."""

from __future__ import annotations

import threading
from typing import Any

from kombu.log import get_logger
from kombu.transport import redis as kombu_redis

from messaging.transport.channel import Channel

logger = get_logger(__name__)


class Poller(kombu_redis.MultiChannelPoller):
    """Stock's poller, which also sends the acknowledgements gathered since the loop's last turn."""

    #: Thread of the event loop while one turns this poller.
    ticking_in: int | None = None

    def on_poll_start(self) -> None:
        if self.ticking_in is not None:
            self.flush_acks()
        super().on_poll_start()

    def flush_acks(self) -> None:
        for channel in self._channels:
            flush = getattr(channel.qos, "flush_acks", None)
            if flush is not None:
                flush()


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with device queues. Configure Celery with ``broker_transport="<this class>"``."""

    Channel = Channel
    cycle: Poller  # type: ignore[assignment]  # kombu declares the poller of other transports

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)
        poller = self.cycle
        # Celery registers from the thread that then runs the loop.
        poller.ticking_in = threading.get_ident()

        def stop_gathering(hub: Any) -> None:
            # A closing hub runs its last callbacks, acknowledgements among them, and has no next turn.
            hub.on_close.discard(stop_gathering)
            poller.ticking_in = None
            try:
                poller.flush_acks()
            except self.connection_errors:
                logger.warning("Acknowledgements could not be sent; their messages will be delivered again")

        loop.on_close.add(stop_gathering)
