"""The pages that people keep open, with very many rows behind them: each whole, by server time and by queries.

Ours: a GET of every main page of the admin by somebody who sees everything, through every middleware; half of the
messages wait, the others are through, one in a thousand has failed. The first round is not counted. The goals bound the
slowest page and the page with the most queries, which the lines name. There is no baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from campaigns.models import Campaign, Routing, Run
from campaigns.states import RunState
from config.bench import seeding
from config.bench.fan_out import new_batch
from config.bench.kind import Bench
from config.bench.reports import as_admin, make_run, milliseconds
from config.bench.results import Goal, Line
from config.bench.stage import Stage
from devices.models import Device
from leads.audience import Audience
from messaging import fanout
from messaging.models import Batch, Message


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and goals. ``messages``: half of them have been sent, half wait."""

    messages: int
    devices: int
    rounds: int
    most_milliseconds: float = 300
    most_queries: float = 30


FULL = Plan(messages=1_000_000, devices=3_000, rounds=7)
QUICK = Plan(messages=100_000, devices=3_000, rounds=3)


def run(stage: Stage, plan: Plan) -> list[Line]:
    """The rows, then every round of every page, then the lines."""
    stage.say("screens: preparing")
    seeding.clear()
    owner = seeding.make_owner()
    pool, devices = seeding.make_fleet(owner=owner, number=plan.devices)
    seeding.make_leads(owner=owner, number=plan.messages // 2)
    campaign = Campaign.objects.create(owner=owner, name="Bench", text=seeding.TEXT, routing=Routing.POOLED, pool=pool)
    through = make_run(campaign, devices=devices, messages=plan.messages // 2)
    going = _make_going(campaign, devices)
    seeding.settle()
    client = Client(SERVER_NAME="localhost")
    client.force_login(as_admin(owner))
    pages = addresses(through, going)
    took: dict[str, list[float]] = {page: [] for page in pages}
    queries: dict[str, int] = {}
    for number in range(plan.rounds + 1):
        stage.check()
        for page in pages:
            with CaptureQueriesContext(connection) as seen:
                passed = milliseconds(client, page)
            if number:
                took[page].append(passed)
                queries[page] = max(queries.get(page, 0), len(seen))
    for page in sorted(pages, key=lambda page: -median(took[page])):
        stage.say(f"screens: {median(took[page]):4.0f} ms  {queries[page]:2} queries  {page}")
    return lines(plan, took, queries)


def lines(plan: Plan, took: dict[str, list[float]], queries: dict[str, int]) -> list[Line]:
    """The slowest page, and the one that asks the most, against the goals."""
    slowest = max(took, key=lambda page: median(took[page]))
    asks_most = max(queries, key=lambda page: queries[page])
    rows = f"{plan.messages:,} messages over {plan.devices:,} devices"
    return [
        Line(
            name="screens",
            what=f"the slowest of {len(took)} pages of the admin with {rows}, whole, by server time",
            unit="ms",
            ours=took[slowest],
            goal=Goal(plan.most_milliseconds, "most", of="ours"),
            note=slowest,
        ),
        Line(
            name="screens_queries",
            what=f"queries of the page that asks the most, with {rows}",
            unit="queries",
            ours=[queries[asks_most]],
            goal=Goal(plan.most_queries, "most", of="ours"),
            note=asks_most,
        ),
    ]


def addresses(through: Run, going: Run) -> Sequence[str]:
    """Every main page, and the pages of a run that is through and one that is going."""
    some = Message.objects.filter(batch=through.batch).earliest("pk")
    runs = [f"/admin/campaigns/run/{run.pk}/{part}/" for run in (through, going) for part in ("change", "progress")]
    return (
        *(f"/admin/{page}" for page in ("", "overview/", "health/", "health/state/", "queues/", "queues/state/")),
        *(f"/admin/{page}" for page in ("workers/", "workers/state/", "devices/device/", "campaigns/campaign/")),
        *(f"/admin/{page}" for page in ("campaigns/run/", "campaigns/campaign/calendar/", "leads/lead/")),
        *(f"/admin/messaging/{page}" for page in ("message/", "message/?state__exact=failed", "batch/")),
        *runs,
        f"/admin/campaigns/run/{through.pk}/devices/",
        f"/admin/campaigns/campaign/{through.campaign_id}/change/",
        f"/admin/messaging/message/{some.pk}/change/",
        f"/admin/devices/device/{some.device_id}/change/",
        f"/admin/leads/lead/{some.lead_id}/timeline/",
    )


def _make_going(campaign: Campaign, devices: Sequence[Device]) -> Run:
    """A run to the same leads of which nothing has been sent yet."""
    batch: Batch = new_batch(owner=campaign.owner)
    leads = Audience(owner_id=campaign.owner_id).reachable()
    fanout.fill(batch_id=batch.pk, leads=leads, devices=[device.pk for device in devices])
    now = timezone.now()
    return Run.objects.create(
        campaign=campaign, occurrence="bench going", state=RunState.TRIGGERED, batch=batch, planned_at=now,
        triggered_at=now,
    )  # fmt: skip


BENCH = Bench(name="screens", run=run, full=FULL, quick=QUICK)
