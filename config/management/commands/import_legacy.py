"""``manage.py import_legacy``: move over from system A."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from config.legacy import source as legacy_source
from config.legacy import whole
from config.legacy.move import Move
from config.legacy.people import StillRunning
from config.legacy.report import Report
from config.legacy.source import SourceProblem
from devices.access import Role, role_of
from leads.imports import ImportRefused, check_region

_INTERRUPTED = 130


class Command(BaseCommand):
    """Reads the old database and writes here; the old one is never written."""

    help = "Move devices, leads, campaigns and sequences over from system A's PostgreSQL; see deploy/MIGRATING.md."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Django's hook."""
        parser.add_argument("--database", required=True, help="as postgresql://user@host:5432/name; ~/.pgpass is read")
        parser.add_argument("--schema", default="public", help="where its tables are")
        parser.add_argument("--name", default="system-a", help="tells this old system from others that are moved over")
        parser.add_argument("--by", required=True, help="user name of the admin here who answers for the move")
        parser.add_argument("--owner", help="give everything to this user instead of one user for each of theirs")
        parser.add_argument("--region", default=settings.FLOTILLA_DEFAULT_REGION, help="country of short numbers")
        parser.add_argument("--zone", default="Asia/Kuala_Lumpur", help="time zone of its clock times (it meant UTC+8)")
        parser.add_argument(
            "--consent", default="",
            help="declare where and how these people agreed: noted on each lead. Without it no lead has consent, and"
            " bulk sends leave them out",
        )  # fmt: skip
        parser.add_argument("--wablas-url", default="", help="address of the account's own Wablas server")
        parser.add_argument("--without-sessions", action="store_true", help="leave WhatsApp sessions; pair again")
        parser.add_argument("--dry-run", action="store_true", help="only look and count; write nothing")
        parser.add_argument("--report", type=Path, help="file for everything a person has to know (CSV)")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Django's hook."""
        console = Console(highlight=False)
        path = options["report"] or Path(f"import-legacy-{timezone.now():%Y%m%d-%H%M%S}.csv")
        try:
            with (
                legacy_source.opened(options["database"], schema=options["schema"]) as source,
                Report(path) as report,
                Progress(
                    TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    console=console,
                ) as bar,
            ):  # fmt: skip
                move = _move(options, source=source, report=report)
                bars: dict[str, Any] = {}

                def on_progress(table: str, done: int) -> None:
                    if table not in bars:
                        bars[table] = bar.add_task(table, total=None)
                    bar.update(bars[table], completed=done)

                move.on_progress = on_progress
                whole.move_over(move, sessions=not options["without_sessions"])
        except FileExistsError:
            raise CommandError(f"{path} exists: name another file with --report.") from None
        except OSError as problem:
            raise CommandError(f"{path} cannot be written: {problem.strerror}.") from None
        except (SourceProblem, StillRunning, whole.CannotMove) as problem:
            raise CommandError(str(problem)) from None
        except KeyboardInterrupt:
            raise CommandError(
                "Stopped. What has come over stays; the same command goes on.", returncode=_INTERRUPTED
            ) from None
        _show(report, console, dry_run=options["dry_run"])


def _move(options: dict[str, Any], *, source: legacy_source.Source, report: Report) -> Move:
    by = _user(options["by"], "--by")
    if role_of(by) != Role.ADMIN:
        raise CommandError(f"--by: “{by}” is no admin; moving over, and declaring consent, is an admin's decision.")
    try:
        zone, region = ZoneInfo(options["zone"]), check_region(options["region"])
    except (ZoneInfoNotFoundError, ValueError):
        raise CommandError(f"--zone: “{options['zone']}” is no time zone; use a name like Asia/Jakarta.") from None
    except ImportRefused as problem:
        raise CommandError(f"--region: {problem.text}") from None
    if not options["name"] or len(options["name"]) > 40:
        raise CommandError("--name: use one to 40 characters.")
    return Move(
        source=source,
        report=report,
        name=options["name"],
        by=by,
        owner=_user(options["owner"], "--owner") if options["owner"] else None,
        zone=zone,
        region=region,
        basis=" ".join(options["consent"].split())[:200],
        addresses={"wablas": options["wablas_url"]},
        dry_run=options["dry_run"],
        now=timezone.now,
    )


def _user(name: str, flag: str) -> User:
    user = User.objects.filter(username=name).first()
    if user is None:
        raise CommandError(f"{flag}: there is no user called “{name}”.")
    return user


def _show(report: Report, console: Console, *, dry_run: bool) -> None:
    """The counts, then each kind of finding with its first row."""
    counts = Table("", "taken" if not dry_run else "would be taken", "there already", "merged", "not taken", box=None)
    for table, tally in report.tallies.items():
        counts.add_row(table, f"{tally.taken:,}", f"{tally.there:,}", f"{tally.merged:,}", f"{tally.refused:,}")
    console.print(counts)
    if report.reasons:
        found = Table("lines", "", "table", "for example", box=None)
        for key, number in report.reasons.most_common():
            example = report.examples[key]
            # Text, since cells of the old system stand in it: no markup is read in those.
            found.add_row(f"{number:,}", str(key[0]), key[1], Text(f"{example.old_id} {example.field}: {example.text}"))
        console.print(found)
    console.print(f"Every line is in {report.path}.")
    if dry_run:
        console.print("This was a dry run: nothing has been written.")
