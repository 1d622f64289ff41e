"""``stack.json``: who runs the stack, what runs, where the servers are. Mode 0600, since addresses carry passwords."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from config.stack import processes
from config.stack.errors import StackError
from config.stack.private_files import write_private
from config.stack.processes import Identity

NAME = "stack.json"


@dataclass(frozen=True)
class State:
    """What the owner of a stack writes down; ``running`` is true once the addresses may be used."""

    owner: Identity
    running: bool
    guard: Identity | None = None
    processes: Mapping[str, Identity] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    database_url: str = field(default="", repr=False)
    redis_url: str = field(default="", repr=False)

    def is_live(self) -> bool:
        return self.running and processes.is_alive(self.owner)


def read(root: Path) -> State | None:
    """The state last written below ``root``; None when there is none or it is not ours to read."""
    try:
        found = json.loads((root / NAME).read_text(encoding="utf-8"))
        owner = processes.identity_from(found["owner"])
        named = {name: processes.identity_from(value) for name, value in found["processes"].items()}
        urls = {str(name): str(url) for name, url in found["urls"].items()}
        database_url, redis_url = str(found["database_url"]), str(found["redis_url"])
        guard = processes.identity_from(found["guard"])
        running = bool(found["running"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if owner is None:
        return None
    return State(
        owner=owner,
        running=running,
        guard=guard,
        processes={name: who for name, who in named.items() if who},
        urls=urls,
        database_url=database_url,
        redis_url=redis_url,
    )


def write(root: Path, state: State) -> None:
    write_private(root / NAME, json.dumps(asdict(state), indent=2))


def remove(root: Path) -> None:
    (root / NAME).unlink(missing_ok=True)


def ourselves() -> Identity:
    who = processes.identify(os.getpid())
    if who is None:
        raise StackError("This process cannot see itself; is /proc mounted?")
    return who
