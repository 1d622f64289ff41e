"""Real programs of an installation for a test: a worker for everything and beat, told where their servers are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from django.conf import settings

from messaging.dispatch.publish import all_bells
from tests.simulator_process import Simulator, wait_until

ROOT = Path(__file__).resolve().parents[2]
CELERY = (sys.executable, "-m", "celery", "-A", "config")
START_SECONDS = 100


@contextmanager
def worker_and_beat(simulator: Simulator, folder: Path, **environment: str) -> Iterator[Path]:
    """One worker of all queues but those of sessions, and beat; yields the worker's log."""
    env = _environment(simulator, environment)
    queues = ",".join(("control", *all_bells()))
    worker = (*CELERY, "worker", "-P", "threads", "-c", "12", "-Q", queues, "-n", f"{folder.name}@%h")
    log = folder / "worker.log"
    with ExitStack() as programs:
        programs.enter_context(
            _running((*worker, "--without-gossip", "--without-mingle", "-l", "INFO"), env, folder / "worker.log")
        )
        programs.enter_context(another_beat(simulator, folder, "beat", **environment))
        wait_until(lambda: " ready." in log.read_text(), what="the worker to be ready", seconds=START_SECONDS)
        yield log


@contextmanager
def another_beat(simulator: Simulator, folder: Path, name: str, **environment: str) -> Iterator[None]:
    """One more beat; ``name`` is that of its log and of the schedule that it keeps."""
    argv = (*CELERY, "beat", "-s", str(folder / f"{name}-schedule"), "--pidfile=", "-l", "WARNING")
    with _running(argv, _environment(simulator, environment), folder / f"{name}.log"):
        yield


def _environment(simulator: Simulator, more: Mapping[str, str]) -> dict[str, str]:
    return {
        **os.environ,
        "REDIS_URL": settings.REDIS_URL,
        "FLOTILLA_GATEWAY_URLS": f"simulator={simulator.url}",
        "FLOTILLA_RETRY_MINUTES": "0.02,0.05,0.1,0.2,0.5",
        "FLOTILLA_LOG_LEVEL": "INFO",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


@contextmanager
def _running(argv: tuple[str, ...], env: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
