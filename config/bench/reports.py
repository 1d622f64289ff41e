"""The device report of a large run as a person opens it: the whole page, by server time.

Ours: a GET of the report's address by somebody who is signed in, through every middleware, with counters and template;
the first is not counted. Its goal is a bound on our own figure. A second line compares the same page of a run with a
tenth of the messages over the same devices: it may not depend on how many there are. The last lines open what stands
behind two of its cards: the first page of the leads who got the message, and of the few whose message failed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone

from campaigns.models import Campaign, Routing, Run
from campaigns.states import RunState
from config.bench import seeding
from config.bench.fan_out import new_batch
from config.bench.kind import Bench
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import Stage
from devices.models import Device
from leads.audience import Audience
from messaging import fanout
from messaging.models import Message

FAILED_EVERY = 1000
"""One message in so many has failed; the others have been sent, and half of them were delivered."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and goals."""

    messages: int
    devices: int
    rounds: int
    most_milliseconds: float = 200
    most_ratio: float = 1.25
    list_milliseconds: float = 300


FULL = Plan(messages=1_000_000, devices=3_000, rounds=9)
QUICK = Plan(messages=100_000, devices=3_000, rounds=5)


def run(stage: Stage, plan: Plan) -> list[Line]:
    """Two runs, then every round, then the lines."""
    stage.say("reports: preparing")
    seeding.clear()
    owner = seeding.make_owner()
    pool, devices = seeding.make_fleet(owner=owner, number=plan.devices)
    seeding.make_leads(owner=owner, number=plan.messages)
    campaign = Campaign.objects.create(owner=owner, name="Bench", text=seeding.TEXT, routing=Routing.POOLED, pool=pool)
    small = make_run(campaign, devices=devices, messages=plan.messages // 10)
    large = make_run(campaign, devices=devices, messages=plan.messages)
    seeding.settle()
    client = Client(SERVER_NAME="localhost")
    client.force_login(as_admin(owner))
    pages: dict[str, list[float]] = {"large": [], "small": [], "sent": [], "failed": []}
    leads = f"/admin/messaging/message/?of=run-{large.pk}&archived=all&state__exact="
    addresses = {
        "large": f"/admin/campaigns/run/{large.pk}/devices/",
        "small": f"/admin/campaigns/run/{small.pk}/devices/",
        "sent": f"{leads}all_sent",
        "failed": f"{leads}failed",
    }
    for _ in range(plan.rounds + 1):
        stage.check()
        for name, address in addresses.items():
            pages[name].append(milliseconds(client, address))
    return lines(plan, {name: took[1:] for name, took in pages.items()})


def lines(plan: Plan, took: dict[str, list[float]]) -> list[Line]:
    """What was measured, against the goals."""
    of = f"of a run of {plan.messages:,} messages over {plan.devices:,} devices"
    here, most = "the whole page, by server time", Goal(plan.list_milliseconds, "most", of="ours")
    return [
        Line(
            name="reports",
            what=f"device report {of}; {here}",
            unit="ms",
            ours=took["large"],
            goal=Goal(plan.most_milliseconds, "most", of="ours"),
        ),
        Line(
            name="reports_ten_times_the_rows",
            what=f"the same page {of}; baseline: of a run with a tenth of them over the same devices",
            unit="ms",
            ours=took["large"],
            baseline=took["small"],
            goal=Goal(plan.most_ratio, "most"),
        ),
        Line(
            name="reports_leads_sent",
            what=f"the leads behind “Sent” {of}; {here}",
            unit="ms",
            ours=took["sent"],
            goal=most,
        ),
        Line(
            name="reports_leads_failed",
            what=f"the leads behind “Failed” (1 in {FAILED_EVERY:,}) {of}; {here}",
            unit="ms",
            ours=took["failed"],
            goal=most,
        ),
    ]


def as_admin(owner: User) -> User:
    """Whoever looks: somebody with the most to look through."""
    owner.is_staff = owner.is_superuser = True
    owner.save(update_fields=["is_staff", "is_superuser"])
    return owner


def make_run(campaign: Campaign, *, devices: list[Device], messages: int) -> Run:
    """A run that is through: filled by the fan-out, then settled by two statements, rows and counters alike."""
    batch = new_batch(owner=campaign.owner)
    leads = Audience(owner_id=campaign.owner_id).reachable()
    last = leads.order_by("pk").values_list("pk", flat=True)[messages - 1]
    fanout.fill(batch_id=batch.pk, leads=leads.filter(pk__lte=last), devices=[device.pk for device in devices])
    if Message.objects.filter(batch=batch)[: messages + 1].count() != messages:
        raise BenchFailed(f"the run was not filled with {messages:,} messages")
    settle(batch.pk)
    now = timezone.now()
    return Run.objects.create(
        campaign=campaign,
        occurrence=f"bench {messages}",
        state=RunState.FINISHED,
        batch=batch,
        planned_at=now,
        triggered_at=now,
        finished_at=now,
    )


def settle(batch_id: int) -> None:
    """What a run looks like afterwards."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE messaging_message
               SET state = CASE WHEN id %% %s = 0 THEN 'failed' WHEN id %% 2 = 0 THEN 'delivered' ELSE 'sent' END,
                   sent_at = CASE WHEN id %% %s = 0 THEN NULL ELSE now() END,
                   delivered_at = CASE WHEN id %% %s <> 0 AND id %% 2 = 0 THEN now() END
               WHERE batch_id = %s""",
            [FAILED_EVERY, FAILED_EVERY, FAILED_EVERY, batch_id],
        )
        cursor.execute(
            """UPDATE messaging_stream s SET waiting = 0, is_open = false, sent = c.sent, delivered = c.delivered,
                      failed = c.failed
               FROM (SELECT stream_id, count(*) FILTER (WHERE state <> 'failed') sent,
                            count(*) FILTER (WHERE state = 'delivered') delivered,
                            count(*) FILTER (WHERE state = 'failed') failed
                     FROM messaging_message WHERE batch_id = %s GROUP BY stream_id) c
               WHERE s.id = c.stream_id""",
            [batch_id],
        )


def milliseconds(client: Client, address: str) -> float:
    """Of one answer, whole."""
    started = time.perf_counter()
    answer = client.get(address)
    took = 1000 * (time.perf_counter() - started)
    if answer.status_code != 200:
        raise BenchFailed(f"{address} answered {answer.status_code}")
    return took


BENCH = Bench(name="reports", run=run, full=FULL, quick=QUICK)
