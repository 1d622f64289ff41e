"""Programs of an installation in processes of their own, told where the test's servers are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from django.conf import settings
from django.db import connection

from messaging.dispatch.publish import all_bells
from tests.simulator_process import Simulator, wait_until

ROOT = Path(__file__).resolve().parents[1]
CELERY = (sys.executable, "-m", "celery", "-A", "config")
START_SECONDS = 100
END_SECONDS = 40


def database_url() -> str:
    """The test database, for a process of its own."""
    params = connection.settings_dict
    user = quote(params["USER"], safe="")
    password = f":{quote(params['PASSWORD'], safe='')}" if params["PASSWORD"] else ""
    host, port = params["HOST"], params.get("PORT") or ""
    if host.startswith("/"):
        tail = f"?host={quote(host, safe='')}" + (f"&port={port}" if port else "")
        return f"postgresql://{user}{password}@/{params['NAME']}{tail}"
    return f"postgresql://{user}{password}@{host}{f':{port}' if port else ''}/{params['NAME']}"


def environment_of(simulator: Simulator, more: Mapping[str, str]) -> dict[str, str]:
    """What a program is told; ``more`` goes before everything."""
    return {
        **os.environ,
        "DATABASE_URL": database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "FLOTILLA_GATEWAY_URLS": f"simulator={simulator.url}",
        "FLOTILLA_LOG_LEVEL": "INFO",
        **more,
    }


def start(argv: Sequence[str], *, log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program; what it says goes behind what is in ``log``."""
    with log.open("ab") as file:
        return subprocess.Popen(argv, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)


def start_worker(
    simulator: Simulator, log: Path, *, queues: Sequence[str], threads: int = 8, **environment: str
) -> subprocess.Popen[bytes]:
    """Start a worker of these queues, as the stack does."""
    argv = [*CELERY, "worker", "-P", "threads", "-c", str(threads), "-Q", ",".join(queues), "-n", f"{log.stem}@%h"]
    argv += ["--without-gossip", "--without-mingle", "-l", "INFO"]
    return start(argv, log=log, env=environment_of(simulator, environment))


def end(process: subprocess.Popen[bytes]) -> int:
    """End it politely, if it still runs; its exit status."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(10)


@contextmanager
def worker(
    simulator: Simulator, log: Path, *, queues: Sequence[str], threads: int = 8, polite: bool = True, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is ready; stopped (or found dead) at the end. ``polite``: it may end what it is at."""
    process = start_worker(simulator, log, queues=queues, threads=threads, **environment)
    try:
        wait_until(lambda: " ready." in log.read_text(), what="the worker to be ready", seconds=START_SECONDS)
        yield process
    finally:
        if not polite:
            process.kill()
        end(process)


@contextmanager
def device_worker(
    simulator: Simulator, log: Path, *, threads: int = 8, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker over all bells."""
    with worker(simulator, log, queues=all_bells(), threads=threads, **environment) as process:
        yield process


@contextmanager
def another_beat(
    simulator: Simulator, folder: Path, name: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """One more beat; ``name`` is that of its log and of the schedule that it keeps."""
    argv = (*CELERY, "beat", "-s", str(folder / f"{name}-schedule"), "--pidfile=", "-l", "WARNING")
    process = start(argv, log=folder / f"{name}.log", env=environment_of(simulator, environment))
    try:
        yield process
    finally:
        end(process)


@contextmanager
def worker_and_beat(simulator: Simulator, folder: Path, **environment: str) -> Iterator[Path]:
    """A worker of all queues but those of sessions, and beat; yields the worker's log."""
    environment = {
        "FLOTILLA_RETRY_MINUTES": "0.02,0.05,0.1,0.2,0.5",
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    log = folder / "worker.log"
    with (
        another_beat(simulator, folder, "beat", **environment),
        worker(simulator, log, queues=("control", *all_bells()), threads=12, **environment),
    ):
        yield log
