"""What the environment may say, as a reference: names and defaults are read from settings.py, meanings from a table.

settings.py is the truth: a variable that it reads and the table (``environment.toml``) does not explain is an error
here, and so is one that is explained and that nobody reads.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.secret_files import SECRETS

HERE = Path(__file__).resolve().parent
VARIABLE: Final = re.compile(r"(FLOTILLA_[A-Z0-9_]+|DATABASE_URL|REDIS_URL)\Z")
_SECRETS: Final = {"_secret", "_optional_secret"}


class ReferenceProblem(Exception):  # noqa: N818 - reads as a fact
    """Table and settings do not agree. Says what to do."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One row: ``default`` and ``meaning`` are for people."""

    name: str
    meaning: str
    default: str
    group: str


@dataclass(frozen=True, slots=True)
class Successor:
    """A variable of the older system, its default there, and what takes its place here."""

    name: str
    default: str
    here: str


def read_by_settings(source: str) -> dict[str, str]:
    """Each variable that this module asks for, with its default as people write it; "" where it has none."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        first = node.args[0]
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str) and VARIABLE.match(first.value)):
            continue
        default = _default(node)
        found[first.value] = found.get(first.value) or default
    return found


def _default(call: ast.Call) -> str:
    called = call.func.id if isinstance(call.func, ast.Name) else ""
    if called in _SECRETS or len(call.args) < 2:
        return ""
    given = call.args[1]
    if isinstance(given, ast.Constant):
        return str(given.value)
    return ""


def variables(*, settings: str, table: Mapping[str, Any], root: Path) -> list[Variable]:
    """All variables in the order of the table. Raises :class:`ReferenceProblem`."""
    defaults = read_by_settings(settings)
    found: list[Variable] = []
    for group in table["group"]:
        for entry in group["variable"]:
            name = entry["name"]
            if "read_by" in entry:
                if name not in (root / entry["read_by"]).read_text(encoding="utf-8"):
                    raise ReferenceProblem(f"{entry['read_by']} does not read {name}: take it out of environment.toml.")
            elif name not in defaults:
                raise ReferenceProblem(f"settings.py does not read {name}: take it out of environment.toml.")
            default = entry.get("default", defaults.get(name, ""))
            found.append(Variable(name=name, meaning=entry["means"], default=default, group=group["title"]))
    missing = sorted(set(defaults) - {variable.name for variable in found})
    if missing:
        raise ReferenceProblem(f"config/environment.toml does not say what these mean: {', '.join(missing)}.")
    return found


def successors(*, table: Mapping[str, Any]) -> list[Successor]:
    """The older system's variables."""
    return [Successor(name=row["name"], default=row["default"], here=row["here"]) for row in table["legacy"]]


def load() -> tuple[list[Variable], list[Successor]]:
    """Of this installation. Raises :class:`ReferenceProblem`."""
    table = tomllib.loads((HERE / "environment.toml").read_text(encoding="utf-8"))
    settings = (HERE / "settings.py").read_text(encoding="utf-8")
    return variables(settings=settings, table=table, root=HERE.parent), successors(table=table)


def markdown(*, known: Sequence[Variable], legacy: Sequence[Successor]) -> str:
    """The whole of deploy/ENVIRONMENT.md."""
    lines = [
        "# Environment",
        "",
        "Made by `manage.py settings_reference --markdown`; the meanings are in `config/environment.toml`.",
        "",
        f"Each of {', '.join(f'`{name}`' for name in SECRETS)} may come from a file instead: `NAME_FILE` names it.",
    ]
    for title in dict.fromkeys(variable.group for variable in known):
        lines += ["", f"## {title}", "", "| variable | meaning | default |", "| --- | --- | --- |"]
        lines += [f"| `{row.name}` | {row.meaning} | {_shown(row.default)} |" for row in known if row.group == title]
    lines += [
        "",
        "## Coming from go-whatsapp-web-multidevice (its broadcast edition)",
        "",
        "Its variables and the constants of its source that people have changed, beside what takes their place.",
        "",
        "| there | default there | here |",
        "| --- | --- | --- |",
    ]
    lines += [f"| `{row.name}` | {row.default or '–'} | {row.here} |" for row in legacy]
    return "\n".join(lines) + "\n"


def _shown(default: str) -> str:
    if not default:
        return "–"
    return default if " " in default or "`" in default else f"`{default}`"
