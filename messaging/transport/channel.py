"""The channel: stock kombu for ordinary messages, one script each way for device messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from queue import Empty
from typing import Any

import redis
from kombu.exceptions import BatchPublishError
from kombu.log import get_logger
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from redis.exceptions import NoScriptError

from messaging.transport import scripts
from messaging.transport.names import BELL, BELL_HEADER, UNREADABLE_KEY, WHERE_KEY
from messaging.transport.qos import QoS
from messaging.transport.repair import Repaired, repair_steps

logger = get_logger(__name__)

#: Repair steps taken at the end of each sweep for overdue messages.
REPAIR_STEPS_PER_SWEEP = 10


class PublishBatch(kombu_redis.PublishBatch):
    """A publish batch whose pipeline may contain script calls."""

    _loaded = False

    def flush(self) -> None:
        """Send what is buffered; send again exactly the script calls the server refused as unknown.

        A refused call has not run, so this neither loses nor doubles. The source goes ahead of the first flush in the
        same write, so a refusal needs a SCRIPT FLUSH or a restart in the middle of it.

        Raises ``BatchPublishError`` as stock does; delivery is then uncertain.
        """
        self._check_usable()
        if not self._buffered:
            return
        commands = [args for args, _ in self.pipeline.command_stack]
        self.pipeline.reset()
        try:
            self._send_all(commands)
        except BaseException as exc:
            self._failed = exc
            self._buffered = 0
            self.pipeline.reset()
            if isinstance(exc, Exception):
                raise BatchPublishError("Redis publish batch failed; delivery is uncertain") from exc
            raise
        self._buffered = 0

    def _send_all(self, commands: list[tuple[Any, ...]]) -> None:
        load = not self._loaded and any(command[0] == "EVALSHA" for command in commands)
        for _ in range(3):
            if load:
                commands = [("SCRIPT LOAD", scripts.PUBLISH.source), *commands]
            commands = self._send(commands)
            if not commands:
                self._loaded = self._loaded or load
                return
            load = True
        raise NoScriptError("The server forgets scripts faster than they are sent")

    def _send(self, commands: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Run the commands in one round trip and return those that the server refused as unknown scripts."""
        for command in commands:
            self.pipeline.execute_command(*command)
        replies = self.pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, NoScriptError):
                raise reply
        return [command for command, reply in zip(commands, replies, strict=True) if isinstance(reply, NoScriptError)]


class Channel(kombu_redis.Channel):
    """A Redis channel on which any consumed queue name may also be a bell.

    Transport options beside stock's: ``fetch_limit`` (int), the most device messages taken by one script call; the
    worker's free slots are the other bound.
    """

    QoS = QoS

    fetch_limit = 16
    from_transport_options: tuple[str, ...] = (  # type: ignore[assignment]  # kombu declares the exact tuple
        *kombu_redis.Channel.from_transport_options,
        "fetch_limit",
    )

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        self._shared: redis.Redis | None = None
        self._repairing: Iterator[Repaired] | None = None
        if connection.client.transport_options.get("global_keyprefix"):
            raise ValueError("global_keyprefix cannot be used with this transport: its scripts name keys themselves")
        super().__init__(connection, *args, **kwargs)

    # -- connections

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Stock builds a client object for every command; one per channel does (its pool is thread-safe)."""
        if client is None:
            if self._shared is None or self._shared.connection_pool is not self.pool:
                self._shared = self._create_client()
            client = self._shared
        yield client

    @property
    def ticking_in(self) -> int | None:
        """Ident of the thread whose event loop turns this channel's poller, if there is one."""
        return self.connection.cycle.ticking_in if self.connection is not None and not self.closed else None

    # -- publishing

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        bell = (message.get("headers") or {}).get(BELL_HEADER)
        if not isinstance(bell, str):
            super()._put(queue, message, **kwargs)
            return
        batch = kwargs.get("_publish_batch")
        keys, payload = [queue, bell, WHERE_KEY], dumps(message)
        if batch is not None:
            batch.add("evalsha", scripts.PUBLISH.sha, len(keys), *keys, payload)
            return
        with self.conn_or_acquire() as client:
            scripts.PUBLISH.run(client, keys=keys, args=[payload])

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        return PublishBatch(self, max_size)

    # -- consuming

    def _brpop_read(self, **options: Any) -> bool:
        """Read BRPOP's reply. A bell or silence means: look for ready devices; anything else is a stock message."""
        client = self.client
        message: bytes | None = None
        queue: str | None = None
        taken: deque[tuple[str, str, bytes]] = deque()
        try:
            reply = client.parse_response(client.connection, "BRPOP", **options)
            if reply:
                queue = bytes_to_str(reply[0]).rsplit(self.sep, 1)[0]
                message = reply[1]
                self._queue_cycle.rotate(queue)
            if message is None or message == BELL:
                message = None
                taken = self._fetch(client, rang=queue)
        except self.connection_errors:
            client.connection.disconnect()
            raise
        finally:
            self._in_poll: Any = None
            self._flush_brpop_reauth()
        if message is not None:
            self.connection._deliver(loads(bytes_to_str(message)), queue)  # noqa: SLF001 - as stock delivers
        elif taken:
            self._deliver_taken(taken)
        else:
            raise Empty
        return True

    def _fetch(self, client: Any, *, rang: str | None) -> deque[tuple[str, str, bytes]]:
        """Take ready messages as (bell, delivery tag, message), on the connection that just waited in BRPOP."""
        bells = self.active_queues
        most = min(self.fetch_limit, self.qos.free_slots() if self.ack_emulation else 1)
        if self._closing or most < 1 or (rang is not None and rang not in bells):
            # The consumer was cancelled, or filled up, while it waited.
            if rang is not None:
                scripts.RING.run_on(client, keys=[rang])
            return deque()
        if rang is not None:
            bells.remove(rang)
            bells.insert(0, rang)
        reply = scripts.FETCH.run_on(
            client,
            keys=[self.unacked_key, self.unacked_index_key, WHERE_KEY, UNREADABLE_KEY, *bells],
            args=[most, "1" if self.ack_emulation else "0"],
        )
        return deque(
            (bells[place], bytes_to_str(tag), raw)
            for place, tag, raw in zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        )

    def _deliver_taken(self, taken: deque[tuple[str, str, bytes]]) -> None:
        """Hand taken messages to the consumers of their bells; if one raises, the rest go home at once."""
        try:
            while taken:
                bell, tag, raw = taken.popleft()
                self._deliver_one(bell, tag, raw)
        finally:
            if taken and self.ack_emulation:
                self._send_home([tag for _, tag, _ in taken])

    def _deliver_one(self, bell: str, tag: str, raw: bytes) -> None:
        try:
            payload = loads(bytes_to_str(raw))
        except ValueError:
            self._set_aside(tag, raw)
            return
        if not self.ack_emulation:
            self.connection._deliver(payload, bell)  # noqa: SLF001 - as stock delivers
            return
        qos = self.qos
        qos.note_taken(tag)
        self.connection._deliver(payload, bell)  # noqa: SLF001 - as stock delivers
        if qos.was_not_kept(tag):
            # A consumer without acknowledgements: done once it has been called.
            qos.ack(tag)

    def _send_home(self, tags: list[str]) -> None:
        try:
            for tag in tags:
                self.qos.restore_by_tag(tag)
        except self.connection_errors:
            logger.warning("%d taken messages stay unacknowledged until the visibility timeout", len(tags))

    def _set_aside(self, tag: str, raw: bytes) -> None:
        logger.critical("A device queue held something that is no message; set aside in %s", UNREADABLE_KEY)
        with self.conn_or_acquire() as client:
            keys = [self.unacked_key, self.unacked_index_key, UNREADABLE_KEY]
            scripts.SET_ASIDE.run(client, keys=keys, args=[tag, raw])

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        with self.conn_or_acquire() as client:
            reply = scripts.GET.run(
                client,
                keys=[self.unacked_key, self.unacked_index_key, WHERE_KEY, UNREADABLE_KEY, queue],
                args=["0" if no_ack or not self.ack_emulation else "1"],
            )
        if reply is None:
            return super().basic_get(queue, no_ack=no_ack, **kwargs)
        if not reply:
            return None
        tag, raw = bytes_to_str(reply[0]), reply[1]
        message = self.Message(loads(bytes_to_str(raw)), channel=self)
        if not no_ack:
            if self.ack_emulation:
                self.qos.note_taken(tag)
            self.qos.append(message, tag)
        return message

    # -- coming back

    def home_of(self, exchange: str, routing_key: str) -> str:
        """The list a device message came from: scripts note it as routing key, without an exchange."""
        if not exchange:
            return routing_key
        queues: list[str] = self._lookup(exchange, routing_key)
        return queues[0] if queues else routing_key

    def _restore(self, message: Any, leftmost: bool = False) -> Any:
        if self.ack_emulation and BELL_HEADER in (message.headers or {}):
            return self.qos.restore_by_tag(message.delivery_tag)
        if not self.ack_emulation:
            return virtual.Channel._restore(self, message)  # noqa: SLF001 - stock loses `leftmost` here too
        return super()._restore(message, leftmost=leftmost)

    def repair_some(self) -> None:
        """A bounded piece of :func:`messaging.transport.repair.repair`, going round and round over the sweeps."""
        with self.conn_or_acquire() as client:
            self._repairing = self._repairing or repair_steps(client)
            try:
                steps = list(islice(self._repairing, REPAIR_STEPS_PER_SWEEP))
            except self.ResponseError:
                # Such as scripts refused on a full server, where taking messages still works and makes room.
                logger.warning("Repair was refused; it goes on at a later sweep", exc_info=True)
                steps = []
        if len(steps) < REPAIR_STEPS_PER_SWEEP:
            self._repairing = None
        added, dropped = sum(step.tokens_added for step in steps), sum(step.tokens_dropped for step in steps)
        if added or dropped:
            logger.warning("Repaired device queues: %d tokens added, %d dropped", added, dropped)

    # -- queues as a whole

    def _purge(self, queue: str, *, only_device_queue: bool = False) -> int:
        lists = dict.fromkeys([queue, *(self._q_for_pri(queue, priority) for priority in self.priority_steps)])
        with self.conn_or_acquire() as client:
            args = ["1" if only_device_queue else "0"]
            removed: int = scripts.PURGE.run(client, keys=[WHERE_KEY, *lists], args=args)
        return removed

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str, *_args: Any, **kwargs: Any) -> None:
        self.auto_delete_queues.discard(queue)
        member = self.sep.join([routing_key or "", pattern or "", queue or ""])
        with self.conn_or_acquire(kwargs.get("client")) as client:
            client.srem(self.keyprefix_queue % (exchange,), member)
            client.srem(self.keyprefix_binding_permanent % (exchange,), member)
        self._purge(queue)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        """Stock, and also for device queues, which are never declared and so unknown to the channel."""
        if queue in self.state.queue_index:
            super().queue_delete(queue, if_unused=if_unused, if_empty=if_empty, **kwargs)
        elif not (if_empty and self._size(queue)):
            self._purge(queue, only_device_queue=True)
