"""Programs that are started, watched, started again and stopped: with real processes throughout."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from config.stack import processes
from config.stack.children import Children
from config.stack.errors import StackError
from config.stack.ports import any_free_port, is_free, pick
from config.stack.processes import Identity
from config.stack.programs import PREFERRED, choose_ports, phones, programs
from config.stack.supervisor import LOOP_DEATHS, Program, Supervisor, backoff_seconds
from messaging.simulator.phones import parse_settings
from tests.config.stack_support import CHECKOUT, environment_without_servers, identity, wait_for, wait_gone


class Clock:
    """Time that only moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def children() -> Iterator[Children]:
    children = Children()
    yield children
    children.close()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shell(name: str, script: str, **more: object) -> Program:
    return Program(name=name, argv=("/bin/sh", "-c", script), env={"PATH": os.defpath}, **more)  # type: ignore[arg-type]


def supervise(
    programs: list[Program], *, children: Children, folder: Path, said: list[str], clock: Clock | None = None
) -> Supervisor:
    supervisor = Supervisor(
        programs=programs,
        children=children,
        logs=folder,
        say=said.append,
        cwd=folder,
        clock=clock or time.monotonic,
    )
    supervisor.start()
    return supervisor


def tick_until_said(supervisor: Supervisor, said: list[str], words: str) -> None:
    def heard() -> bool:
        supervisor.tick()
        return any(words in line for line in said)

    wait_for(heard, what=f"“{words}” among {said}")


def test_ready_is_said_when_the_log_says_so(children: Children, tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "a.log").write_text("open for business, said an earlier run\n")
    program = shell(
        "a",
        "until [ -e go ]; do sleep 0.01; done; echo open for business; exec sleep 600",
        ready=lambda log: "open for business" in log,
        url="http://127.0.0.1:1",
    )
    supervisor = supervise([program], children=children, folder=tmp_path, said=said)
    pid = supervisor.pid("a")
    assert pid
    supervisor.tick()
    assert not supervisor.all_ready()
    assert said == []
    (tmp_path / "go").touch()
    supervisor.wait_ready(seconds=60)
    assert said == ["a                running  http://127.0.0.1:1"]


def test_a_program_that_dies_is_started_again_after_a_while(
    children: Children, tmp_path: Path, said: list[str], clock: Clock
) -> None:
    supervisor = supervise([shell("a", "exec sleep 600")], children=children, folder=tmp_path, said=said, clock=clock)
    first = supervisor.pid("a")
    assert first
    os.kill(first, signal.SIGKILL)
    tick_until_said(supervisor, said, "died (signal 9), starts again in 1 s")
    supervisor.tick()
    assert supervisor.pid("a") is None
    clock.now += 1.0
    supervisor.tick()
    second = supervisor.pid("a")
    assert second not in {None, first}


def test_a_crash_loop_is_told_in_one_line_with_the_end_of_the_log(
    children: Children, tmp_path: Path, said: list[str], clock: Clock
) -> None:
    program = shell("a", "echo starting; echo the port is taken; exit 3", ready=lambda log: False)
    supervisor = supervise([program], children=children, folder=tmp_path, said=said, clock=clock)

    def died(times: int) -> bool:
        supervisor.tick()
        return len(said) >= times

    for death in range(1, LOOP_DEATHS + 2):
        wait_for(partial(died, death), what=f"death {death}")
        clock.now += backoff_seconds(deaths=death)
    assert "keeps dying" not in said[LOOP_DEATHS - 2]
    for line in said[LOOP_DEATHS - 1 :]:
        assert "keeps dying" in line
        assert "exit 3" in line
        assert "the port is taken" in line
        assert str(tmp_path / "a.log") in line
        assert "\n" not in line
    with pytest.raises(StackError, match="a does not start"):
        supervisor.wait_ready(seconds=60)


def test_a_program_that_is_never_ready_is_named(children: Children, tmp_path: Path, said: list[str]) -> None:
    program = shell("slowpoke", "exec sleep 600", ready=lambda log: False)
    supervisor = supervise([program], children=children, folder=tmp_path, said=said)
    with pytest.raises(StackError, match="slowpoke"):
        supervisor.wait_ready(seconds=0.2)


def test_a_long_life_forgives_earlier_deaths(children: Children, tmp_path: Path, said: list[str], clock: Clock) -> None:
    supervisor = supervise([shell("a", "exec sleep 600")], children=children, folder=tmp_path, said=said, clock=clock)
    for _ in range(4):
        pid = supervisor.pid("a")
        assert pid
        who = identity(pid)
        clock.now += 100.0
        os.kill(pid, signal.SIGKILL)
        wait_gone(who)
        supervisor.tick()
        clock.now += 1.0
        supervisor.tick()
    assert all("starts again in 1 s" in line for line in said if "died" in line)
    assert not [line for line in said if "keeps dying" in line]


def test_waits_grow_to_half_a_minute() -> None:
    assert [backoff_seconds(deaths=deaths) for deaths in (1, 2, 3, 4, 5, 6, 60)] == [1, 2, 4, 8, 16, 30, 30]


def test_the_last_started_is_stopped_first(children: Children, tmp_path: Path, said: list[str]) -> None:
    script = "trap 'echo {0} >>order; exit' TERM; echo up; while :; do sleep 0.01; done"
    names = ["a", "b", "c"]
    supervisor = supervise(
        [shell(name, script.format(name), ready=lambda log: "up" in log) for name in names],
        children=children,
        folder=tmp_path,
        said=said,
    )
    supervisor.wait_ready(seconds=60)
    supervisor.stop()
    assert (tmp_path / "order").read_text().split() == ["c", "b", "a"]


def test_a_deaf_program_and_its_offspring_are_killed(children: Children, tmp_path: Path, said: list[str]) -> None:
    program = shell(
        "deaf",
        "trap '' TERM; (while :; do sleep 1; done) & echo $! >offspring; echo up; while :; do sleep 1; done",
        ready=lambda log: "up" in log,
        stop_seconds=0.2,
    )
    supervisor = supervise([program], children=children, folder=tmp_path, said=said)
    supervisor.wait_ready(seconds=60)
    pid = supervisor.pid("deaf")
    assert pid
    both = [identity(pid), identity(int((tmp_path / "offspring").read_text()))]
    supervisor.stop()
    wait_gone(*both)


def test_a_hurried_stop_does_not_wait_out_the_grace(children: Children, tmp_path: Path, said: list[str]) -> None:
    program = shell(
        "deaf", "trap '' TERM; echo up; while :; do sleep 1; done", ready=lambda log: "up" in log, stop_seconds=3600
    )
    supervisor = supervise([program], children=children, folder=tmp_path, said=said)
    supervisor.wait_ready(seconds=60)
    supervisor.stop(hurried=lambda: True)  # one hour of grace would run into the test's own limit
    assert supervisor.pid("deaf") is None


def test_offspring_of_a_program_that_died_does_not_linger(children: Children, tmp_path: Path, said: list[str]) -> None:
    program = shell("a", "sleep 600 & echo $! >offspring; echo up; wait", ready=lambda log: "up" in log)
    supervisor = supervise([program], children=children, folder=tmp_path, said=said)
    supervisor.wait_ready(seconds=60)
    offspring, pid = identity(int((tmp_path / "offspring").read_text())), supervisor.pid("a")
    assert pid
    os.kill(pid, signal.SIGKILL)
    tick_until_said(supervisor, said, "died")
    wait_gone(offspring)


OWNER = """
import sys
from pathlib import Path
from config.stack.children import Children
from config.stack.processes import Ladder

children = Children()
folder = Path(sys.argv[1])
for name, script in (("polite", "exec sleep 600"), ("deaf", "trap '' TERM; sleep 600 & while :; do sleep 1; done")):
    child = children.start(
        name=name, argv=["/bin/sh", "-c", script], ladder=Ladder(steps=((15, 0.5),)), env={"PATH": "/bin:/usr/bin"},
        cwd=folder, log=folder / f"{name}.log",
    )
    print(child.pid, flush=True)
print(children.guard.pid, flush=True)
sys.stdin.read()
children.close()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_no_child_outlives_its_owner(tmp_path: Path, how: signal.Signals | None) -> None:
    """Killed, terminated without a handler, or ended in good order: nothing remains."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env=environment_without_servers(),
    ) as owner:
        assert owner.stdin
        assert owner.stdout
        started = [identity(int(owner.stdout.readline())) for _ in range(3)]
        if how is None:
            owner.stdin.close()
        else:
            owner.send_signal(how)
        owner.wait(timeout=60)
        wait_gone(*started)


def test_the_guard_spares_a_stranger_with_a_recycled_pid(tmp_path: Path, children: Children) -> None:
    """An order that names a pid which belongs to somebody else by now is not carried out."""
    stranger = children.start(
        name="stranger",
        argv=["/bin/sleep", "600"],
        ladder=processes.Ladder(steps=((signal.SIGTERM, 5.0),)),
        env={},
        cwd=tmp_path,
        log=tmp_path / "stranger.log",
    )
    order = processes.watch_line(Identity(pid=stranger.pid, started="an earlier life"), stranger.ladder)
    subprocess.run(
        [sys.executable, "-I", "-S", processes.__file__, str(os.getpid())], input=order.encode(), check=True, timeout=60
    )
    assert processes.is_alive(stranger.identity)


def test_a_preferred_port_in_use_gives_the_next_and_one_asked_for_gives_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert pick(name="web", preferred=port) > port
        with pytest.raises(StackError, match=f"Port {port} for web is in use"):
            pick(name="web", preferred=8000, asked=port)


def test_ports_never_collide_and_changes_are_said(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    for name in ("FLOTILLA_PORT", "FLOTILLA_FLOWER_PORT", "FLOTILLA_SIMULATOR_PORT"):
        monkeypatch.delenv(name, raising=False)
    # Flower's usual port is asked for by the web application, so Flower moves on.
    if not is_free(PREFERRED.flower):
        pytest.skip(f"port {PREFERRED.flower} is in use on this machine")
    ports = choose_ports(say=said.append, web=PREFERRED.flower, simulator=any_free_port())
    assert ports.web == PREFERRED.flower
    assert len({ports.web, ports.flower, ports.simulator}) == 3
    assert [line for line in said if f"flower is on {ports.flower}" in line]
    monkeypatch.setenv("FLOTILLA_PORT", "http")
    with pytest.raises(StackError, match="FLOTILLA_PORT must be a port"):
        choose_ports(say=said.append)


def test_the_simulator_gets_no_secret_of_ours(tmp_path: Path) -> None:
    environment = {
        "DATABASE_URL": "d",
        "REDIS_URL": "r",
        "FLOTILLA_SECRET_KEY": "s",
        "FLOTILLA_FIELD_KEYS": "f",
        "FLOTILLA_SUPPRESSION_KEYS": "p",
        "FLOTILLA_FLOWER_PASSWORD": "word",
        "FLOTILLA_WEBHOOK_SECRETS": "other=o,simulator=w3b",
        "SIMULATOR_CONTROL_TOKEN": "t",
    }
    simulator = phones(ports=PREFERRED, environment=environment)
    made = {
        program.name: program
        for program in programs(
            root=tmp_path, ports=PREFERRED, environment=environment, bells=["devices.http.0"], simulator=simulator
        )
    }
    webhook = json.loads(made["simulator"].env["SIMULATOR_WEBHOOK"])
    assert (webhook["url"], webhook["secret"]) == (f"{PREFERRED.urls()['web']}/hooks/simulator", "w3b")
    assert parse_settings(webhook, allow_remote=False).delivered > 0
    assert made["web"].env["FLOTILLA_WEBHOOK_SECRETS"] == "other=o,simulator=w3b"
    assert phones(ports=PREFERRED, environment={"FLOTILLA_WEBHOOK_SECRETS": "other=o"}) == {}
    assert made["simulator"].env.get("SIMULATOR_CONTROL_TOKEN") == "t"
    assert not made["simulator"].env.keys() & {
        "DATABASE_URL",
        "REDIS_URL",
        "FLOTILLA_SECRET_KEY",
        "FLOTILLA_FIELD_KEYS",
        "FLOTILLA_WEBHOOK_SECRETS",
        "FLOTILLA_SUPPRESSION_KEYS",
    }
    assert made["flower"].env["FLOWER_BASIC_AUTH"] == "admin:word"
    for program in made.values():
        assert not {"word", "t"} & set(program.argv)
        assert "word" not in repr(program)
