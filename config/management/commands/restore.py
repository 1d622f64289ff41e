"""``manage.py restore FOLDER``: a backup comes back, halted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError

from config.backup.problems import BackupProblem
from config.backup.restoring import Restored, restore

_SAID = (
    ("held", "messages are held as unknown: they may have been sent since. Look-ups and receipts settle what they can"),
    ("sent_again", "messages stay to be sent: their gateways drop what they have seen"),
    ("in_doubt_before", "messages were unknown before, and stay so"),
    ("cut_short", "batches were being filled, and end with the messages that they have"),
    ("runs_cut_short", "runs of campaigns end with the messages that they have"),
    ("runs_missed", "runs of campaigns count as missed: they may have run since"),
    ("campaigns_planned_anew", "recurring campaigns go on with their next occurrence; none since is made up for"),
    ("sequences_paused", "sequences are paused: leads may have had further steps since"),
)


class Command(BaseCommand):
    help = "Load a backup into an empty database. Nothing is sent until manage.py resume."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="what manage.py backup has written")
        parser.add_argument(
            "--nothing-sent-since",
            action="store_true",
            help="the installation has sent nothing after the backup (halted before it, and never resumed): nothing is "
            "in doubt then",
        )
        parser.add_argument(
            "--without-keys",
            action="store_true",
            help="go on although an older key is lost; what it opens stays closed",
        )

    def handle(self, *_args: Any, folder: Path, nothing_sent_since: bool, without_keys: bool, **_options: Any) -> None:
        try:
            done = restore(folder=folder.absolute(), nothing_sent_since=nothing_sent_since, without_keys=without_keys)
        except BackupProblem as problem:
            raise CommandError(str(problem)) from None
        except OperationalError:
            raise CommandError(
                "The database does not answer. Local stack: python -m config.stack run -- python manage.py restore …"
            ) from None
        for line in _words(done):
            self.stdout.write(line)


def _words(done: Restored) -> list[str]:
    lines = [
        f"Restored as of {done.manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC, with {done.files:,} files.",
        "STOP ALL is in force.",
        *(f"  {done.counts[name]:,} {words}." for name, words in _SAID if done.counts.get(name)),
        "Not in it, whatever happened since: replies, opt-outs, revoked tokens, changed passwords.",
        "Whoever opted out since has to be opted out again before anything is sent.",
    ]
    if done.migrations:
        lines.append(f"Before anything is started: manage.py migrate ({len(done.migrations)} migrations to apply).")
    lines.append("When the installation that the backup is of is off for good, and all is looked at: manage.py resume.")
    return lines
