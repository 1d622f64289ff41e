"""One campaign from a CSV of leads to the phones, told step by step in the terminal."""

from __future__ import annotations

import time
from pathlib import Path

from django.conf import settings
from django.core.files import File
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from campaigns import services as campaigns
from campaigns.models import Run, RunState
from config.demo.drip import drip
from config.demo.fleet import FAULTS, Cast, make_campaign, make_cast
from config.demo.ledger import Judge
from config.demo.verdict import Verdict, judge
from leads import services as leads
from leads.models import LeadImport
from messaging import halting
from messaging.services import Counts

STALLED_SECONDS = 120.0
CONSENT = "Demo list: agreed at the counter"


class VoyageFailed(Exception):  # noqa: N818 - reads as a fact
    """The demo cannot go on, in one line for a person."""


def sail(
    *, console: Console, source: Path, devices: int, judge_url: str, judge_token: str, web_url: str = ""
) -> Verdict:
    """Import, launch, watch, compare; then a sequence. Raises VoyageFailed."""
    if (halt := halting.current()) is not None:
        because = f" ({halt.reason})" if halt.reason else ""
        raise VoyageFailed(f"Everything is stopped{because}. manage.py resume goes on.")
    witness = Judge(url=judge_url, token=judge_token)
    witness.set_faults(FAULTS)
    cast = make_cast(devices=devices)
    console.print(f"\n[bold]1. Leads[/]  {source}")
    import_leads(console=console, cast=cast, source=source)

    campaign = make_campaign(cast=cast)
    seen = campaigns.preview(campaign)
    console.print(
        f"\n[bold]2. Campaign[/]  “{campaign.name}” to {seen.eligible:,} leads over {seen.devices:,} devices"
        + (f" (left out: {_reasons(seen.left_out)})" if seen.left_out else "")
    )
    run = campaigns.launch(campaign=campaign, now=timezone.now()).run
    run = watch(console=console, run=run)

    console.print("\n[bold]3. What reached the phones[/]  by the simulator's own ledger")
    assert run.batch_id is not None  # noqa: S101 - a run that failed to start was told in watch()
    verdict = judge(batch_id=run.batch_id, entries=witness.entries())
    report(console=console, counts=campaigns.progress(run), verdict=verdict)
    drip(console=console, cast=cast, witness=witness, web_url=web_url)
    return verdict


def import_leads(*, console: Console, cast: Cast, source: Path) -> LeadImport:
    """The file through the same import that the admin and the API offer."""
    try:
        with source.open("rb") as file:
            lead_import = leads.create_import(
                owner=cast.owner,
                file=File(file, name=source.name),
                filename=source.name,
                region=settings.FLOTILLA_DEFAULT_REGION,
                consent_source=CONSENT,
            )
    except OSError as problem:
        raise VoyageFailed(f"{source} cannot be read: {problem.strerror or problem}.") from None
    lead_import = leads.run_import(import_id=lead_import.pk)
    if lead_import.state == LeadImport.State.FAILED:
        raise VoyageFailed(f"{source} cannot be imported: {lead_import.error}")
    summary = leads.summary(lead_import)
    table = Table("", "rows", "why", box=None, padding=(0, 2, 0, 3))
    table.add_row("[green]accepted[/]", f"{lead_import.accepted:,}", "new leads")
    table.add_row("[blue]merged[/]", f"{lead_import.merged:,}", "the same person again, in the file or from before")
    for number, reason in enumerate(summary.reasons):
        head = ("[red]rejected[/]", f"{lead_import.rejected:,}") if not number else ("", "")
        rows = ", ".join(str(row) for row, _ in reason.examples)
        more = " …" if reason.count > len(reason.examples) else ""
        table.add_row(*head, f"{reason.count:,} × {_short(reason.examples[0][1])} [dim](row {rows}{more})[/]")
    console.print(table)
    return lead_import


def watch(*, console: Console, run: Run) -> Run:
    """Follow the run to its end with a progress bar. Raises VoyageFailed when it fails or nothing moves any more."""
    columns = (
        TextColumn("   {task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=5) as progress:
        bar = progress.add_task("sending", total=None, rate="")
        started = moved_at = time.monotonic()
        last = -1
        while True:
            run.refresh_from_db()
            counts = campaigns.progress(run)
            now = time.monotonic()
            if counts.settled != last:
                last, moved_at = counts.settled, now
            rate = 60 * counts.settled / max(now - started, 0.1)
            progress.update(bar, completed=counts.settled, total=counts.total or None, rate=f"{rate:,.0f}/min")
            if run.state == RunState.FAILED:
                raise VoyageFailed(f"The run failed: {run.reason}")
            if run.state == RunState.FINISHED:
                break
            if now - moved_at > STALLED_SECONDS:
                raise VoyageFailed(
                    f"Nothing has moved for {STALLED_SECONDS:.0f} s at {counts.settled:,} of {counts.total:,}; "
                    "the logs below .local/logs say more."
                )
            time.sleep(0.2)
    if run.batch_id is None:
        raise VoyageFailed(f"There was nobody to write to: {run.reason}")
    return run


def report(*, console: Console, counts: Counts, verdict: Verdict) -> None:
    """The end of the story, in figures."""
    table = Table("", "messages", box=None, padding=(0, 2, 0, 3))
    table.add_row("in the campaign", f"{counts.total:,}")
    table.add_row("[green]sent[/]", f"{counts.sent:,}")
    table.add_row("[red]failed, with the reason kept[/]", f"{counts.failed + counts.cancelled + counts.expired:,}")
    table.add_row("[yellow]unknown[/]", f"{counts.unknown:,}")
    table.add_row("delivered, says the ledger", f"{verdict.delivered:,}")
    table.add_row("repeats the gateway dropped by our id", f"{verdict.repeats_dropped:,}")
    console.print(table)
    style = "bold green" if verdict.clean else "bold red"
    console.print(
        f"   [{style}]lost {len(verdict.lost)}   duplicated {len(verdict.duplicated)}   "
        f"unaccounted {len(verdict.unaccounted)}   devices out of order {len(verdict.out_of_order)}[/]"
    )


def _short(text: str) -> str:
    """What is wrong, without the remedy, which the admin and the API show in full."""
    return text.split(":", 1)[0].rstrip(".")


def _reasons(left_out: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in left_out.items())
