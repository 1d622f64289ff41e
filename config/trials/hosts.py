"""The trial of several hosts: one after the other is cut off, killed and added while a campaign runs, and comes back.

What is done (:data:`HARMS`), to which of three worker hosts, and what must be true before the next: the sessions'
shards lie evenly on the hosts that can work, and every device has sent again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from django.db import connection

from config.stack.errors import StackError
from config.trials.gather import gather
from config.trials.judge import Evidence, Silence, judge, longest_pause
from config.trials.network import Host
from config.trials.scene import Fleet, Scene, Worker, make_fleet
from devices.session_models import SessionShard

HARMS: Final[Mapping[str, frozenset[str]]] = {
    "valkey": frozenset({"valkey"}),
    "postgres": frozenset({"postgres"}),
    "both": frozenset({"postgres", "valkey"}),
    "gateway": frozenset({"gateway"}),
    "cable": frozenset({"postgres", "valkey", "gateway"}),
    "kill": frozenset({"postgres", "valkey", "gateway"}),
    "add": frozenset(),
}
"""What a host cannot reach after each."""
MOVED_SECONDS: Final = 60.0
"""Within this the sessions of a lost host are in other hands, and those of an added one in its."""
WELL_SECONDS: Final = 240.0
"""Most time until everything is as before; what takes longer is told as broken."""
SETTLE_SECONDS: Final = 240.0


@dataclass(frozen=True, slots=True)
class Plan:
    """``hold_seconds``: how long a host stays cut off. ``settings`` are the programs'."""

    harms: tuple[str, ...]
    devices: int
    gap_seconds: tuple[float, float]
    hold_seconds: float
    lease_seconds: float
    session_lease_seconds: float
    silence_seconds: int

    def settings(self) -> dict[str, str]:
        """For the environment of every program."""
        return {
            "FLOTILLA_SIMULATED_SESSIONS": "1",
            "FLOTILLA_LEASE_SECONDS": f"{self.lease_seconds:g}",
            "FLOTILLA_SESSION_LEASE_SECONDS": f"{self.session_lease_seconds:g}",
            "FLOTILLA_SILENCE_SECONDS": str(self.silence_seconds),
            "FLOTILLA_SESSION_SHARDS": "12",
            "FLOTILLA_RETRY_MINUTES": "0.05,0.1,0.2,0.3,0.5",
            "FLOTILLA_UNKNOWN_CLOSE_HOURS": "0.01",
            "FLOTILLA_POOL_SIZE": "6",
        }

    def leads(self) -> int:
        """Enough for all of it and its usual waits."""
        seconds = len(self.harms) * (self.hold_seconds + WELL_SECONDS / 2) + 300
        return int(self.devices * seconds / (sum(self.gap_seconds) / 2))


@dataclass(slots=True)
class Passage:
    """One harm and how it went, in seconds from its beginning; ``well`` counts from its end."""

    harm: str
    host: str
    moved: float | None = None
    """Until the lost host's shards were held by others (or the new one had its share)."""
    noticed: float | None = None
    """Until no connection to what had vanished stood any more: a host's own, or a dead host's at PostgreSQL."""
    well: float | None = None
    """From the end of the harm until every shard lay where it should and every device had sent again."""
    began: float = 0.0
    ended: float = 0.0
    pause: float = 0.0
    """The longest time that any device was silent meanwhile."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the trial came to."""

    passages: Sequence[Passage]
    evidence: Evidence
    findings: Sequence[str]
    replaced: int
    unknown: int
    paused_itself: int


@dataclass
class Trial:
    """The trial on its scene."""

    scene: Scene
    plan: Plan
    fleet: Fleet = field(init=False)
    silences: list[Silence] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)

    def perform(self) -> Outcome:
        """All of it. Raises StackError when something does not start."""
        scene, plan = self.scene, self.plan
        self.fleet = make_fleet(devices=plan.devices, leads=plan.leads(), gap_seconds=plan.gap_seconds)
        scene.set_up()
        for name in ("one", "two", "three"):
            scene.add(name)
        for worker in scene.workers.values():
            scene.wait_ready(worker)
        began = time.time()
        self.fleet.launch(scene, name="Hosts")
        took = scene.wait(lambda: self._is_well(began), what="every device to send")
        scene.say(f"{len(scene.workers)} hosts, {plan.devices} devices: all have sent after {took:.0f} s")
        for number, harm in enumerate(plan.harms):
            self._pass(harm, number)
        self.fleet.finish(scene, seconds=SETTLE_SECONDS)
        return self._outcome()

    # -- harm ----------------------------------------------------------------------------------------------------------

    def _pass(self, harm: str, number: int) -> None:
        """One harm from its beginning until everything is well again."""
        scene = self.scene
        names = sorted(scene.workers)
        worker = scene.workers[names[number % len(names)]] if harm != "add" else scene.add(f"new{number}")
        passage = Passage(harm, worker.host.name, began=time.time())
        self.passages.append(passage)
        if harm == "add":
            scene.wait_ready(worker)
            passage.began = time.time()
            self._moved(passage, lambda: worker.host.name in self._holders(), seconds=WELL_SECONDS)
        elif harm == "kill":
            scene.kill(worker)
            self._silent(worker, harm)
            self._noticed(passage, lambda: not _at_database(worker.host.address), seconds=WELL_SECONDS)
            self._moved(passage, lambda: worker.host.name not in self._holders(), seconds=WELL_SECONDS)
        else:
            self._cut_off(worker, harm, passage)
        passage.ended = time.time()
        well = self._await(lambda: self._is_well(passage.ended), seconds=WELL_SECONDS)
        passage.well = well
        if well is None:
            what = f"{harm} {worker.host.name}: not everything works again after {WELL_SECONDS:.0f} s"
            self.strays.append(f"{what} ({dict(self._holders())})")
        if passage.moved is not None and passage.moved > MOVED_SECONDS:
            self.strays.append(f"{harm} {worker.host.name}: its sessions had moved after {passage.moved:.0f} s only")
        self.strays += scene.died()
        scene.say(_words(passage))

    def _cut_off(self, worker: Worker, harm: str, passage: Passage) -> None:
        scene, host = self.scene, worker.host
        ends = time.monotonic() + self.plan.hold_seconds
        others = self._others(harm)
        if harm == "cable":
            scene.wires.unplug(host)
        for other in others:
            scene.wires.cut(host, other)
        silence = self._silent(worker, harm)
        if harm != "gateway":
            gone = [other.address for other in self._others(harm) or (scene.wires.hub, scene.valkey)]
            self._noticed(passage, lambda: not host.connections(gone), seconds=self.plan.hold_seconds)
            self._moved(passage, lambda: host.name not in self._holders(), seconds=self.plan.hold_seconds)
        self._await(lambda: time.monotonic() > ends, seconds=self.plan.hold_seconds)
        if harm == "cable":
            scene.wires.plug(host)
        for other in others:
            scene.wires.mend(host, other)
        self.silences.remove(silence)
        self.silences.append(
            Silence(silence.host, silence.address, silence.what, began=silence.began, ended=time.time())
        )

    def _others(self, harm: str) -> list[Host]:
        places = {"postgres": self.scene.wires.hub, "valkey": self.scene.valkey, "gateway": self.scene.gateway}
        return [] if harm == "cable" else [places[what] for what in sorted(HARMS[harm])]

    def _silent(self, worker: Worker, harm: str) -> Silence:
        silence = Silence(worker.host.name, worker.host.address, HARMS[harm], began=time.time())
        self.silences.append(silence)
        return silence

    # -- looking -------------------------------------------------------------------------------------------------------

    def _noticed(self, passage: Passage, condition: Callable[[], bool], *, seconds: float) -> None:
        if self._await(condition, seconds=seconds) is None:
            self.strays.append(f"{passage.harm} {passage.host}: connections to nobody stood for {seconds:.0f} s")
        else:
            passage.noticed = time.time() - passage.began

    def _moved(self, passage: Passage, condition: Callable[[], bool], *, seconds: float) -> None:
        if self._await(condition, seconds=seconds) is None:
            self.strays.append(f"{passage.harm} {passage.host}: its sessions had not moved after {seconds:.0f} s")
        else:
            passage.moved = time.time() - passage.began

    def _await(self, condition: Callable[[], bool], *, seconds: float) -> float | None:
        """After how many seconds ``condition`` held; None if it did not in time."""
        began = time.monotonic()

        def over() -> bool:
            self.fleet.tend()
            return condition() or time.monotonic() - began > seconds

        took = self.scene.wait(over, what="", seconds=seconds + 60)
        return took if condition() else None

    def _holders(self) -> Counter[str]:
        """How many shards each host holds, by its name; "" for those that nobody holds."""
        rows = SessionShard.objects.values_list("host__name", flat=True)
        return Counter((name or "").rpartition(":")[0] for name in rows)

    def _is_well(self, since: float) -> bool:
        held = self._holders()
        even = set(held) == set(self.scene.workers) and max(held.values()) - min(held.values()) <= 1
        return even and self.fleet.all_sent_since(since)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        seen = self.scene.seen()
        evidence = gather(
            batch_id=self.fleet.batch_id,
            entries=seen.entries,
            stays=seen.stays,
            silences=self.silences,
            gaps=self.fleet.names(),
            lease_seconds=self.plan.lease_seconds,
            strays=self.strays,
        )
        for passage in self.passages:
            end = passage.ended + (passage.well or 0)
            passage.pause, _ = longest_pause(evidence, begin=passage.began, end=end)
        return Outcome(
            passages=self.passages,
            evidence=evidence,
            findings=judge(evidence),
            replaced=seen.replaced,
            unknown=sum(call.unknown for call in evidence.calls),
            paused_itself=self.fleet.paused_itself,
        )


def _at_database(address: str) -> int:
    """How many connections of a host PostgreSQL believes in."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE client_addr = %s::inet", [address])
        return int(cursor.fetchone()[0])


def _words(passage: Passage) -> str:
    def seconds(value: float | None) -> str:
        return "never" if value is None else f"{value:.0f} s"

    moved = "" if passage.harm == "gateway" else f"sessions moved after {seconds(passage.moved)}, "
    if passage.noticed is not None:
        moved = f"noticed after {seconds(passage.noticed)}, {moved}"
    return f"{passage.harm:<9} {passage.host:<6} {moved}all well {seconds(passage.well)} after its end"


def make_plan(*, harms: Sequence[str], devices: int, quick: bool) -> Plan:
    """The plan at the settings that installations have, or at shorter ones. Raises StackError."""
    if unknown := sorted(set(harms) - set(HARMS)):
        raise StackError(f"There is no harm called {', '.join(unknown)}; there are {', '.join(HARMS)}.")
    lease, session_lease, silence = (20.0, 9.0, 5) if quick else (90.0, 30.0, 10)
    return Plan(
        harms=tuple(harms),
        devices=devices,
        gap_seconds=(2.0, 3.0),
        hold_seconds=2 * session_lease + 5 if quick else 75.0,
        lease_seconds=lease,
        session_lease_seconds=session_lease,
        silence_seconds=silence,
    )
