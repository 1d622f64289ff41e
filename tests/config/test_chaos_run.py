"""A short chaos run as people start it: real servers, real harm, and the judge's word at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.chaos.plan import make_plan
from config.stack import processes, state
from tests.config.stack_support import CHECKOUT, environment_without_servers, fresh_root, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def root() -> Iterator[Path]:
    with fresh_root() as folder:
        yield folder


@contextlib.contextmanager
def chaos(*arguments: str, root: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(CHECKOUT / "manage.py"), "chaos", *arguments],
        cwd=CHECKOUT,
        env=environment_without_servers(FLOTILLA_LOCAL=str(root), **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def nothing_works_in(root: Path) -> bool:
    return not any(
        processes.identities_in(folder=folder, program=program)
        for folder, program in (
            (root / "chaos" / "valkey", "valkey-server"),
            (root / "chaos" / "postgres" / "data", "postgres"),
        )
    )


def test_ten_seconds_of_harm_end_with_a_clean_verdict(root):
    seconds, seed = 10, 5
    with chaos("--seconds", str(seconds), "--seed", str(seed), root=root) as process:
        told, _ = process.communicate(timeout=280)
    assert process.returncode == 0, told
    assert "Nothing lost, nothing twice, nothing stuck." in told
    done = [line.split(None, 1)[1] for line in told.splitlines() if line.strip()[:1].isdigit() and "  " in line]
    for fault in make_plan(seed=seed, seconds=seconds).faults:
        if fault.kind in {"kill", "valkey", "postgres", "gateway"}:
            assert any(line.startswith(f"{fault.kind} {fault.target}") for line in done), (fault, told)
    assert state.read(root / "chaos") is None
    assert nothing_works_in(root)


def test_an_interrupted_run_leaves_nothing_behind(root):
    with chaos("--seconds", "600", root=root) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "harms planned" in line:
                break
        found = state.read(root / "chaos")
        assert found is not None
        process.send_signal(signal.SIGINT)
        wait_for(lambda: process.poll() is not None, what="the end of the run", seconds=120)
        assert process.returncode == 128 + signal.SIGINT
    assert not any(processes.is_alive(who) for who in found.processes.values())
    assert nothing_works_in(root)


@pytest.mark.parametrize("arguments", [["--seconds", "1"], ["--seconds", "x"], ["--seed", "x"]])
def test_what_makes_no_sense_is_refused_before_anything_starts(arguments, root):
    with chaos(*arguments, root=root) as process:
        told, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in told
    assert not (root / "chaos").exists()


def test_nobody_destroys_the_data_of_another_stack(root):
    given = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
    with chaos("--on-these-servers", root=root, **given) as process:
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "would destroy the data of your stack" in told
