"""The part of a chaos run between the start and the judgement: harm by the plan, then calm."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from config.chaos.away import Away, ask
from config.chaos.evidence import Stuck
from config.chaos.fleet import (
    SLOW_DEVICES,
    SLOW_WEATHER,
    Fleet,
    Load,
    resume_what_paused_itself,
    slow_token,
)
from config.chaos.gather import drain
from config.chaos.incidents import Incident, Log
from config.chaos.plan import (
    AMBUSH_LEAST,
    DEVICE_WORKERS,
    GATEWAY_RULES,
    LOAD_AHEAD,
    WEATHER,
    Fault,
    Plan,
)
from config.chaos.rogue import Rogue
from config.chaos.servers import CouldNot, Servers
from config.chaos.troupe import Troupe
from config.chaos.visitor import Visitor
from config.chaos.whereabouts import OverdueWatch
from config.demo.ledger import Judge

TICK_SECONDS = 0.05
OVERDUE_LOOK_SECONDS = 5.0
ANSWER_LOOK_SECONDS = 0.25
CALM_SECONDS = 600.0
"""How long the stack may take for what is left, once nothing is done to it any more: slow devices have long queues.
Whatever makes no step for much less is stuck."""


@dataclass
class Performance:
    """The part between the start and the judgement."""

    plan: Plan
    troupe: Troupe
    servers: Servers
    witness: Judge
    log: Log
    fleet: Fleet
    load: Load
    visitor: Visitor
    check: Callable[[], None]
    patience: float
    rogues: list[Rogue] = field(default_factory=list)
    left_out: int = 0
    """Campaigns that were not launched, because too much was waiting."""
    calm_at: float = float("inf")
    """When harm was over, by the wall clock."""
    _ambush_ends: float = 0.0
    _rules: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _ends: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    """What to do at which moment of the monotonic clock to end a harm that lasts."""

    def harm(self) -> list[Stuck]:
        """Follow the plan to its end, and until every harm is over; returns what got stuck meanwhile."""
        watch = OverdueWatch(log=self.log)
        started = looked = time.monotonic()
        faults, launches = deque(self.plan.faults), deque(self.plan.launches)
        singles = 0
        self._set_rules()
        self.log.start()
        while time.monotonic() - started < self.plan.seconds or faults or self._ends or self.troupe.frozen:
            self.check()
            self.troupe.tick()
            now = time.monotonic()
            for end in [end for at, end in self._ends if at <= now]:
                end()
            self._ends = [(at, end) for at, end in self._ends if at > now]
            while launches and launches[0].at <= now - started:
                group = launches.popleft().group
                if group is None:
                    singles += 1
                    self.visitor.single(singles)
                elif self._is_behind():
                    self.left_out += 1
                    self.fleet.leave_out(group)
                else:
                    self.load.campaign(group)
            while faults and faults[0].at <= now - started:
                self._do(faults.popleft())
            if now < self._ambush_ends:
                self._spring_ambush()
            if now - looked > OVERDUE_LOOK_SECONDS:
                looked = now
                watch.look()
            time.sleep(TICK_SECONDS)
        return watch.stuck

    def calm(self) -> list[Stuck]:
        """Nothing is done to the stack any more: wait until it has settled everything; returns what it did not."""
        self.witness.set_faults([])
        late = self._disarm()
        self.calm_at = time.time()
        self.log.tell("calm: nothing is done to the stack any more")
        late += self._orders_through()
        late += drain(check=self._tend_as_operators, seconds=CALM_SECONDS, patience=self.patience)
        self.log.tell("every message is settled" if not late else "something is stuck")
        return late

    def _disarm(self) -> list[Stuck]:
        """Replace the programs with failpoints; returns those that did not end when asked to."""
        self.troupe.disarm()
        ends = time.monotonic() + self.patience
        while self.troupe.armed or self.troupe.frozen:
            self._tend()
            if time.monotonic() > ends:
                stuck = self.troupe.armed
                for name in stuck:
                    self.troupe.kill(name)
                    self.log.begin("kill", name)
                return [Stuck(f"{name} did not end within {self.patience:.0f} s of SIGTERM") for name in stuck]
            time.sleep(TICK_SECONDS)
        return []

    def _orders_through(self) -> list[Stuck]:
        """Wait until everything that was ordered is launched, paused, resumed or sent; returns what does not end."""
        ends = time.monotonic() + self.patience
        while self.load.is_alive() or self.visitor.is_alive():
            self._tend()
            if time.monotonic() > ends:
                waiting = [thread.name for thread in (self.load, self.visitor) if thread.is_alive()]
                return [Stuck(f"the {name} does not get its orders through") for name in waiting]
            time.sleep(TICK_SECONDS)
        return []

    def _is_behind(self) -> bool:
        try:
            return ask(self.fleet.backlog) > LOAD_AHEAD
        except Away:
            return False

    def _tend(self) -> None:
        self.check()
        self.troupe.tick()

    def _tend_as_operators(self) -> None:
        self._tend()
        with suppress(Away):
            ask(resume_what_paused_itself)

    # -- harm ----------------------------------------------------------------------------------------------------------

    def _do(self, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                if self.troupe.kill(fault.target):
                    self.log.begin("kill", fault.target)
            case "term":
                if self.troupe.terminate(fault.target):
                    self.log.begin("term", fault.target)
            case "freeze":
                self.troupe.freeze(fault.target, seconds=fault.seconds)
            case "gateway":
                self._weather(fault)
            case "fleet":
                self._fleet(fault)
            case "rogue":
                self._rogue(fault)
            case "ambush":
                self._ambush_ends = time.monotonic() + fault.seconds
            case server:
                self._strike(server, fault)

    def _spring_ambush(self) -> None:
        """Kill both device workers once several slow sends are under way."""
        try:
            ready = ask(self.fleet.slow_sends) >= AMBUSH_LEAST
        except Away:
            return
        if ready and not any(
            self.troupe.sleeps(worker) for worker in DEVICE_WORKERS
        ):  # who sleeps outlives the leases of its sends, and then anything goes
            self._ambush_ends = 0.0
            for worker in DEVICE_WORKERS:
                if self.troupe.kill(worker):
                    self.log.begin("kill", worker, note="ambush")

    def _strike(self, server: str, fault: Fault) -> None:
        incident = self.log.begin(server, fault.target, lasts=fault.seconds > 0)
        try:
            self.servers.strike(server, fault.target, seconds=fault.seconds)
        except CouldNot as reason:
            self.log.forget(incident, str(reason))
            return
        if server == "postgres" and not fault.seconds:
            incident.end = None
            self._until_it_answers(incident)
        if fault.seconds:

            def over() -> None:
                if server == "postgres":
                    self.servers.release()
                self.log.end(incident)

            self._later(fault.seconds, over)

    def _until_it_answers(self, incident: Incident) -> None:
        """A database that was shot takes no record until it has recovered, and that takes as long as it takes."""

        def look() -> None:
            if self.servers.answers():
                self.log.end(incident)
            else:
                self._later(ANSWER_LOOK_SECONDS, look)

        self._later(ANSWER_LOOK_SECONDS, look)

    def _weather(self, fault: Fault) -> None:
        self._rules[id(fault)] = {**GATEWAY_RULES[fault.target], "seed": fault.seed}
        self._set_rules()
        incident = self.log.begin("gateway", fault.target, lasts=True)

        def clear() -> None:
            del self._rules[id(fault)]
            self._set_rules()
            self.log.end(incident)

        self._later(fault.seconds, clear)

    def _fleet(self, fault: Fault) -> None:
        load = self.load
        momentary: dict[str, Callable[[], None]] = {
            "add_devices": load.add_devices,
            "remove_devices": load.remove_devices,
            "cancel_batch": lambda: load.cancel_batch(seed=fault.seed),
            "opt_out": load.opt_out,
        }
        if fault.target in momentary:
            momentary[fault.target]()
            self.log.begin("fleet", fault.target)
            return
        lasting: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "pause_devices": (lambda: load.pause_devices(seed=fault.seed), load.resume_devices),
            "pause_batch": (lambda: load.pause_batch(seed=fault.seed), load.resume_batches),
            "halt": (load.halt, load.end_halt),
        }
        begin, end = lasting[fault.target]
        begin()
        incident = self.log.begin("fleet", fault.target, lasts=True)

        def over() -> None:
            end()
            self.log.end(incident)

        self._later(fault.seconds, over)

    def _rogue(self, fault: Fault) -> None:
        rogue = Rogue()
        self.rogues.append(rogue)
        rogue.start()
        incident = self.log.begin("rogue", fault.target, lasts=True)

        def over() -> None:
            rogue.end()
            self.log.end(incident)

        self._later(fault.seconds, over)

    def _later(self, seconds: float, end: Callable[[], None]) -> None:
        self._ends.append((time.monotonic() + seconds, end))

    def _set_rules(self) -> None:
        always = [{**rule, "seed": self.plan.seed} for rule in WEATHER]
        always += [{**SLOW_WEATHER, "device": slow_token(n), "seed": self.plan.seed + n} for n in range(SLOW_DEVICES)]
        self.witness.set_faults([*map(dict, self._rules.values()), *always])
