"""What can stand in the way of a backup or a restore."""

from __future__ import annotations


class BackupProblem(Exception):  # noqa: N818 - reads as a fact
    """It cannot be done, or not here. Says what to do, and never shows a secret."""
