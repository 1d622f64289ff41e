"""Which messages are out, and how they are acknowledged or come back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from kombu.log import get_logger
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from messaging.transport import scripts
from messaging.transport.names import BELL_HEADER, TAKEN_HEADER, UNREADABLE_KEY, WHERE_KEY

logger = get_logger(__name__)

#: Acknowledgements sent together at most; more than this does not get cheaper.
ACKS_AT_ONCE: Final = 64
#: Overdue messages read per call of the sweep.
OVERDUE_AT_ONCE: Final = 200


class QoS(kombu_redis.QoS):
    """kombu's acknowledgement emulation, where device messages arrive already registered and go home to their place.

    Differences that a user can notice: scores of the unacked index are the server's time, not the client's, so
    consumers with wrong clocks neither hasten nor delay a redelivery; and inside an event loop acknowledgements are
    sent together at the loop's next turn.
    """

    #: A worker's own count of messages it can start now. ``None``: unknown, so take one at a time.
    free_slots_hook: Callable[[], int] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken: set[str] = set()
        self._acked: list[str] = []

    # -- taking

    def free_slots(self) -> int:
        """How many messages the consumer can take now."""
        if self.free_slots_hook is None:
            return 1
        prefetch: int | None = self.can_consume_max_estimate()
        free = self.free_slots_hook()
        return free if prefetch is None else min(free, prefetch)

    def note_taken(self, delivery_tag: str) -> None:
        """The next :meth:`append` of this tag finds it registered: the script that took the message did it."""
        self._taken.add(delivery_tag)

    def was_not_kept(self, delivery_tag: str) -> bool:
        """Whether a noted tag was never appended, which is how a consumer without acknowledgements looks from here."""
        if delivery_tag in self._taken:
            self._taken.discard(delivery_tag)
            return True
        return False

    def append(self, message: Any, delivery_tag: str) -> None:
        if delivery_tag in self._taken:
            self._taken.discard(delivery_tag)
        else:
            delivery = message.delivery_info
            entry = dumps([message._raw, delivery["exchange"], delivery["routing_key"]])  # noqa: SLF001 - kombu's own way
            with self.channel.conn_or_acquire() as client:
                scripts.REGISTER.run(client, keys=self._ledger, args=[delivery_tag, entry])
        virtual.QoS.append(self, message, delivery_tag)

    # -- acknowledging

    def ack(self, delivery_tag: str) -> None:
        self._settle(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue:
            self.restore_by_tag(delivery_tag, leftmost=True)
            virtual.QoS.ack(self, delivery_tag)
        else:
            self._settle(delivery_tag)

    def _settle(self, delivery_tag: str) -> None:
        # Only the loop's own thread may wait for the loop's next turn: from any other the turn could be a second away.
        if self.channel.ticking_in == threading.get_ident():
            self._acked.append(delivery_tag)
            if len(self._acked) >= ACKS_AT_ONCE:
                self.flush_acks()
        else:
            self._forget([delivery_tag])
        virtual.QoS.ack(self, delivery_tag)

    def flush_acks(self) -> None:
        """Send the acknowledgements of this turn. Those that fail are lost, and their messages come again later."""
        if self._acked:
            tags, self._acked = self._acked, []
            self._forget(tags)

    def _forget(self, tags: list[str]) -> None:
        with self.channel.conn_or_acquire() as client:
            scripts.FORGET.run(client, keys=self._ledger, args=tags)

    # -- coming back

    def restore_unacked(self, client: Any = None) -> None:
        self.flush_acks()
        self._flush()
        with self.channel.conn_or_acquire(client) as connected:
            # Newest first, so that the oldest of an ordinary queue ends up in front.
            for tag in list(reversed(self._delivered)):
                self.restore_by_tag(tag, client=connected)
        self._delivered.clear()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        try:
            self.flush_acks()
        except self.channel.connection_errors:
            logger.warning("Acknowledgements could not be sent; their messages will be delivered again")
        super().restore_unacked_once(stderr)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        with self.channel.conn_or_acquire(client) as connected:
            with connected.pipeline(transaction=False) as pipe:
                entry, score = pipe.hget(self.unacked_key, tag).zscore(self.unacked_index_key, tag).execute()
            self._restore(connected, tag=bytes_to_str(tag), entry=entry, score=score or 0.0, leftmost=leftmost)

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int = 10) -> None:  # noqa: ARG002
        """Bring back what was delivered longer ago than the visibility timeout; then a bounded piece of repair.

        No mutex, unlike stock: each message is checked and moved by one script, so sweeps may overlap, and a worker
        that is killed in the middle of one delays nobody.
        """
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        left = num
        with self.channel.conn_or_acquire() as client:
            while left is None or left > 0:
                page = OVERDUE_AT_ONCE if left is None else min(left, OVERDUE_AT_ONCE)
                found = self._restore_page(client, page)
                if found < page:
                    break
                left = None if left is None else left - found
        self.channel.repair_some()

    def _restore_page(self, client: Any, page: int) -> int:
        ceiling, *rows = scripts.OVERDUE.run(client, keys=self._ledger, args=[self.visibility_timeout, page])
        for tag, score, entry in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
            self._restore(
                client, tag=bytes_to_str(tag), entry=entry, score=float(score), not_after=bytes_to_str(ceiling)
            )
        return len(rows) // 3

    def _restore(
        self,
        client: Any,
        *,
        tag: str,
        entry: bytes | None,
        score: float,
        not_after: str = "",
        leftmost: bool = False,
    ) -> None:
        try:
            message, exchange, routing_key = loads(bytes_to_str(entry)) if entry else ({}, "", "")
            headers = message.get("headers") or {}
            bell = headers.get(BELL_HEADER)
        except (ValueError, TypeError, AttributeError):
            logger.critical("Message %s cannot be read any more and is set aside in %s", tag, UNREADABLE_KEY)
            scripts.SET_ASIDE.run(client, keys=[*self._ledger, UNREADABLE_KEY], args=[tag, entry])
            return
        if not isinstance(bell, str):
            super().restore_by_tag(tag, client, leftmost)
            return
        headers["redelivered"] = True
        taken = headers.setdefault(TAKEN_HEADER, score)
        message.get("properties", {}).get("delivery_info", {})["redelivered"] = True
        queue = self.channel.home_of(exchange, routing_key)
        scripts.GIVE_BACK.run(
            client,
            keys=[self.unacked_key, self.unacked_index_key, queue, WHERE_KEY],
            args=[tag, entry, dumps(message), bell, repr(taken), not_after],
        )

    @property
    def _ledger(self) -> list[str]:
        return [self.unacked_key, self.unacked_index_key]
