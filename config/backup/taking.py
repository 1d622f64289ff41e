"""Taking a backup: one snapshot of the database, then the files that it names. Nothing stops meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, cast

import structlog
from django.conf import settings
from django.db import connection, transaction

from config.backup import manifest as manifests
from config.backup.manifest import DATABASE, MEDIA, Manifest
from config.backup.problems import BackupProblem
from config.backup.programs import programs, server_major
from config.backup.sealing import Sealer
from config.stack.private_files import create_once
from leads import suppression

log = structlog.get_logger(__name__)

_READ = 1 << 20
_LEFT_OUT = ("django_session",)
"""Who was logged in then is not logged in after a restore."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Where the backup is, what it says, and how large it is in bytes."""

    folder: Path
    manifest: Manifest
    size: int


def take(*, folder: Path) -> Taken:
    """Write a backup into ``folder``, which must not exist yet. It appears whole or not at all.

    The database comes first: files are there before the rows that name them, so whatever the snapshot names is still
    on the disk afterwards. Raises :class:`BackupProblem`.
    """
    if folder.exists():
        raise BackupProblem(f"{folder} exists: name a new folder, as backups/{datetime.now():%Y-%m-%d}.")  # noqa: DTZ005
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as problem:
        raise BackupProblem(f"Nothing can be written to {folder.parent}: {problem.strerror}.") from None
    try:
        manifest = _dump(unfinished / DATABASE)
        files, size = _pack(unfinished / MEDIA)
        manifest = replace(manifest, media_files=files, media_bytes=size)
        manifest.write(unfinished)
        unfinished.rename(folder)
    except OSError as problem:
        raise BackupProblem(f"The backup could not be written: {problem.strerror}.") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    taken = Taken(folder, manifest, sum(path.stat().st_size for path in folder.iterdir()))
    log.info("backup.taken", taken_at=manifest.taken_at.isoformat(), bytes=taken.size, media=files)
    return taken


def write_keys(path: Path, *, backup: Path) -> None:
    """Write down the keys that the backup takes, as lines of an environment file of mode 0600.

    Raises :class:`BackupProblem` inside the backup: whoever has both has everything.
    """
    if path.resolve().is_relative_to(backup.resolve()):
        raise BackupProblem("Keep the keys where the backup is not: name a file outside its folder.")
    secrets = [f"{kind}={secret}" for kind, each in settings.FLOTILLA_WEBHOOK_SECRETS.items() for secret in each]
    lines = {
        "FLOTILLA_FIELD_KEYS": ",".join(settings.FIELD_KEYS),
        "FLOTILLA_SUPPRESSION_KEYS": ",".join(settings.SUPPRESSION_KEYS),
        "FLOTILLA_SECRET_KEY": settings.SECRET_KEY,
        "FLOTILLA_WEBHOOK_SECRETS": ",".join(secrets),
    }
    text = "".join(f"{name}={value}\n" for name, value in lines.items() if value)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stands = create_once(path, text)
    except OSError as problem:
        raise BackupProblem(f"{path} cannot be written: {problem.strerror}.") from None
    if stands != text:
        raise BackupProblem(f"{path} exists and holds something else: name another file for the keys.")


# -- The database ------------------------------------------------------------------------------------------------------


def _dump(path: Path) -> Manifest:
    """Dump the database into a sealed file; what the manifest says is from the same snapshot."""
    tools = programs()
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")  # the dump works while we wait
        cursor.execute("SELECT pg_export_snapshot(), now()")
        snapshot, taken_at = cursor.fetchone()
        manifest = _manifest(taken_at)
        command = tools.command("pg_dump", "--format=custom", f"--snapshot={snapshot}")
        command += [f"--exclude-table-data={table}" for table in _LEFT_OUT]
        with tempfile.TemporaryFile() as told, Sealer(path, key=settings.FIELD_KEYS[0]) as out:
            with subprocess.Popen(command, env=tools.environment, stdout=subprocess.PIPE, stderr=told) as dump:
                assert dump.stdout is not None  # noqa: S101 - it was asked for
                while piece := dump.stdout.read(_READ):
                    out.write(piece)
            if dump.returncode:
                raise BackupProblem(f"pg_dump failed: {last_words(told)}")
    return manifest


def last_words(told: IO[bytes]) -> str:
    """The first line that a program complained with; never the rows that its details may quote."""
    told.seek(0)
    lines = [line.decode(errors="replace").strip() for line in told.readlines()[:50]]
    kept = [line for line in lines if line and not line.startswith(("DETAIL", "CONTEXT", "COPY "))]
    return next((line for line in kept if "rror" in line), kept[0] if kept else "it said nothing")[:300]


def _manifest(taken_at: datetime) -> Manifest:
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT (SELECT count(*) FROM devices_device), (SELECT count(*) FROM leads_lead),
                      coalesce(sum(total), 0), coalesce(sum(waiting), 0), coalesce(sum(unknown), 0),
                      EXISTS (SELECT FROM messaging_halt WHERE ended_at IS NULL)
               FROM messaging_stream"""
        )
        devices, leads, messages, waiting, unknown, halted = cursor.fetchone()
    return Manifest(
        taken_at=taken_at,
        postgres=server_major(),
        migrations=manifests.applied_migrations(),
        field_keys=manifests.field_keys(),
        suppression_keys=suppression.key_ids(),
        halted=halted,
        counts={"devices": devices, "leads": leads, "messages": messages, "waiting": waiting, "unknown": unknown},
    )


# -- Files -------------------------------------------------------------------------------------------------------------


def _pack(path: Path) -> tuple[int, int]:
    """Put every finished file below MEDIA_ROOT into a sealed archive; how many, and their bytes."""
    root, number, size = Path(settings.MEDIA_ROOT), 0, 0
    with (
        Sealer(path, key=settings.FIELD_KEYS[0]) as out,
        tarfile.open(fileobj=cast("IO[bytes]", out), mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for folder, _, names in os.walk(root):
            for name in sorted(names):
                file = Path(folder, name)
                if name.startswith(".") or not file.is_file() or file.is_symlink():
                    continue  # not finished yet, or none of ours
                added = _add(archive, file, name=str(file.relative_to(root)))
                number, size = number + (added is not None), size + (added or 0)
    return number, size


def _add(archive: tarfile.TarFile, file: Path, *, name: str) -> int | None:
    """Add one file; its bytes, or None if somebody removed it meanwhile."""
    try:
        with file.open("rb") as source:
            head = tarfile.TarInfo(name)
            head.size, head.mtime = os.fstat(source.fileno()).st_size, int(os.fstat(source.fileno()).st_mtime)
            archive.addfile(head, source)
            return head.size
    except FileNotFoundError:
        return None
