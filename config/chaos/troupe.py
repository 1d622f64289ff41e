"""Our own programs in a chaos run: two device workers, two control workers, two beats, the web, and the simulator.

They are started as the stack starts them. Whoever dies is started again after a second, whoever stops by a failpoint is
woken again; each death that was not our doing is told.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from config.chaos import skew
from config.chaos.incidents import Incident, Log
from config.chaos.plan import FREEZE_SECONDS, WORKERS, Plan
from config.stack import processes
from config.stack.children import Child, Children
from config.stack.errors import StackError
from config.stack.places import CHECKOUT
from config.stack.processes import Ladder
from config.stack.programs import Ports, device_bells, programs
from config.stack.supervisor import Program
from messaging import failpoints

APP = "config.chaos.worker_app"
SIMULATOR = "simulator"
WEB = "web"
WEB_APP = "config.chaos.web_app:application"
BEATS = ("beat-a", "beat-b")
AGAIN_SECONDS = 1.0
LOOK_SECONDS = 0.25
STOP_SECONDS = 20.0
KILLED = "killed"
_FAILPOINT = re.compile(r"^failpoint (\w+) (\w+)$", re.MULTILINE)


@dataclass(slots=True)
class Part:
    """One program and what is going on with it."""

    program: Program
    child: Child | None = None
    starts: int = 0
    ready: bool = False
    has_failpoints: bool = False
    due: float = 0.0
    expected: str = ""
    """Why it is about to end, if that is our doing."""
    freeze: Incident | None = None
    wakes: float = 0.0


def cast(*, root: Path, ports: Ports, environment: Mapping[str, str], shards: int) -> list[Program]:
    """The programs, copies of those the stack knows, in the order of their start."""
    known = {
        program.name: program
        for program in programs(root=root, ports=ports, environment=environment, bells=device_bells(shards=shards))
    }
    found = [known[SIMULATOR]]
    for name in WORKERS:
        original = known[f"worker-{name.partition('-')[0]}"]
        found.append(replace(original, name=name, argv=_with(original.argv, {"-A": APP, "-n": f"{name}@%h"})))
    for name in BEATS:
        original = known["beat"]
        found.append(replace(original, name=name, argv=_with(original.argv, {"-A": APP, "-s": str(root / name)})))
    web = known[WEB]
    argv = tuple(WEB_APP if part == "config.wsgi:application" else part for part in web.argv)
    return [*found, replace(web, argv=argv)]


def _with(argv: tuple[str, ...], options: Mapping[str, str]) -> tuple[str, ...]:
    """``argv`` with other values after these options."""
    before = ("", *argv)
    return tuple(options.get(option, value) for option, value in zip(before, argv, strict=False))


class Troupe:
    """Keeps the programs running. Used from one thread."""

    def __init__(self, *, parts: list[Program], children: Children, logs: Path, plan: Plan, log: Log) -> None:
        self._parts = {program.name: Part(program) for program in parts}
        self._children = children
        self._logs = logs
        self._plan = plan
        self._log = log
        self._calm = False
        self._look_at = 0.0

    def start(self, *, seconds: float, check: Callable[[], None]) -> None:
        """Start everything and wait until it is ready. Raises StackError with the program that is not."""
        for part in self._parts.values():
            self._launch(part)
        self.wait_ready(seconds=seconds, check=check)

    def wait_ready(self, *, seconds: float, check: Callable[[], None]) -> None:
        """Wait until every program is up. Raises StackError with the one that is not."""
        ends = time.monotonic() + seconds
        while not all(part.ready for part in self._parts.values()):
            check()
            self.tick()
            if time.monotonic() > ends:
                late = ", ".join(name for name, part in self._parts.items() if not part.ready)
                raise StackError(f"Not ready after {seconds:.0f} seconds: {late}; the logs are in {self._logs}.")
            time.sleep(0.05)

    def tick(self) -> None:
        """One round: notice who died, stopped or became ready, start and wake whose time has come."""
        now = time.monotonic()
        look = now >= self._look_at
        if look:
            self._look_at = now + LOOK_SECONDS
        for part in self._parts.values():
            if part.child is None:
                if now >= part.due:
                    self._launch(part)
            elif part.child.exit_code() is not None:
                self._died(part, part.child)
            elif part.freeze is not None:
                if now >= part.wakes:
                    self._wake(part)
            elif look:
                self._look(part, part.child)

    def kill(self, name: str) -> bool:
        """SIGKILL; False when it does not run just now."""
        return self._signal(name, signal.SIGKILL, KILLED)

    def end_for_good(self) -> None:
        """Kill everybody but the simulator. No further rounds after this: they would start everybody again."""
        for name in self._parts:
            if name != SIMULATOR:
                self.kill(name)

    def terminate(self, name: str) -> bool:
        """SIGTERM, as in a rolling restart; False when it does not run just now."""
        return self._signal(name, signal.SIGTERM, "terminated")

    def freeze(self, name: str, *, seconds: float) -> bool:
        """SIGSTOP, and SIGCONT after ``seconds``; False when it does not run, or is frozen already."""
        part = self._parts[name]
        if part.child is None or part.freeze or not processes.send(part.child.identity, signal.SIGSTOP):
            return False
        part.freeze = self._log.begin("freeze", name, note=f"{seconds:.1f} s", lasts=True)
        part.wakes = time.monotonic() + seconds
        return True

    @property
    def frozen(self) -> bool:
        """Whether anybody sleeps."""
        return any(part.freeze for part in self._parts.values())

    def sleeps(self, name: str) -> bool:
        """Whether this one does."""
        return self._parts[name].freeze is not None

    def disarm(self) -> None:
        """Start again, politely, whatever has failpoints; until that is done (see ``armed``) they may still strike."""
        self._calm = True
        for name in self.armed:
            self.terminate(name)

    @property
    def armed(self) -> list[str]:
        """Programs that run with failpoints."""
        return [name for name, part in self._parts.items() if part.child is not None and part.has_failpoints]

    def _signal(self, name: str, number: int, expected: str) -> bool:
        part = self._parts[name]
        if part.child is None or not processes.send(part.child.identity, number):
            return False
        part.expected = expected
        return True

    def _launch(self, part: Part) -> None:
        program = part.program
        env = dict(program.env)
        if program.name in self._plan.skews:
            env[skew.VARIABLE] = str(self._plan.skews[program.name])
        spec = self._plan.arms.get(program.name)
        part.has_failpoints = bool(spec) and not self._calm
        if part.has_failpoints:
            # With one seed for all lives, a process that dies at its third step would die there each time.
            env[failpoints.VARIABLE] = f"seed={self._plan.seed}-{program.name}-{part.starts},{spec}"
        part.child = self._children.start(
            name=program.name,
            argv=program.argv,
            ladder=Ladder(steps=((program.stop_signal, STOP_SECONDS),)),
            env=env,
            cwd=CHECKOUT,
            log=self._logs / f"{program.name}.log",
        )
        part.starts += 1
        part.ready, part.expected = False, ""

    def _look(self, part: Part, child: Child) -> None:
        if not part.ready and (part.program.ready is None or part.program.ready(child.logged())):
            part.ready = True
        if part.has_failpoints and _is_stopped(child.pid):
            self._log.begin("failpoint", part.program.name, note=_last_failpoint(child))
            seconds = sum(FREEZE_SECONDS) / 2
            part.freeze = self._log.begin("freeze", part.program.name, note="by failpoint", lasts=True)
            part.freeze.begin -= 2 * LOOK_SECONDS  # it may have slept since just after the last look
            part.wakes = time.monotonic() + seconds

    def _wake(self, part: Part) -> None:
        if part.child is not None:
            processes.send(part.child.identity, signal.SIGCONT)
        if part.freeze is not None:
            self._log.end(part.freeze)
        part.freeze = None

    def _died(self, part: Part, child: Child) -> None:
        name, code, words = part.program.name, child.exit_code(), child.last_words()
        struck = _last_failpoint(child) if code == -signal.SIGKILL and part.expected != KILLED else ""
        self._children.forget(child)
        if part.freeze is not None:
            self._log.end(part.freeze)
        part.child, part.ready, part.freeze = None, False, None
        if name == SIMULATOR:
            raise StackError(f"The simulator, which is the judge, ended ({code}): {words}")
        if struck:
            self._log.begin("failpoint", name, note=struck)
        elif not part.expected:
            self._log.begin("died by itself", name, note=f"exit {code}: {words[:160]}")
        part.due = time.monotonic() + AGAIN_SECONDS


def _last_failpoint(child: Child) -> str:
    found = _FAILPOINT.findall(child.logged())
    return f"{found[-1][0]}, {found[-1][1]}" if found else ""


def _is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal: state T in proc_pid_stat(5). Never true where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return bool(fields) and fields[0] == "T"
