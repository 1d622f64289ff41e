"""``manage.py import_leads``: take a file of leads in, here and now."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from devices.models import Device
from leads import services
from leads.imports import LeadFileProblem, open_leads
from leads.models import LeadImport


class Command(BaseCommand):
    """Imports in this process, with a progress bar; other imports may run beside it."""

    help = "Import leads from CSV or .xlsx: name, phone, niche, target_status, trigger, and columns of your own."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Django's hook."""
        parser.add_argument("file", type=Path, help="a CSV or .xlsx file whose first row names the columns")
        parser.add_argument("--owner", required=True, help="user name of the person these leads will belong to")
        parser.add_argument(
            "--region",
            default=settings.FLOTILLA_DEFAULT_REGION,
            help="country of numbers without a country code, as MY",
        )
        parser.add_argument("--consent", default="", help="where and how these people agreed; bulk sends need it")
        parser.add_argument(
            "--duplicates", choices=LeadImport.Duplicates.values, default="merge",
            help="what happens to people who are there already",
        )  # fmt: skip
        parser.add_argument("--dry-run", action="store_true", help="only count, and find what is wrong; write no lead")
        parser.add_argument("--device", type=int, help="id of the owner's device that these leads belong to")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Django's hook."""
        console = Console(highlight=False)  # rich draws on the terminal itself; Django's wrapper would add line ends
        lead_import = self._create(options)
        try:
            lead_import = self._run(lead_import, console)
        except services.ImportBusy:
            raise CommandError("A worker has taken this import over: its progress is in the admin.") from None
        except KeyboardInterrupt:
            raise CommandError(
                f"Stopped. What is in stays in; a running worker goes on with import {lead_import.pk}.", returncode=130
            ) from None
        if lead_import.state == LeadImport.State.FAILED:
            raise CommandError(lead_import.error)
        _show(services.summary(lead_import), console)

    def _create(self, options: dict[str, Any]) -> LeadImport:
        owner = User.objects.filter(username=options["owner"]).first()
        if owner is None:
            raise CommandError(f"There is no user called “{options['owner']}”.")
        device = None
        if options["device"] is not None:
            device = Device.objects.filter(pk=options["device"]).first()
            if device is None:
                raise CommandError(f"There is no device {options['device']}.")
        path: Path = options["file"]
        try:
            with path.open("rb") as file:
                open_leads(file)
                return services.create_import(
                    owner=owner,
                    file=file,
                    filename=path.name,
                    region=options["region"],
                    consent_source=options["consent"],
                    device=device,
                    duplicates=options["duplicates"],
                    dry_run=options["dry_run"],
                )
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}.") from None
        except LeadFileProblem as problem:
            raise CommandError(f"{path}: {problem.text}") from None
        except services.ImportRefused as refusal:
            raise CommandError(refusal.text) from None

    def _run(self, lead_import: LeadImport, console: Console) -> LeadImport:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task("Importing leads", total=None)
            return services.run_import(
                import_id=lead_import.pk,
                on_progress=lambda now: bar.update(task, completed=now.rows_done, total=now.rows_total),
            )


def _show(result: services.ImportSummary, console: Console) -> None:
    """The counts, then each reason with its first rows."""
    console.print(
        f"{result.rows_done:,} rows: {result.accepted:,} accepted, {result.merged:,} merged into leads that were there,"
        f"{f' {result.skipped:,} skipped,' if result.skipped else ''} {result.rejected:,} rejected."
    )
    if not result.reasons:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("rows", justify="right")
    table.add_column("why")
    table.add_column("for example")
    for reason in result.reasons:
        row_number, message = reason.examples[0]
        # Text, since cells of the file stand in it: no markup is read in those.
        table.add_row(f"{reason.count:,}", reason.code.replace("_", " "), Text(f"row {row_number}: {message}"))
    console.print(table)
