"""What a backup says of itself, in the open: when, of what, and which keys it takes. No key, no number, no text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from config.backup.problems import BackupProblem
from config.backup.sealing import fingerprint
from leads import suppression

FORMAT = 1
NAME, DATABASE, MEDIA = "backup.json", "database.sealed", "media.sealed"


@dataclass(frozen=True, slots=True)
class Manifest:
    """``taken_at`` is the database's clock at the snapshot; later events are not in the backup."""

    taken_at: datetime
    postgres: int
    migrations: list[list[str]]
    field_keys: list[str]
    suppression_keys: list[str]
    halted: bool
    counts: dict[str, int] = field(default_factory=dict)
    media_files: int = 0
    media_bytes: int = 0
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Put it into the folder of the backup, as the last file."""
        told = {**asdict(self), "taken_at": self.taken_at.isoformat()}
        (folder / NAME).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Manifest:
    """The manifest of a backup. Raises :class:`BackupProblem`."""
    try:
        told: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise BackupProblem(f"{folder} was made by another version of Flotilla (format {told['format']}).")
        return Manifest(**{**told, "taken_at": datetime.fromisoformat(told["taken_at"])})
    except FileNotFoundError:
        raise BackupProblem(f"{folder} holds no backup: there is no {NAME} in it.") from None
    except (ValueError, KeyError, TypeError, OSError):
        raise BackupProblem(f"{folder / NAME} cannot be read: it is not as a backup writes it.") from None


def applied_migrations() -> list[list[str]]:
    """What the database has gone through, as pairs of app and name."""
    return sorted([app, name] for app, name in MigrationRecorder(connection).applied_migrations())


def unknown_migrations(manifest: Manifest) -> list[str]:
    """What the backup has gone through and this code does not know: it is older than the backup."""
    known = _on_disk()
    apps = {app for app, _ in known}
    return [f"{app}.{name}" for app, name in manifest.migrations if app in apps and (app, name) not in known]


def missing_migrations(manifest: Manifest) -> list[str]:
    """What this code wants and the backup has not gone through: “migrate” is to be run."""
    have = {(app, name) for app, name in manifest.migrations}
    return [f"{app}.{name}" for app, name in sorted(_on_disk() - have)]


def _on_disk() -> set[tuple[str, str]]:
    loader = MigrationLoader(None, ignore_no_migrations=True)
    replaced = {old for migration in loader.disk_migrations.values() for old in migration.replaces}
    return {key for key in loader.disk_migrations if key not in replaced}


def field_keys() -> list[str]:
    """Fingerprints of the keys that encrypt, newest first."""
    return [fingerprint(key) for key in settings.FIELD_KEYS]


def missing_keys(manifest: Manifest) -> list[str]:
    """Which variables lack a key that the backup takes, in words; no key is shown."""
    found = []
    for name, wanted, have in (
        ("FLOTILLA_FIELD_KEYS", manifest.field_keys, field_keys()),
        ("FLOTILLA_SUPPRESSION_KEYS", manifest.suppression_keys, suppression.key_ids()),
    ):
        lacking = [key for key in wanted if key not in have]
        if lacking:
            found.append(f"{name} lacks {_list(lacking)}")
    return found


def _list(names: Sequence[str]) -> str:
    return f"the key {names[0]}" if len(names) == 1 else f"the keys {', '.join(names)}"
