"""One campaign over platform devices and sessions, and what is left running when nothing is expected any more.

The product's programs as the stack starts them, with two session hosts: platform devices post to the simulator, each
in the wire format of its own gateway, by turns; sessions log in to it and stay. Every session has to connect first, as
after a night: how long that takes is measured too. After the campaign the hosts close what is idle: no socket may be
left, and the database's commits are counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.db import connection

from config.bench import seeding
from config.bench.corridor import launch, paced, per_second, wait_for_end
from config.bench.kind import Bench
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import DIALECTS, Playing, Stage
from config.demo.verdict import REACHED
from devices.gateways import registry
from devices.gateways.simulated_session import SimulatedSessionDriver
from devices.models import Device
from messaging.models import Message

PROGRAMS = ("worker-control", "worker-devices", "worker-sessions", "worker-sessions", "beat")
LINGER_MINUTES = "0.2"
IDLE_SECONDS = 180.0
WATCHED_SECONDS = 10.0
DESCRIBED: dict[str, Any] = {
    "path": "/generic/v1/devices/{secret}/messages",
    "body": {"to": "{phone}", "text": "{text}", "id": "{reference}"},
    "success": {"statuses": [200], "path": "status", "values": ["accepted"]},
    "external_id": "id",
}
"""What the gateway that options describe is told of the simulator."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes: every third device is a session."""

    devices: int
    messages: int


FULL = Plan(devices=3_000, messages=9_000)
QUICK = Plan(devices=300, messages=900)


def run(stage: Stage, plan: Plan) -> list[Line]:
    """One round."""
    registry.register(SimulatedSessionDriver())
    seeding.clear()
    owner = seeding.make_owner()
    pool, devices = seeding.make_fleet(owner=owner, number=plan.devices)
    sessions = _mix(devices)
    seeding.make_leads(owner=owner, number=plan.messages)
    seeding.settle()
    stage.empty_broker()
    environment = {"FLOTILLA_SIMULATED_SESSIONS": "1", "FLOTILLA_SESSION_LINGER_MINUTES": LINGER_MINUTES}
    with stage.product(*PROGRAMS, env=environment) as playing:
        began = time.time()
        bench_run = launch(pool=pool, name="Mixed fleet")
        wait_for_end(stage, run=bench_run, messages=plan.messages)
        bench_run.refresh_from_db()
        if bench_run.batch_id is None:
            raise BenchFailed(f"the run has no batch: {bench_run.reason}")
        entries = list(playing.witness.entries())
        tokens = {seeding.token(number) for number in range(0, plan.devices, 3)}
        first: dict[str, float] = {}
        for entry in entries:
            first.setdefault(entry["device"], entry["at"])
        connected_after = max(first[token] for token in tokens) - began
        hosts = [pid for pid, name in playing.names.items() if name.startswith("worker-sessions")]
        _wait_for_idle(stage, playing, hosts)
        commits = _commits_per_second()
    wrong = _wrong(batch_id=bench_run.batch_id, entries=entries)
    fleet = f"{plan.devices - len(sessions):,} platform devices and {len(sessions):,} sessions of two hosts"
    moments = sorted(entry["at"] for entry in entries if entry["delivered"])
    return [
        Line(
            name="mixed_fleet",
            what=f"{plan.messages:,} messages over {fleet}",
            unit="messages/s",
            ours=[per_second(moments, warm=0)],
        ),
        Line(
            name="mixed_fleet_wrong",
            what="messages lost, doubled, unaccounted for or not sent, by the simulator's ledger",
            unit="messages",
            ours=[wrong],
            goal=Goal(0, "most", "ours"),
        ),
        Line(
            name="mixed_fleet_first_sends",
            what=f"from the launch until each of {len(sessions):,} sessions had logged in and sent",
            unit="s",
            ours=[connected_after],
        ),
        Line(
            name="mixed_fleet_idle_commits",
            what="transactions of the whole idle installation, beat included",
            unit="commits/s",
            ours=[commits],
        ),
    ]


def _credentials(kind: str, token: str) -> dict[str, str]:
    """By which the simulator knows ``token``, in the words of a gateway."""
    match kind:
        case "gowa":
            return {"device_id": token, "username": "flotilla", "password": "simulated"}
        case "waha":
            return {"session": token, "api_key": "simulated-key"}
        case "evolution":
            return {"instance": token, "apikey": "simulated-key"}
        case "wablas":
            return {"token": token, "secret_key": "simulated"}
        case "whacenter":
            return {"device_id": token}
        case "generic":
            return {"secret": token}
    return {"token": token}


def _mix(devices: list[Device]) -> list[int]:
    """Give every third device a session, and the others the gateways by turns. Returns who has a session."""
    platforms = cycle(kind for kind in DIALECTS if kind != SimulatedSessionDriver.kind)
    for number, device in enumerate(devices):
        device.gateway = SimulatedSessionDriver.kind if number % 3 == 0 else next(platforms)
        device.credentials = _credentials(device.gateway, seeding.token(number))
        device.options = DESCRIBED if device.gateway == "generic" else {}
    Device.objects.bulk_update(devices, ["gateway", "credentials", "options"], batch_size=500)
    return [device.pk for device in devices[::3]]


def _wrong(*, batch_id: int, entries: Iterable[Mapping[str, Any]]) -> int:
    """Messages that did not reach their phone exactly once, or are not called sent. Not every gateway is told our
    number, so they are known by device and phone: each lead is written to once."""
    arrived = Counter((entry["device"], entry["phone"]) for entry in entries if entry["delivered"])
    rows = Message.objects.filter(batch_id=batch_id).values_list("device__name", "phone", "state")
    expected = {(seeding.token(int(name.split()[-1])), phone): state for name, phone, state in rows}
    return sum(arrived[each] != 1 or state not in REACHED for each, state in expected.items()) + len(
        arrived.keys() - expected.keys()
    )


def _wait_for_idle(stage: Stage, playing: Playing, hosts: list[int]) -> None:
    """Until no host has a socket to the simulator. Raises BenchFailed when one stays."""
    port, ends = urlsplit(playing.url).port or 0, time.monotonic() + IDLE_SECONDS

    def idle() -> bool:
        left = sum(_sockets(pid, port=port) for pid in hosts)
        if left and time.monotonic() > ends:
            raise BenchFailed(f"{left} sockets of sessions are open {IDLE_SECONDS:.0f} s after the last message")
        return not left

    paced(idle, stage=stage, pause_seconds=1.0)


def _sockets(pid: int, *, port: int) -> int:
    """Connections of a process to a loopback port (proc(5), net/tcp: inodes of sockets that its descriptors name)."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    inodes = {row[9] for row in rows if int(row[2].rsplit(":", 1)[1], 16) == port}
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        found += target.startswith("socket:[") and target[8:-1] in inodes
    return found


def _commits_per_second() -> float:
    def commits() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
            return int(cursor.fetchone()[0])

    before, since = commits(), time.monotonic()
    time.sleep(WATCHED_SECONDS)
    return (commits() - before) / (time.monotonic() - since)


BENCH = Bench(name="mixed_fleet", run=run, full=FULL, quick=QUICK)
