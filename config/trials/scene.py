"""An installation on several hosts: where Valkey, the simulator and the workers are, its fleet and its campaign.

PostgreSQL is on the hub, where we are. Worker hosts run what a server runs: a control worker, a device worker, a
session host, and beat.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.utils import timezone

from campaigns import services as campaigns
from campaigns.models import Run
from config.bench import seeding
from config.bench.corridor import make_campaign
from config.chaos.fleet import resume_what_paused_itself
from config.demo.ledger import Judge
from config.stack.binaries import valkey_program
from config.stack.children import Child, Children
from config.stack.errors import StackError
from config.stack.places import CHECKOUT
from config.stack.ports import LOOPBACK, any_free_port
from config.stack.private_files import write_private
from config.stack.processes import Ladder
from config.stack.programs import Ports, device_bells, programs
from config.stack.supervisor import Program
from config.trials.network import Host, Network
from devices.gateways.simulated_session import SimulatedSessionDriver
from devices.models import Device, Pool
from messaging.models import Attempt, Stream

SHARDS = 4
VALKEY_PORT, SIMULATOR_PORT = 6379, 8900
EVERYWHERE = "0.0.0.0"  # noqa: S104 - in a network that nobody else is in
READY_SECONDS = 600.0
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.25
EVERYTHING = ("worker-control", "worker-devices", "worker-sessions", "beat")


@dataclass(frozen=True, slots=True)
class Seen:
    """Requests, holders of sessions, and how often a holder was replaced, as the simulator has them."""

    entries: list[dict[str, Any]]
    stays: list[dict[str, Any]]
    replaced: int


@dataclass(slots=True)
class Worker:
    """A host with workers on it; ``checkout`` is the code that they run."""

    host: Host
    programs: dict[str, Program] = field(default_factory=dict, repr=False)
    running: dict[str, Child] = field(default_factory=dict)
    checkout: Path = CHECKOUT


@dataclass
class Scene:
    """``environment`` names the servers as the workers reach them, and holds the secrets of the programs.

    Without a ``network`` all hosts are this machine, and Valkey is where the environment says.
    """

    root: Path
    environment: Mapping[str, str] = field(repr=False)
    children: Children
    network: Network | None
    say: Callable[[str], None]
    check: Callable[[], None]
    valkey: Host = field(init=False)
    gateway: Host = field(init=False)
    port: int = SIMULATOR_PORT
    workers: dict[str, Worker] = field(default_factory=dict)

    # -- hosts ---------------------------------------------------------------------------------------------------------

    @property
    def wires(self) -> Network:
        """The network between the hosts. Raises StackError where there is none."""
        if self.network is None:
            raise StackError("All hosts are this machine.")
        return self.network

    def _add(self, name: str) -> Host:
        return Host(name, LOOPBACK) if self.network is None else self.network.add(name)

    def set_up(self) -> None:
        """Hosts for Valkey and the simulator. Raises StackError."""
        self.valkey = self._add("valkey")
        if self.network is None:
            self.port = any_free_port()
        else:
            self._start_valkey()
        self.gateway = self._add("gateway")
        simulator = self._programs("gateway")["simulator"]
        argv = [
            sys.executable,
            "-m",
            "messaging.simulator",
            "--host",
            EVERYWHERE if self.network else LOOPBACK,
            "--allow-remote",
        ]
        argv += ["--port", str(self.port)]
        child = self._start("simulator", self.gateway.argv(argv), env=simulator.env)
        self.wait(
            lambda: bool(simulator.ready and simulator.ready(child.logged())), what="the simulator", alive=[child]
        )

    def seen(self) -> Seen:
        """What the simulator has seen: it tells that to its own host only. Raises requests' errors."""

        def ask() -> Seen:
            witness = Judge(url=f"http://{LOOPBACK}:{self.port}", token=self.environment["SIMULATOR_CONTROL_TOKEN"])
            return Seen(list(witness.entries()), witness.stays(), witness.sessions()["replaced"])

        return self.gateway.inside(ask)

    @property
    def gateway_url(self) -> str:
        """Where the simulator is."""
        return f"http://{self.gateway.address}:{self.port}"

    def add(
        self, name: str, *names: str, checkout: Path = CHECKOUT, environment: Mapping[str, str] | None = None
    ) -> Worker:
        """A new host with these programs (all of :data:`EVERYTHING` by default); they are starting."""
        worker = Worker(self._add(name), checkout=checkout)
        known = self._programs(name, environment)
        worker.programs = {each: known[each] for each in names or EVERYTHING}
        self.workers[name] = worker
        for each in worker.programs:
            self.start(worker, each)
        return worker

    def start(self, worker: Worker, name: str) -> None:
        """Start a program of a host, also again."""
        program = worker.programs[name]
        worker.running[name] = self._start(
            f"{worker.host.name}-{name}", worker.host.argv(program.argv), env=program.env, cwd=worker.checkout
        )

    def stop(self, worker: Worker, name: str) -> int:
        """End a program politely, as a service manager does, and wait for it; its exit status."""
        child = worker.running.pop(name)
        self.children.stop(child)
        return child.exit_code() or 0

    def wait_ready(self, worker: Worker) -> None:
        """Until all of its workers take tasks. Raises StackError."""
        for name, child in worker.running.items():
            ready = worker.programs[name].ready
            if ready is not None:
                self.wait(lambda ready=ready, child=child: ready(child.logged()), what=child.name, alive=[child])  # type: ignore[misc]

    def kill(self, worker: Worker) -> None:
        """The host is gone from one moment to the next: not even its kernel says goodbye."""
        self.wires.unplug(worker.host)
        for child in worker.running.values():
            os.kill(child.pid, signal.SIGKILL)
        for child in worker.running.values():
            self.children.forget(child)
        worker.running.clear()
        self.wires.remove(worker.host)
        del self.workers[worker.host.name]

    def end(self) -> None:
        """What was to be seen has been seen: no worker needs a farewell."""
        for worker in self.workers.values():
            for child in worker.running.values():
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def died(self) -> list[str]:
        """Programs that ended by themselves."""
        return [
            f"{child.name} ended ({child.exit_code()}): {child.last_words()}"
            for worker in self.workers.values()
            for child in worker.running.values()
            if child.exit_code() is not None
        ]

    def wait(
        self,
        condition: Callable[[], bool],
        *,
        what: str,
        seconds: float = READY_SECONDS,
        alive: Sequence[Child] = (),
    ) -> float:
        """Wait until ``condition`` holds; after how many seconds it did. Raises StackError."""
        began = time.monotonic()
        while not condition():
            self.check()
            for child in alive:
                if child.exit_code() is not None:
                    raise StackError(f"{child.name} ended ({child.exit_code()}): {child.last_words()}")
            if time.monotonic() - began > seconds:
                raise StackError(f"Waited {seconds:.0f} s in vain for {what}.")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    def _programs(self, name: str, environment: Mapping[str, str] | None = None) -> dict[str, Program]:
        """By their names, with node names of this host."""
        folder = self.root / name
        ports = Ports(web=self.port, flower=self.port, simulator=self.port)
        folder.mkdir(parents=True, exist_ok=True)
        told = {
            **self.environment,
            **(environment or {}),
            "FLOTILLA_SHARDS": str(SHARDS),
            "FLOTILLA_LOCAL": str(folder),
        }
        if hasattr(self, "gateway"):
            url = self.gateway_url
            told["FLOTILLA_GATEWAY_URLS"] = f"simulator={url},{SimulatedSessionDriver.kind}={url}"
        found = programs(root=folder, ports=ports, environment=told, bells=device_bells(shards=SHARDS))
        return {
            program.name: replace(program, argv=tuple(part.replace("@%h", f"@{name}") for part in program.argv))
            for program in found
        }

    def _start(self, name: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path = CHECKOUT) -> Child:
        return self.children.start(
            name=name,
            argv=argv,
            ladder=Ladder(steps=((signal.SIGTERM, STOP_SECONDS),)),
            env=env,
            cwd=cwd,
            log=self.root / "logs" / f"{name}.log",
        )

    def _start_valkey(self) -> None:
        """With the password that the environment's address holds."""
        folder = self.root / "valkey-host"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = urlsplit(self.environment["REDIS_URL"]).password
        lines = [f"bind {self.valkey.address}", f"port {VALKEY_PORT}", f"requirepass {password}", 'save ""']
        write_private(folder / "valkey.conf", "\n".join([*lines, "maxmemory-policy noeviction", ""]))
        argv = self.valkey.argv([str(valkey_program()), str(folder / "valkey.conf")])
        child = self._start("valkey", argv, env={"PATH": os.defpath, "LC_ALL": "C"}, cwd=folder)

        def answers() -> bool:
            try:
                with socket.create_connection((self.valkey.address, VALKEY_PORT), timeout=1):
                    return True
            except OSError:
                return False

        self.wait(answers, what="Valkey", alive=[child])


@dataclass(slots=True)
class Fleet:
    """Who sends: half of the devices post, half have sessions."""

    pool: Pool
    devices: list[Device]
    gap_seconds: tuple[float, float]
    run: Run | None = None
    paused_itself: int = 0

    def names(self) -> dict[str, float]:
        """The shortest gap by the gateway's name of the device."""
        return {seeding.token(number): self.gap_seconds[0] for number in range(len(self.devices))}

    @property
    def batch_id(self) -> int:
        """Of the campaign. Raises StackError when there is none."""
        if self.run is None or self.run.batch_id is None:
            raise StackError("The campaign has no messages.")
        return self.run.batch_id

    def launch(self, scene: Scene, *, name: str) -> None:
        """The campaign, filled. Raises StackError."""
        self.run = run = campaigns.launch(campaign=make_campaign(pool=self.pool, name=name), now=timezone.now()).run

        def filled() -> bool:
            run.refresh_from_db()
            return run.batch is not None and run.batch.filled_at is not None

        scene.wait(filled, what="the campaign to be filled")

    def all_sent_since(self, moment: float) -> bool:
        """Whether every device had a message accepted that was claimed after this moment of the wall clock."""
        since = datetime.fromtimestamp(moment, UTC)
        rows = Attempt.objects.filter(started_at__gt=since, outcome="accepted", message__batch_id=self.batch_id)
        return rows.order_by().values("device_id").distinct().count() >= len(self.devices)

    def tend(self) -> None:
        """As operators do: a run that paused itself because of what we did goes on."""
        if self.run is not None and type(self.run).objects.filter(pk=self.run.pk, batch__state="paused").exists():
            self.paused_itself += 1
            resume_what_paused_itself()

    def finish(self, scene: Scene, *, seconds: float) -> None:
        """Cancel what has not left yet, and wait until nothing is on its way. Raises StackError."""
        if self.run is None:
            return
        campaigns.cancel(self.run, now=timezone.now())

        def settled() -> bool:
            return not Stream.objects.filter(batch_id=self.batch_id, waiting__gt=0).exists()

        scene.wait(settled, what="everything to be settled", seconds=seconds)


def make_fleet(*, devices: int, leads: int, gap_seconds: tuple[float, float]) -> Fleet:
    """Empty the database, which is ours, and fill it."""
    seeding.clear()
    owner = seeding.make_owner()
    pool, made = seeding.make_fleet(
        owner=owner, number=devices, delay_min_seconds=gap_seconds[0], delay_max_seconds=gap_seconds[1]
    )
    for device in made[::2]:
        device.gateway = SimulatedSessionDriver.kind
    Device.objects.bulk_update(made[::2], ["gateway"])
    seeding.make_leads(owner=owner, number=leads)
    seeding.settle()
    return Fleet(pool, made, gap_seconds)
