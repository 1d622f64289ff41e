"""Bringing a backup back: into an empty database, halted, with everything in doubt that may have been sent since.

The rows, the halt and the doubts are one transaction: until it commits the database is as empty as before, and from
then on no claim succeeds until a person resumes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import structlog
from django.conf import settings
from django.db import connection

from campaigns import aftermath as of_campaigns
from config.backup import manifest as manifests
from config.backup.manifest import DATABASE, MEDIA, Manifest
from config.backup.problems import BackupProblem
from config.backup.programs import Programs, programs
from config.backup.sealing import unseal
from config.backup.taking import last_words
from messaging import aftermath as of_messages
from sequences import aftermath as of_sequences

log = structlog.get_logger(__name__)

_TOLD = "flotilla:"
_FILE_MODE, _FOLDER_MODE = 0o640, 0o750


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back, and what became of it, in counts."""

    manifest: Manifest
    counts: dict[str, int]
    files: int
    migrations: list[str]
    """Those that “migrate” still has to apply."""


def restore(*, folder: Path, nothing_sent_since: bool = False, without_keys: bool = False) -> Restored:
    """Load the backup in ``folder`` into the default database, which must be empty, and below MEDIA_ROOT.

    ``nothing_sent_since``: nothing was sent after the backup, so nothing is in doubt. Raises :class:`BackupProblem`,
    and then the database is as empty as before.
    """
    manifest = manifests.read(folder)
    _refuse_unless_possible(manifest, without_keys=without_keys)
    files = _unpack(folder / MEDIA)
    counts = _load(folder / DATABASE, _aftermath(manifest, nothing_sent_since=nothing_sent_since))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    log.warning("backup.restored", taken_at=manifest.taken_at.isoformat(), files=files, **counts)
    return Restored(manifest, counts, files, manifests.missing_migrations(manifest))


def _refuse_unless_possible(manifest: Manifest, *, without_keys: bool) -> None:
    if unknown := manifests.unknown_migrations(manifest):
        raise BackupProblem(
            f"The backup is of a newer Flotilla than this one, which does not know {unknown[0]}: install that one."
        )
    lacking = manifests.missing_keys(manifest)
    if lacking and not without_keys:
        raise BackupProblem(
            f"{'; '.join(lacking)}. Set the variables that the installation had when the backup was made. If an older"
            " key is lost for good, --without-keys goes on without it: what it opens stays closed."
        )
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND n.nspname NOT LIKE 'pg\\_%'
                 AND n.nspname <> 'information_schema'"""
        )
        if cursor.fetchone()[0]:
            raise BackupProblem(
                "This database is not empty. Make a new one and name it in DATABASE_URL; on the local stack,"
                " FLOTILLA_LOCAL names a new folder. The old one may still tell who has opted out since the backup."
            )


def _aftermath(manifest: Manifest, *, nothing_sent_since: bool) -> list[tuple[str, dict[str, Any]]]:
    taken_at = manifest.taken_at
    found = of_messages.statements(taken_at=taken_at, nothing_sent_since=nothing_sent_since)
    if not nothing_sent_since:
        found += [*of_campaigns.statements(taken_at=taken_at), *of_sequences.statements()]
    return found


# -- The database ------------------------------------------------------------------------------------------------------


def _load(path: Path, after: list[tuple[str, dict[str, Any]]]) -> dict[str, int]:
    """Decrypt, turn into SQL, and run it with ``after`` in one transaction; the counts that ``after`` answered with.

    A commit is only ever written behind a script that came whole: whatever breaks before, the server rolls back.
    """
    tools = programs()
    to_sql = [str(tools.folder / "pg_restore"), "--no-owner", "--no-privileges", "--file=-"]
    run_sql = tools.command("psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")
    with contextlib.ExitStack() as stack:
        answers, restore_says, psql_says = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        making = stack.enter_context(_process(to_sql, tools, stdout=subprocess.PIPE, stderr=restore_says))
        running = stack.enter_context(_process(run_sql, tools, stdout=answers, stderr=psql_says))
        assert making.stdout is not None  # noqa: S101 - it was asked for
        assert running.stdin is not None  # noqa: S101 - the same
        feeder = _Feeder(path, making)
        feeder.start()
        try:
            running.stdin.write(b"BEGIN;\n")
            shutil.copyfileobj(making.stdout, running.stdin, 1 << 20)
            feeder.join()
            failed = bool(making.wait())
            if not failed and feeder.problem is None:
                running.stdin.write(_tail(after))
            else:
                running.kill()
            running.stdin.close()
        except BrokenPipeError:
            pass  # psql has said why and ended; the server has rolled back
        except BaseException:
            running.kill()
            raise
        finally:
            making.kill()
            feeder.join()
        if feeder.problem is not None:
            raise feeder.problem
        if making.returncode > 0:
            raise BackupProblem(f"pg_restore failed: {last_words(restore_says)}")
        if running.wait():
            raise BackupProblem(f"The backup could not be loaded: {last_words(psql_says)}")
        answers.seek(0)
        return _counts(answers)


@contextlib.contextmanager
def _process(command: list[str], tools: Programs, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child that never outlives the block."""
    process = subprocess.Popen(command, env=tools.environment, stdin=subprocess.PIPE, **streams)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


class _Feeder(threading.Thread):
    """Hands the unsealed dump to pg_restore while its script is read on the other side."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._path, self._process = path, process
        self.problem: BackupProblem | None = None

    def run(self) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        try:
            for piece in unseal(self._path, keys=settings.FIELD_KEYS):
                self._process.stdin.write(piece)
        except BackupProblem as problem:
            self.problem = problem
            self._process.kill()  # what came so far must not look like all of it
        except OSError:
            pass  # pg_restore ended early, and says why
        finally:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def _tail(after: list[tuple[str, dict[str, Any]]]) -> bytes:
    """What follows the dump's own script, up to the commit. Answers are marked, since the script answers as well."""
    parts = [b"SET search_path = public;\n"]
    with connection.cursor() as cursor:
        for statement, values in after:
            sql: bytes = cursor.cursor.mogrify(statement, values)
            parts.append(b"\\echo " + _TOLD.encode() + b"\n" + sql.strip() + b";\n")
    return b"".join([*parts, b"COMMIT;\n"])


def _counts(answers: IO[bytes]) -> dict[str, int]:
    """Every JSON object behind a mark, put together."""
    counts: dict[str, int] = {}
    behind_mark = False
    for line in answers.read().decode().splitlines():
        if behind_mark and line.startswith("{"):
            counts |= json.loads(line)
        behind_mark = line.strip() == _TOLD
    return counts


# -- Files -------------------------------------------------------------------------------------------------------------


def _unpack(path: Path) -> int:
    """Write the backup's files below MEDIA_ROOT; how many. The rows that promise them come afterwards."""
    root, number = Path(settings.MEDIA_ROOT), 0
    plain = _Reader(unseal(path, keys=settings.FIELD_KEYS))
    with tarfile.open(fileobj=cast("IO[bytes]", plain), mode="r|") as archive:
        for member in archive:
            inside = PurePosixPath(member.name)
            if not member.isfile() or inside.is_absolute() or ".." in inside.parts:
                raise BackupProblem(f"{path.name} holds something that no backup holds.")
            source = archive.extractfile(member)
            assert source is not None  # noqa: S101 - it is a file
            _write(root.joinpath(*inside.parts), source)
            number += 1
    plain.read_to_end()
    return number


class _Reader:
    """Pieces of any size as something to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._waiting = bytearray()

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, or what is left."""
        while len(self._waiting) < size and (piece := next(self._pieces, None)) is not None:
            self._waiting += piece
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken

    def read_to_end(self) -> None:
        """What lies behind the archive's own end has to be whole as well."""
        for _ in self._pieces:
            pass


def _write(path: Path, source: IO[bytes]) -> None:
    try:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.restored")
        with unfinished.open("wb") as out:
            shutil.copyfileobj(source, out)
        unfinished.chmod(_FILE_MODE)
        unfinished.replace(path)
    except OSError as problem:
        raise BackupProblem(f"Nothing can be written below {settings.MEDIA_ROOT}: {problem.strerror}.") from None
