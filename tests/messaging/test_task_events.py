"""What a monitor such as Flower is told by real workers, and what it cannot do to them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from celery import current_app

from messaging.dispatch.publish import all_bells
from messaging.models import Message
from messaging.states import State
from messaging.task_events import CalmDispatcher, SendFailed, silence
from tests.factories import make_batch, make_pool, make_user
from tests.messaging.corridor import ticking, wait_for_the_end
from tests.programs import worker
from tests.simulator_process import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@contextmanager
def watching() -> Iterator[list[dict[str, Any]]]:
    """Everything that reaches a monitor, as it comes."""
    heard: list[dict[str, Any]] = []
    stop = threading.Event()

    def listen() -> None:
        with current_app.connection_for_read() as mine:
            receiver = current_app.events.Receiver(mine, handlers={"*": heard.append})
            with receiver.consumer_context() as (connection, _, _):
                while not stop.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=0.2)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join(20)


def test_a_monitor_sees_sends_and_failures_and_no_ticks_and_can_stop_nothing(broker, simulator, tmp_path):
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=3)
    simulator.add_faults({"fault": "reject", "device": devices[0].credentials["token"]})
    with watching() as heard, worker(simulator, tmp_path / "worker.log", queues=["control", *all_bells()]) as process:
        wait_until(lambda: current_app.control.ping(timeout=0.5), what="the worker's answer")
        current_app.control.enable_events()
        wait_until(lambda: any(event["type"] == "worker-heartbeat" for event in heard), what="a heartbeat")
        for _ in range(20):
            current_app.send_task("messaging.pulse", queue="control", ignore_result=True)
        batch = make_batch(owner=owner, devices=devices, leads=6)
        with ticking():
            wait_for_the_end(batch)
        wait_until(lambda: sum(event["type"] == "task-failed" for event in heard) >= 1, what="failures")
        wait_until(lambda: sum(event["type"] == "task-succeeded" for event in heard) >= 2, what="successes")
        for command in ("shutdown", "cancel_consumer", "revoke", "pool_shrink"):
            arguments = {"queue": "control", "task_id": "x", "n": 1}
            (refusal,) = current_app.control.broadcast(command, arguments=arguments, reply=True, timeout=2)
            assert [list(said) for said in refusal.values()] == [["error"]]
        (answer,) = current_app.control.ping(timeout=2)
        assert list(answer.values()) == [{"ok": "pong"}]
        assert process.poll() is None
        (queues,) = current_app.control.inspect(timeout=5).active_queues().values()
        assert "control" in {queue["name"] for queue in queues}
    failed = [event for event in heard if event["type"] == "task-failed"]
    named = {event["uuid"]: event["name"] for event in heard if event["type"] == "task-received"}
    assert {named[event["uuid"]] for event in failed} == {"messaging.send"}
    lost = Message.objects.filter(state=State.FAILED)
    assert lost.count() == 2
    said = " ".join(event["exception"] for event in failed)
    assert all(str(pk) in said for pk in lost.values_list("pk", flat=True))
    assert "messaging.pulse" not in named.values()
    assert "Traceback" not in (tmp_path / "worker.log").read_text()


class Publishing:
    """Where a dispatcher puts what it publishes."""

    def __init__(self) -> None:
        self.bunches: list[Any] = []

    def publish(self, event: Any, **_: Any) -> None:
        self.bunches.append(event)


def test_a_silent_task_is_told_from_its_beginning_if_it_fails():
    silence(["a.tick"])
    dispatcher = CalmDispatcher(current_app.connection_for_write(), hostname="a", enabled=False, app=current_app)
    dispatcher.enabled, dispatcher.producer = True, (published := Publishing())
    for uuid in ("fine", "broken"):
        dispatcher.send("task-received", uuid=uuid, name="a.tick")
        dispatcher.send("task-started", uuid=uuid)
    dispatcher.send("task-succeeded", uuid="fine", result="None", runtime=0.1)
    dispatcher.send("task-failed", uuid="broken", exception=repr(SendFailed.of([1], carried=1)))
    dispatcher.flush()
    (bunch,) = published.bunches
    told = [(event["type"], event["uuid"]) for event in bunch]
    assert told == [("task-received", "broken"), ("task-failed", "broken")]
    assert not dispatcher._silenced
