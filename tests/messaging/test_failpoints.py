"""Death and sleep at each named place of the corridor, one by one, with real workers and the ledger as judge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.conf import settings as django_settings
from django.utils import timezone

from campaigns import services as campaigns
from config.demo.verdict import judge
from devices.gateways import registry
from messaging import failpoints
from messaging.dispatch.publish import all_bells
from messaging.models import Attempt, Batch, Message, Stream
from messaging.states import State
from tests import programs
from tests.factories import make_batch, make_campaign, make_leads, make_pool, make_user
from tests.messaging.corridor import ticking, wait_for_the_end
from tests.programs import ROOT
from tests.simulator_process import Simulator, wait_until

LEASE_SECONDS = 2  # of whoever is about to die; who comes after may be as slow as the machine


# -- what the variable may say -----------------------------------------------------------------------------------------


def test_nothing_is_armed_unless_the_environment_says_so():
    assert failpoints.armed_by({}) == ({}, None)
    assert failpoints.armed_by({failpoints.VARIABLE: ""}) == ({}, None)
    for name in failpoints.NAMES:
        failpoints.hit(name)  # this process goes on


def test_names_actions_chances_and_a_seed():
    armed, seed = failpoints.parse("seed=7, after_claim=kill@0.002,mid_publish=freeze@1")
    assert seed == "7"
    assert armed == {
        "after_claim": failpoints.Failpoint("after_claim", "kill", 0.002),
        "mid_publish": failpoints.Failpoint("mid_publish", "freeze", 1.0),
    }


@pytest.mark.parametrize(
    "spec",
    ["after_lunch=kill@1", "after_claim=sing@1", "after_claim=kill", "after_claim=kill@2", "after_claim", "seed="],
)
def test_what_makes_no_sense_is_refused(spec):
    with pytest.raises(failpoints.FailpointsRefused):
        failpoints.parse(spec)


def in_another_process(**environment: str) -> subprocess.CompletedProcess[str]:
    script = "from messaging import failpoints\nfor _ in range(1000): failpoints.hit('after_claim')\nprint('alive')"
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_production_refuses_to_start_with_failpoints():
    spec = {failpoints.VARIABLE: "after_claim=kill@1"}
    refused = in_another_process(FLOTILLA_ENV="production", **spec)
    assert refused.returncode == 1
    assert "FailpointsRefused" in refused.stderr
    assert in_another_process(FLOTILLA_ENV="production").stdout == "alive\n"


def test_chance_and_seed_decide():
    struck = in_another_process(**{failpoints.VARIABLE: "seed=1,after_claim=kill@0.01"})
    assert struck.returncode == -signal.SIGKILL
    assert struck.stderr == "failpoint after_claim kill\n"
    for never in ("after_claim=nap@0", "after_claim=kill@0", "after_accept=kill@1"):
        assert in_another_process(**{failpoints.VARIABLE: never}).stdout == "alive\n"


def test_a_nap_is_of_one_thread_and_says_nothing():
    script = (
        "import threading\nfrom messaging import failpoints\n"
        "sleeper = threading.Thread(target=failpoints.hit, args=['before_claim'])\n"
        "sleeper.start()\nprint(sleeper.is_alive())\nsleeper.join()\nprint('awake')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, failpoints.VARIABLE: "seed=2,before_claim=nap@1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("True\nawake\n", "")


# -- with real workers -------------------------------------------------------------------------------------------------

with_workers = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def worker(simulator: Simulator, log: Path, *, queues: Sequence[str], threads: int = 4, armed: str = "") -> Any:
    """A worker with failpoints, killed at the end: it may be one that sleeps."""
    more = {failpoints.VARIABLE: armed, **({"FLOTILLA_LEASE_SECONDS": str(LEASE_SECONDS)} if armed else {})}
    return programs.worker(simulator, log, queues=queues, threads=threads, polite=False, **more)


def died_at(process: subprocess.Popen, log: Path, name: str) -> None:
    wait_until(lambda: process.poll() is not None, what=f"death {name}", seconds=30)
    assert process.returncode == -signal.SIGKILL
    assert f"failpoint {name} kill\n" in log.read_text()


def is_stopped(process: subprocess.Popen) -> bool:
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def count_states(batch: Batch) -> dict[str, int]:
    states = list(Message.objects.filter(batch=batch).values_list("state", flat=True))
    return {state: states.count(state) for state in sorted(set(states))}


def counters_hold(batch: Batch) -> bool:
    return all(
        getattr(stream, name) == stream.messages.filter(state=name).count()
        for stream in Stream.objects.filter(batch=batch)
        for name in ("sent", "failed", "unknown")
    )


def nobody_drops_repeats(monkeypatch) -> None:
    """Recovery, which runs in this process, takes the simulator for one of the others, and presumes at once."""
    monkeypatch.setattr(django_settings, "FLOTILLA_UNKNOWN_CLOSE_HOURS", 0)
    monkeypatch.setattr(type(registry.driver_for("simulator")), "id_semantics", "none")


class TestWorkers:
    pytestmark = with_workers

    @pytest.mark.parametrize("dedups", [True, False])
    @pytest.mark.parametrize(("name", "requests"), [("after_claim", 0), ("after_accept", 1)])
    def test_death_in_the_middle_of_a_send(self, broker, simulator, tmp_path, monkeypatch, name, requests, dedups):
        if not dedups:
            nobody_drops_repeats(monkeypatch)
        owner = make_user()
        _, devices = make_pool(owner=owner, devices=4)
        batch = make_batch(owner=owner, devices=devices, leads=40)
        log = tmp_path / f"{name}.log"
        with ticking():
            with worker(simulator, log, queues=all_bells(), threads=1, armed=f"{name}=kill@1") as process:
                died_at(process, log, name)
                struck = Attempt.objects.get()
                seen = [entry["message"] for entry in simulator.ledger()]
                assert seen == [struck.message_id] * requests
            if not dedups:  # before the next worker's own recovery, which takes the simulator for what it is
                unknown = Message.objects.filter(pk=struck.message_id, state=State.UNKNOWN)
                wait_until(unknown.exists, what="the lease to end", seconds=30)
            with worker(simulator, tmp_path / "next.log", queues=all_bells()):
                wait_for_the_end(batch)
        verdict = judge(batch_id=batch.pk, entries=simulator.ledger())
        assert verdict.clean
        assert counters_hold(batch)
        if dedups:
            assert count_states(batch) == {State.SENT: 40}
            assert (verdict.delivered, verdict.repeats_dropped) == (40, requests)
        else:
            assert count_states(batch) == {State.SENT: 39, State.UNKNOWN: 1}
            assert Message.objects.get(state=State.UNKNOWN).pk == struck.message_id
            assert (verdict.delivered, verdict.repeats_dropped) == (39 + requests, 0)

    def test_death_before_the_claim_costs_nothing(self, broker, simulator, tmp_path):
        owner = make_user()
        _, devices = make_pool(owner=owner, devices=4)
        batch = make_batch(owner=owner, devices=devices, leads=20)
        log = tmp_path / "before_claim.log"
        with ticking():
            with worker(simulator, log, queues=all_bells(), threads=1, armed="before_claim=kill@1") as process:
                died_at(process, log, "before_claim")
                assert not Attempt.objects.exists()
            with worker(simulator, tmp_path / "next.log", queues=all_bells()):
                wait_for_the_end(batch)
        verdict = judge(batch_id=batch.pk, entries=simulator.ledger())
        assert verdict.clean
        assert (verdict.delivered, verdict.repeats_dropped) == (20, 0)
        assert count_states(batch) == {State.SENT: 20}
        assert set(Attempt.objects.values_list("number", flat=True)) == {1}

    @pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a stopped process is recognised by /proc")
    @pytest.mark.parametrize("dedups", [True, False])
    def test_sleep_beyond_the_lease_and_a_late_awakening(self, broker, simulator, tmp_path, monkeypatch, dedups):
        if not dedups:
            nobody_drops_repeats(monkeypatch)
        owner = make_user()
        _, devices = make_pool(owner=owner, devices=4)
        batch = make_batch(owner=owner, devices=devices, leads=40)
        log = tmp_path / "sleeper.log"
        with ticking(), worker(simulator, log, queues=all_bells(), threads=1, armed="after_claim=freeze@1") as sleeper:
            wait_until(lambda: is_stopped(sleeper), what="the worker to sleep", seconds=30)
            slept_on = Attempt.objects.get().message_id
            if not dedups:
                unknown = Message.objects.filter(pk=slept_on, state=State.UNKNOWN)
                wait_until(unknown.exists, what="the lease to end", seconds=30)
            with worker(simulator, tmp_path / "awake.log", queues=all_bells()):
                wait_for_the_end(batch)
                before = sum(entry["message"] == slept_on for entry in simulator.ledger())
                assert before == (1 if dedups else 0)
                sleeper.send_signal(signal.SIGCONT)
                attempts = Attempt.objects.filter(message_id=slept_on)
                wait_until(lambda: attempts.get(number=1).outcome == "accepted", what="the late record", seconds=30)
        verdict = judge(batch_id=batch.pk, entries=simulator.ledger())
        assert (verdict.lost, verdict.duplicated, verdict.unaccounted) == ((), (), ())  # late, and so out of its order
        assert (verdict.delivered, verdict.repeats_dropped) == (40, before)
        assert count_states(batch) == {State.SENT: 40}  # who woke late still knew the truth
        assert counters_hold(batch)

    @pytest.mark.parametrize("name", ["after_commit", "mid_publish"])
    def test_death_between_the_release_and_its_tasks(self, broker, simulator, tmp_path, name):
        owner = make_user()
        _, devices = make_pool(owner=owner, devices=20)
        batch = make_batch(owner=owner, devices=devices, leads=100)
        log = tmp_path / f"{name}.log"
        with worker(simulator, log, queues=["control"], threads=1, armed=f"{name}=kill@1") as process:
            current_app.send_task("messaging.release", queue="control", ignore_result=True)
            died_at(process, log, name)
        assert count_states(batch) == {State.PENDING: 80, State.QUEUED: 20}
        published = sum(broker.llen(f"device.{device.pk}") for device in devices)
        assert published <= (0 if name == "after_commit" else 1)
        with ticking(), worker(simulator, tmp_path / "next.log", queues=all_bells()):
            wait_for_the_end(batch)
        assert judge(batch_id=batch.pk, entries=simulator.ledger()).clean
        assert count_states(batch) == {State.SENT: 100}
        assert counters_hold(batch)

    def test_death_in_the_middle_of_a_fan_out(self, broker, simulator, tmp_path):
        owner = make_user()
        pool, _ = make_pool(owner=owner, devices=5)
        make_leads(60, owner=owner)
        run = campaigns.launch(campaign=make_campaign(owner=owner, pool=pool), now=timezone.now()).run
        log = tmp_path / "fan_out.log"
        with worker(simulator, log, queues=["control"], threads=1, armed="mid_fan_out=kill@1") as process:
            current_app.send_task("campaigns.tick", queue="control", ignore_result=True)
            died_at(process, log, "mid_fan_out")
        run.refresh_from_db()
        assert run.batch is not None
        assert run.batch.filled_at is None
        assert Message.objects.count() == 0  # all of the chunk or nothing
        with (
            ticking(),
            worker(simulator, tmp_path / "next.log", queues=["control"]),
            worker(simulator, tmp_path / "devices.log", queues=all_bells()),
        ):
            current_app.send_task("campaigns.tick", queue="control", ignore_result=True)
            wait_for_the_end(run.batch)
        assert judge(batch_id=run.batch.pk, entries=simulator.ledger()).clean
        assert count_states(run.batch) == {State.SENT: 60}
        assert counters_hold(run.batch)
