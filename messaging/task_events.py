"""What workers tell monitors such as Flower: little enough for thousands of devices, nothing prettier than it is.

Events of tasks travel in bunches instead of one by one, and those of beat's ticks stay silent unless one fails: ten
releases a second would say nothing. A send whose message failed for good is a failed task (:class:`SendFailed`), so
that it is not green in Flower. Nothing is published as long as nobody asked for events; Flower does when it starts.

Monitors may look and not touch: stopping workers, taking queues away and revoking tasks by remote control is refused,
because whoever can write to the broker could do it, and pausing devices, STOP ALL and signals do it better.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any

from celery import bootsteps
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from celery.worker.control import Panel

BUNCH = 50
"""Events that travel together at most; every heartbeat, two seconds apart, takes along what there is."""

KEPT_OFFLINE = 1_000
"""Events that wait for a broker that is away; the oldest give way."""

SILENT: set[str] = set()
"""Tasks of which only failures are told; :func:`silence` adds the ticks."""

LOOKING = frozenset({"enable_events", "heartbeat", "hello", "election"})
"""Remote commands that are not inspections and stay, because they change nothing about the work."""

_LAST = frozenset({"task-succeeded", "task-failed", "task-rejected", "task-revoked", "task-retried"})


class SendFailed(Exception):  # noqa: N818 - reads as a fact
    """Messages that a task carried failed for good. The rows say so already: this is for whoever watches tasks."""

    @classmethod
    def of(cls, message_ids: Sequence[int], *, carried: int) -> SendFailed:
        """With the first five of them; Celery wants an exception that is made of one text."""
        some = ", ".join(map(str, message_ids[:5])) + (", …" if len(message_ids) > 5 else "")
        return cls(f"{len(message_ids)} of {carried} messages failed for good: {some}")


class CalmDispatcher(EventDispatcher):
    """Celery's own, with bunches and without ticks. Safe for the threads of a worker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "buffer_group": frozenset({"task"}), "buffer_limit": BUNCH})
        self._outbound_buffer: deque[Any] = deque(maxlen=KEPT_OFFLINE)
        self._silenced: dict[str, dict[str, Any]] = {}
        self._gate = Lock()

    def send(self, type: str, *args: Any, **fields: Any) -> Any:  # noqa: A002 - Celery's signature
        """As Celery's; what is silent is told from its beginning if it fails."""
        if type.startswith("task-"):
            for name, told in self._worth_telling(type, fields):
                super().send(name, *args, **told)
            return None
        done = super().send(type, *args, **fields)
        self.flush(errors=False)
        return done

    def _worth_telling(self, name: str, fields: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        uuid = str(fields.get("uuid"))
        with self._gate:
            if name == "task-received" and fields.get("name") in SILENT:
                self._silenced[uuid] = fields
                return []
            received = self._silenced.pop(uuid, None) if name in _LAST else self._silenced.get(uuid)
        if received is None:
            return [(name, fields)]
        return [("task-received", received), (name, fields)] if name == "task-failed" else []


class CalmEvents(Events):
    """``Celery(events=CalmEvents)``."""

    dispatcher_cls = "messaging.task_events:CalmDispatcher"


def silence(names: Iterable[str]) -> None:
    """Tell of these tasks only when one fails."""
    SILENT.update(names)


class LookButNotTouch(bootsteps.StartStopStep):
    """Worker bootstep: every remote command that changes what a worker does is refused.

    ``app.steps["worker"].add(LookButNotTouch)``. Celery keeps its commands by process, so this begins with a worker.
    """

    def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        for name, meta in Panel.meta.items():
            if meta.type != "inspect" and name not in LOOKING:
                Panel.data[name] = _refuse


def _refuse(_state: object, **_arguments: object) -> dict[str, str]:
    return {"error": "Refused: pause devices, use STOP ALL, or signal the process instead."}
