"""The trial of a rolling restart: worker by worker is ended politely and started again while a paced campaign runs.

With the code of an earlier release for those that run first, it is the trial of a rolling deploy: old workers on old
tables, old workers on the tables that the present code makes of them under their hands, both, new ones only.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from campaigns.models import Run
from config.stack.errors import StackError
from config.stack.places import CHECKOUT
from config.trials import earlier
from config.trials.gather import gather
from config.trials.judge import Evidence, judge, longest_pause
from config.trials.scene import Fleet, Scene, Worker, make_fleet
from devices.models import Device, Pool
from messaging.health import look_at_broker
from messaging.models import Attempt

ORDER = ("worker-control", "beat", "worker-devices", "worker-sessions")
"""As deploy/UPGRADE.md says. Each host has a beat, and while one is replaced the other ticks."""
WELL_SECONDS = 300.0
SETTLE_SECONDS = 240.0


def latest_release() -> str:
    """The last tag before the present code. Raises StackError where there is none."""
    answer = _git("describe", "--tags", "--abbrev=0", "HEAD^")
    if answer.returncode:
        raise StackError("This history holds no earlier tag: name a commit with --previous.")
    return answer.stdout.strip()


def check_out(commit: str, *, folder: Path) -> Path:
    """The code of an earlier commit, below ``folder``. Raises StackError where the history does not hold it."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "code.tar"
    answer = _git("archive", "--format=tar", f"--output={archive}", commit)
    if answer.returncode:
        raise StackError(f"The code of {commit} cannot be had here: {answer.stderr.strip()[:200]}")
    code = folder / "code"
    code.mkdir(exist_ok=True)
    subprocess.run(["tar", "-xf", str(archive), "-C", str(code)], check=True)
    archive.unlink()
    return code


def _git(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *argv], cwd=CHECKOUT, capture_output=True, text=True, check=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """``previous``: the folder with the code that runs first; None for the present code."""

    devices: int
    gap_seconds: tuple[float, float]
    lease_seconds: float
    previous: Path | None = None

    def leads(self) -> int:
        """Enough for all of it."""
        return int(self.devices * 900 / (sum(self.gap_seconds) / 2))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the trial came to. ``pauses``: for each part, the longest time in seconds that a device was silent."""

    evidence: Evidence
    findings: list[str]
    pauses: dict[str, float]
    replaced: int
    unknown: int


@dataclass
class Trial:
    """Two hosts' worth of workers, replaced one after the other."""

    scene: Scene
    plan: Plan
    fleet: Fleet = field(init=False)
    strays: list[str] = field(default_factory=list)

    def perform(self) -> Outcome:
        """All of it. Raises StackError when something does not start or does not come right."""
        scene, plan = self.scene, self.plan
        scene.set_up()
        parts = self._begin_by_itself() if plan.previous is None else self._begin_earlier(plan.previous)
        workers = list(scene.workers.values())
        for name in ORDER:
            for worker in workers:
                if name in worker.programs:
                    worker.checkout = CHECKOUT  # from which everything that starts from now on comes
                    parts[f"{name} of {worker.host.name}"] = self._replace(worker, name)
        began = time.time()
        self._all_send(began, "new")
        parts["after"] = (began, time.time())
        self.fleet.finish(scene, seconds=SETTLE_SECONDS)
        return self._outcome(parts)

    def _begin_by_itself(self) -> dict[str, tuple[float, float]]:
        plan = self.plan
        self.fleet = make_fleet(devices=plan.devices, leads=plan.leads(), gap_seconds=plan.gap_seconds)
        self._start_workers(CHECKOUT)
        began = time.time()
        self.fleet.launch(self.scene, name="Rolling")
        return {"before": self._all_send(began, "the campaign's start")}

    def _begin_earlier(self, code: Path) -> dict[str, tuple[float, float]]:
        """The release before fills its own tables and sends; then they are migrated while it goes on."""
        plan, environment = self.plan, self.scene.environment
        pool = earlier.fill(
            code,
            environment=environment,
            devices=plan.devices,
            leads=plan.leads(),
            gap_seconds=plan.gap_seconds,
        )
        self._start_workers(code)
        began = time.time()
        run = earlier.launch(code, environment=environment, pool=pool)
        parts = {"before": self._all_send(began, "the release before")}
        began = time.time()
        earlier.migrate(CHECKOUT, environment=environment)
        self.scene.say(f"migrated under load in {time.time() - began:.0f} s")
        parts["migrations"] = (began, self._all_send(time.time(), "the release before, on migrated tables")[1])
        devices = list(Device.objects.order_by("pk"))
        self.fleet = Fleet(Pool.objects.get(pk=pool), devices, plan.gap_seconds, run=Run.objects.get(pk=run))
        return parts

    def _start_workers(self, code: Path) -> None:
        for worker in [self.scene.add(name, checkout=code) for name in ("one", "two")]:
            self.scene.wait_ready(worker)

    def _replace(self, worker: Worker, name: str) -> tuple[float, float]:
        """End one and start it again; from when to when, until every device has sent again."""
        began, scene = time.time(), self.scene
        code = scene.stop(worker, name)
        if code not in {0, -15}:
            self.strays.append(f"{name} of {worker.host.name} ended with status {code}")
        scene.start(worker, name)
        scene.wait_ready(worker)
        if name == "beat":
            # Its schedule is there seconds before it can tick, so what counts is that it has asked for the lease.
            mark = f":{worker.running[name].pid}:"
            what = f"the beat of {worker.host.name}"
            scene.wait(lambda: any(mark in beat for beat in look_at_broker().beats.alive), what=what)
        ready = time.time()
        self._all_send(ready, f"{name} of {worker.host.name}")
        scene.say(f"{name:<16} {worker.host.name:<4} replaced, all sending after {time.time() - began:.0f} s")
        return began, time.time()

    def _all_send(self, since: float, what: str) -> tuple[float, float]:
        """Wait until every device has had a message accepted since then; the time in which each should have sent."""
        moment = datetime.fromtimestamp(since, UTC)
        # columns that the release before has as well: this is also asked before the migrations
        rows = Attempt.objects.filter(started_at__gt=moment, outcome="accepted").order_by().values("device_id")
        self.scene.wait(
            lambda: rows.distinct().count() >= self.plan.devices,
            what=f"every device to send ({what})",
            seconds=WELL_SECONDS,
        )
        return time.time() - sum(self.plan.gap_seconds), time.time()

    def _outcome(self, parts: dict[str, tuple[float, float]]) -> Outcome:
        seen = self.scene.seen()
        evidence = gather(
            batch_id=self.fleet.batch_id,
            entries=seen.entries,
            stays=seen.stays,
            silences=(),
            gaps=self.fleet.names(),
            lease_seconds=self.plan.lease_seconds,
            strays=[*self.strays, *self.scene.died()],
        )
        pauses = {what: longest_pause(evidence, begin=begin, end=end)[0] for what, (begin, end) in parts.items()}
        return Outcome(
            evidence=evidence,
            findings=judge(evidence),
            pauses=pauses,
            replaced=seen.replaced,
            unknown=sum(call.unknown for call in evidence.calls),
        )
