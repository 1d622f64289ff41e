"""Print the part of requirements.lock that a server needs: without the tools of developers and benchmarks.

    python3 deploy/runtime_lock.py requirements.lock > runtime.lock

The lock file says below each package who asked for it ("# via"). What the project itself asks for, and what those
packages ask for in turn, is kept, with its hashes; what only the groups ask for is left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROJECT = "flotilla (pyproject.toml)"
_PACKAGE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==")
_VIA = re.compile(r"^ +# +(?:via +)?(\S.*)$")


def blocks(lock: str) -> dict[str, list[str]]:
    """The lines of each package, by its name; of all its versions, where Pythons need different ones."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lock.splitlines():
        if match := _PACKAGE.match(line):
            name = match[1]
            found.setdefault(name, [])
        if name:
            found[name].append(line)
    return found


def runtime(lock: str) -> str:
    """The lock file of a server. Raises ValueError where nothing is asked for by the project."""
    packages = blocks(lock)
    asked_by = {
        name: {match[1].strip() for line in lines if (match := _VIA.match(line)) and match[1].strip() != "via"}
        for name, lines in packages.items()
    }
    kept: set[str] = set()
    grown = {name for name, askers in asked_by.items() if PROJECT in askers}
    while grown - kept:
        kept |= grown
        grown = {name for name, askers in asked_by.items() if askers & kept}
    if not kept:
        raise ValueError(f"no package says that {PROJECT} asked for it: is this the project's lock file?")
    return "\n".join(line for name, lines in packages.items() if name in kept for line in lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(runtime(Path(sys.argv[1]).read_text(encoding="utf-8")))
