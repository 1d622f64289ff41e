"""PostgreSQL's own programs for dumping and restoring, in a version that fits the server, and how they reach it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from django.db import connection, connections
from psycopg2.extensions import make_dsn

from config.backup.problems import BackupProblem
from config.stack.binaries import postgres_programs
from config.stack.errors import StackError

_DJANGO_ONLY = frozenset({"context", "cursor_factory", "server_side_binding"})


@dataclass(frozen=True, slots=True)
class Programs:
    """The folder of ``pg_dump``, ``pg_restore`` and ``psql``, and the database they are to work on."""

    folder: Path
    database: str
    environment: Mapping[str, str] = field(repr=False)
    """Holds the password, which must not stand on a command line."""

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command line of a program that connects."""
        return [str(self.folder / name), "--no-password", f"--dbname={self.database}", *arguments]


def programs() -> Programs:
    """Those for the default database's server. Raises :class:`BackupProblem`."""
    params = {k: v for k, v in connections["default"].get_connection_params().items() if k not in _DJANGO_ONLY}
    password = str(params.pop("password", "") or "")
    environment = {**os.environ, **({"PGPASSWORD": password} if password else {}), "PGCLIENTENCODING": "UTF8"}
    return Programs(_folder(server_major()), make_dsn(**params), environment)


def server_major() -> int:
    """The server's major version."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        return int(cursor.fetchone()[0]) // 10_000


def _folder(major: int) -> Path:
    """Where the programs are: of the server's own version, else of the next one above it."""
    candidates = []
    if on_path := shutil.which("pg_dump"):
        candidates.append(Path(on_path).parent)
    with contextlib.suppress(StackError):
        candidates.append(postgres_programs().folder / "bin")
    found = {folder: _version(folder) for folder in candidates}
    fitting = [(version, folder) for folder, version in found.items() if version >= major]
    if not fitting:
        told = ", ".join(str(version) for version in found.values() if version) or "none"
        raise BackupProblem(
            f"The server is PostgreSQL {major}, and pg_dump, pg_restore and psql are here in version {told}: install"
            f" the client programs of version {major} and put them on the PATH."
        )
    return min(fitting)[1]


def _version(folder: Path) -> int:
    """The major version of the programs in a folder, 0 if one of them is missing or does not run."""
    versions = set()
    for name in ("pg_dump", "pg_restore", "psql"):
        try:
            told = subprocess.run([str(folder / name), "--version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return 0
        number = re.search(r" (\d+)[.\s]", told)
        versions.add(int(number[1]) if number else 0)
    return min(versions)
