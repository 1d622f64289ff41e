"""What runs on top of the servers in ``up`` and in the demo, and how to tell that it is ready."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.stack.errors import StackError
from config.stack.ports import LOOPBACK, answers, pick
from config.stack.supervisor import Program

FLOWER_USER = "admin"
DEVICE_THREADS = 32
SESSION_THREADS = 16
CONTROL_THREADS = 4
PAIRING_THREADS = 8
"""Each phone that is being linked takes one, and a process of its own, for up to four minutes."""


REQUEST_LINE_BYTES = 8_190
"""Method, address with its query, and protocol; nginx takes 8 KiB as well."""
FIELDS, FIELD_BYTES = 100, 8_190
"""How many header fields, and how long each may be with its name."""
REQUEST_LIMITS = (
    *("--worker-class", "config.web_worker.Worker", "--limit-request-line", str(REQUEST_LINE_BYTES)),
    *("--limit-request-fields", str(FIELDS), "--limit-request-field_size", str(FIELD_BYTES)),
)
"""What gunicorn is told wherever the web application is started."""


@dataclass(frozen=True)
class Ports:
    """Where web, Flower and the simulator listen, on the loopback address."""

    web: int
    flower: int
    simulator: int

    def urls(self) -> dict[str, str]:
        return {
            "web": f"http://{LOOPBACK}:{self.web}",
            "flower": f"http://{LOOPBACK}:{self.flower}",
            "simulator": f"http://{LOOPBACK}:{self.simulator}",
        }


PHONES = {
    "receipts": {"delivered": 0.97, "read": 0.6, "delay_seconds": [0.2, 4]},
    "replies": {"probability": 0.03, "texts": ["Thank you!", "Tell me more", "Who is this?"], "delay_seconds": [2, 8]},
}
"""How people behave at the local stack's simulator."""

PREFERRED = Ports(web=8000, flower=5555, simulator=8900)


def asked_port(name: str) -> int | None:
    """The port in an environment variable; None when it is not set."""
    value = os.environ.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit()):
        raise StackError(f"{name} must be a port, not “{value}”.")
    return int(value)


def choose_ports(
    *, say: Callable[[str], None], web: int | None = None, flower: int | None = None, simulator: int | None = None
) -> Ports:
    """Ports asked for, by argument or by FLOTILLA_PORT, FLOTILLA_FLOWER_PORT, FLOTILLA_SIMULATOR_PORT, else free ones.

    ``say`` hears of each preferred port that was taken. Raises :class:`StackError` when one asked for is in use.
    """
    chosen: dict[str, int] = {}
    wanted = (
        ("web", web or asked_port("FLOTILLA_PORT"), PREFERRED.web),
        ("flower", flower or asked_port("FLOTILLA_FLOWER_PORT"), PREFERRED.flower),
        ("simulator", simulator or asked_port("FLOTILLA_SIMULATOR_PORT"), PREFERRED.simulator),
    )
    # Those asked for come first, so that a free choice never takes one of them away.
    for name, asked, preferred in sorted(wanted, key=lambda item: item[1] is None):
        port = pick(name=name, preferred=preferred, asked=asked, taken=frozenset(chosen.values()))
        if asked is None and port != preferred:
            say(f"Port {preferred} is in use, so {name} is on {port}.")
        chosen[name] = port
    return Ports(**chosen)


def device_bells(*, shards: int) -> tuple[str, ...]:
    """The queue names that workers of platform devices wait on, one per shard. Those of sessions go by lease."""
    return tuple(f"devices.http.{shard}" for shard in range(shards))


def _worker_is_ready(log: str) -> bool:
    """Celery says so once it consumes."""
    return " ready." in log


def _simulator_is_ready(log: str) -> bool:
    """It prints one JSON line with its port."""
    for line in log.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and "port" in told:
            return True
    return False


def _listens(port: int) -> Callable[[str], bool]:
    return lambda _log: answers(port)


def phones(*, ports: Ports, environment: Mapping[str, str]) -> dict[str, str]:
    """What tells the simulator to post receipts and replies to the web application; nothing without a secret."""
    for pair in environment.get("FLOTILLA_WEBHOOK_SECRETS", "").split(","):
        kind, _, secret = pair.strip().partition("=")
        if kind == "simulator" and secret:
            settings = {**PHONES, "url": f"{ports.urls()['web']}/hooks/simulator", "secret": secret}
            return {"SIMULATOR_WEBHOOK": json.dumps(settings)}
    return {}


def programs(
    *,
    root: Path,
    ports: Ports,
    environment: Mapping[str, str],
    bells: Sequence[str],
    simulator: Mapping[str, str] | None = None,
) -> list[Program]:
    """The programs in the order they start; ``environment`` holds addresses and secrets for them.

    ``simulator`` adds to what the simulator gets.
    """
    python = sys.executable
    urls = ports.urls()
    common = {
        **environment,
        "PYTHONUNBUFFERED": "1",
        "FLOTILLA_URL": environment.get("FLOTILLA_URL") or urls["web"],
        "FLOTILLA_SIMULATOR_URL": urls["simulator"],
        "FLOTILLA_GATEWAY_URLS": environment.get("FLOTILLA_GATEWAY_URLS") or f"simulator={urls['simulator']}",
    }
    private = {
        "DATABASE_URL", "REDIS_URL", "FLOTILLA_SECRET_KEY", "FLOTILLA_FIELD_KEYS", "FLOTILLA_WEBHOOK_SECRETS",
        "FLOTILLA_SUPPRESSION_KEYS", "FLOTILLA_METRICS_TOKEN",
    }  # fmt: skip
    stranger = {name: value for name, value in common.items() if name not in private}
    celery = (python, "-m", "celery", "-A", "config")
    worker = (*celery, "worker", "--pool", "threads", "--without-gossip", "--without-mingle", "--loglevel", "INFO")
    return [
        Program(
            name="simulator",
            argv=(
                *(python, "-m", "messaging.simulator", "--host", LOOPBACK, "--port", str(ports.simulator)),
                *("--ledger", str(root / "simulator.jsonl")),
            ),
            env={**stranger, **(simulator or {})},
            ready=_simulator_is_ready,
            url=urls["simulator"],
        ),
        Program(
            name="worker-control",
            argv=(*worker, "-c", str(CONTROL_THREADS), "-Q", "control", "-n", "control@%h"),
            env=common,
            ready=_worker_is_ready,
            stop_seconds=30.0,
        ),
        Program(
            name="worker-devices",
            argv=(*worker, "-c", str(DEVICE_THREADS), "-Q", ",".join(bells), "-n", "devices@%h"),
            env=common,
            ready=_worker_is_ready,
            stop_seconds=30.0,
        ),
        Program(
            name="worker-sessions",
            argv=(*worker, "-c", str(SESSION_THREADS), "-Q", "devices.session", "-n", "sessions@%h"),
            env={**common, "NEONIZE_BOT_TAG": "off"},  # read by native code, which sees only what a process starts with
            ready=_worker_is_ready,
            stop_seconds=45.0,
        ),
        Program(
            name="worker-pairing",
            argv=(*worker, "-c", str(PAIRING_THREADS), "-Q", "pairing", "-n", "pairing@%h"),
            env=common,
            ready=_worker_is_ready,
        ),
        Program(
            name="flower",
            argv=(
                *celery,
                "flower",
                f"--address={LOOPBACK}",
                f"--port={ports.flower}",
                "--persistent=False",
                "--max_tasks=10000",
            ),
            env={**common, "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{environment['FLOTILLA_FLOWER_PASSWORD']}"},
            ready=_listens(ports.flower),
            url=urls["flower"],
        ),
        Program(
            name="web",
            argv=(
                *(python, "-m", "gunicorn", "config.wsgi:application", "--bind", f"{LOOPBACK}:{ports.web}"),
                *(*REQUEST_LIMITS, "--workers", "2", "--threads", "8"),
                *("--graceful-timeout", "10", "--no-control-socket"),
            ),
            env=common,
            ready=_listens(ports.web),
            url=urls["web"],
        ),
        Program(
            name="beat",
            argv=(*celery, "beat", "-s", str(root / "beat-schedule"), "--pidfile=", "--loglevel", "INFO"),
            env=common,
        ),
    ]
