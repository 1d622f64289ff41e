"""Keep a Celery worker's threads busy when it fetches no more than it can run.

With ``worker_disable_prefetch`` the event loop stops listening while all slots are taken, and nothing tells it when a
thread becomes free: it finds out at its next time-out, up to a second later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.worker import state

__all__ = ["WakeHub"]


class WakeHub(bootsteps.StartStopStep):
    """Consumer bootstep: wakes the event loop when a task ends that it was waiting for, and sizes fetches.

    ``app.steps["consumer"].add(WakeHub)``. Does nothing on pools that do not hand out futures, or without a hub.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:
        if c.hub is None:
            return
        qos = c.task_consumer.channel.qos
        waker = _waker_of(c.pool, c.hub)
        qos.can_consume = waker.watch(qos.can_consume)
        if c.app.conf.worker_disable_prefetch and hasattr(qos, "free_slots_hook"):
            qos.free_slots_hook = lambda: free_slots(c)


def free_slots(c: Any) -> int:
    """Tasks the worker can start at once, by the same count that ``worker_disable_prefetch`` goes by."""
    limit: int = getattr(c.controller, "max_concurrency", None) or c.pool.num_processes
    return limit - len(state.reserved_requests)


class _Waker:
    """Wakes the loop from a pool thread, but only when the loop last found itself without a free slot."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._starved = False
        self._waking = False

    def watch(self, can_consume: Callable[[], bool]) -> Callable[[], bool]:
        def watched() -> bool:
            # Raised before looking: a task that ends after the look sees the flag, one that ended before is counted.
            self._starved = True
            if can_consume():
                self._starved = False
                return True
            return False

        return watched

    def task_ended(self, _future: Any) -> None:
        if self._starved and not self._waking:
            self._waking = True
            self._hub.call_soon(self._woken)

    def _woken(self) -> None:
        # Lowered before the loop looks for free slots again, so an end that found it raised is still seen by that look.
        self._waking = False


def _waker_of(pool: Any, hub: Any) -> _Waker:
    """The pool's waker, told of the end of each of its futures. One for the pool's life: a task that a consumer started
    before a reconnect must wake the loop of the consumer after it."""
    waker: _Waker | None = getattr(pool.on_apply, "waker", None)
    if waker is not None:
        return waker
    waker = _Waker(hub)
    inner, ended = pool.on_apply, waker.task_ended

    def on_apply(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        future = getattr(result, "f", None)
        if future is not None:
            future.add_done_callback(ended)
        return result

    on_apply.waker = waker  # type: ignore[attr-defined]
    pool.on_apply = on_apply
    return waker
