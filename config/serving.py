"""One program of an installation by its role: what containers, units and manifests start. Pure.

The local stack starts the same programs itself (:mod:`config.stack.programs`); here each is a process of its own that
somebody else supervises, told everything by its environment.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from config.stack.programs import (
    CONTROL_THREADS,
    DEVICE_THREADS,
    PAIRING_THREADS,
    REQUEST_LIMITS,
    SESSION_THREADS,
    device_bells,
)

ROLES: Final = ("web", "control", "devices", "sessions", "pairing", "beat", "flower")
THREADS: Final[Mapping[str, int]] = {
    "control": CONTROL_THREADS,
    "devices": DEVICE_THREADS,
    "sessions": SESSION_THREADS,
    "pairing": PAIRING_THREADS,
}


class ServingProblem(Exception):  # noqa: N818 - reads as a fact
    """The environment does not say enough to start this role. Names the variable, never a secret."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A process to become: ``argv``, and what its environment gets on top (which may hold a password)."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


def serving(*, role: str, environment: Mapping[str, str], shards: int, state_dir: str) -> Serving:
    """How this role starts. ``shards`` are those of platform devices, ``state_dir`` is where beat keeps its schedule.

    Raises :class:`ServingProblem`.
    """
    celery = (sys.executable, "-m", "celery", "-A", "config")
    if role == "web":
        return Serving(argv=_web(environment))
    if role == "beat":
        return Serving(argv=(*celery, "beat", "-s", f"{state_dir}/beat-schedule", "--pidfile=", "--loglevel", "INFO"))
    if role == "flower":
        return _flower(celery, environment)
    if role not in THREADS:
        raise ServingProblem(f"There is no role “{role}”; the roles are {', '.join(ROLES)}.")
    name, queues = _name_and_queues(role, environment, shards)
    return Serving(
        argv=(
            *(*celery, "worker", "--pool", "threads", "--without-gossip", "--without-mingle", "--loglevel", "INFO"),
            *("-c", str(_count("FLOTILLA_THREADS", environment, THREADS[role]))),
            *("-Q", ",".join(queues), "-n", f"{name}@%h"),
        ),
        # read by native code, which sees only what a process starts with
        env={"NEONIZE_BOT_TAG": "off"} if role in {"sessions", "pairing"} else {},
    )


def shards_of(*, ordinal: int, workers: int, shards: int) -> tuple[int, ...]:
    """The shards of the ``ordinal``-th device worker, of ``workers`` that are always there.

    Those beyond, which an autoscaler adds and takes away, double the one whose remainder they share: two workers on one
    shard of platform devices divide its messages between them, and no shard is ever without one.
    """
    return tuple(shard for shard in range(shards) if shard % workers == ordinal % workers)


def _name_and_queues(role: str, environment: Mapping[str, str], shards: int) -> tuple[str, tuple[str, ...]]:
    if role != "devices":
        return role, ({"sessions": "devices.session"}.get(role, role),)
    if not environment.get("FLOTILLA_DEVICE_ORDINAL"):
        return role, device_bells(shards=shards)
    ordinal = _count("FLOTILLA_DEVICE_ORDINAL", environment, 0, least=0)
    workers = _count("FLOTILLA_DEVICE_WORKERS", environment, 1)
    if workers > shards:
        raise ServingProblem(
            f"FLOTILLA_DEVICE_WORKERS is {workers} and FLOTILLA_SHARDS {shards}: a worker would have no shard. "
            "Raise FLOTILLA_SHARDS everywhere, or start fewer workers."
        )
    bells = device_bells(shards=shards)
    taken = shards_of(ordinal=ordinal, workers=workers, shards=shards)
    return f"{role}-{ordinal}", tuple(bells[shard] for shard in taken)


def _web(environment: Mapping[str, str]) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "gunicorn", "config.wsgi:application"),
        *("--bind", environment.get("FLOTILLA_BIND") or "127.0.0.1:8000", *REQUEST_LIMITS),
        *("--workers", str(_count("FLOTILLA_WEB_WORKERS", environment, 2))),
        *("--threads", str(_count("FLOTILLA_WEB_THREADS", environment, 8))),
        *("--graceful-timeout", "20", "--no-control-socket"),
    )


def _flower(celery: tuple[str, ...], environment: Mapping[str, str]) -> Serving:
    """Behind its password always; an address of its own (a path of the proxy) by FLOWER_URL_PREFIX, which it reads."""
    password = environment.get("FLOTILLA_FLOWER_PASSWORD", "")
    if not password:
        raise ServingProblem("FLOTILLA_FLOWER_PASSWORD is not set: Flower is never started without a password.")
    host, _, port = (environment.get("FLOTILLA_FLOWER_BIND") or "127.0.0.1:5555").rpartition(":")
    if not host or not port.isdigit():
        raise ServingProblem("FLOTILLA_FLOWER_BIND must be written as host:port.")
    return Serving(
        argv=(*celery, "flower", f"--address={host}", f"--port={port}", "--persistent=False", "--max_tasks=10000"),
        env={"FLOWER_BASIC_AUTH": f"{environment.get('FLOTILLA_FLOWER_USER') or 'admin'}:{password}"},
    )


def _count(name: str, environment: Mapping[str, str], default: int, *, least: int = 1) -> int:
    given = environment.get(name) or str(default)
    if not (given.isascii() and given.isdigit()) or int(given) < least:
        raise ServingProblem(f"{name} must be a whole number from {least}, not “{given}”.")
    return int(given)
