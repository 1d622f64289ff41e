"""Segments, and lists of leads, over a million of them.

There is no baseline: the goals are what a person who waits for a page puts up with. Everything is asked through the web
application, as a browser and an API client would, from the request to the answer: the count of unsaved rules, and pages
of the API's list and of the admin's, by filter, name and segment. Each line is the 95th percentile over its requests;
the first request of each kind is not counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group, User
from django.db import connection
from django.http import HttpResponseBase
from django.test import Client

from config.bench import seeding
from config.bench.fan_out import new_batch
from config.bench.kind import Bench
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import Stage
from devices.access import Role
from devices.admin_base import BoundedPaginator, OwnedAdmin
from devices.models import Device
from leads.models import Segment

RULES: Mapping[str, dict[str, Any]] = {
    "everybody": {},
    "customers": {"status": "customer"},
    "any tag": {"niches_any": ["N3", "N7"]},
    "all tags": {"niches_any": ["N3"], "triggers_all": ["T2"]},
    "no tag": {"status": "customer", "niches_none": ["N1", "N2"]},
    "own field": {"custom": {"city": "Ipoh"}},
    "rare own field": {"custom": {"city": "Taiping"}},
    "consent": {"consent": True, "opted_out": False, "in_review": False},
    "opted out": {"opted_out": True},
    "one device": {"device": 1},
    "added lately": {"created_from": {"days_ago": 30}},
    "never reached": {"reached": False},
    "sent lately": {"sent_since": {"days_ago": 3}},
    "not lately": {"status": "customer", "not_sent_since": {"days_ago": 7}},
    "replied": {"replied_since": {"days_ago": 10}},
    "tag, replied": {"niches_any": ["N3"], "replied_since": {"days_ago": 10}, "opted_out": False},
}
FILTERS = (
    "", "status=customer", "niche=N3", "trigger=T2", "device=1", "opted_out=true", "in_review=true",
    "phone=%2B60120000007", "name=Lead+77",
)  # fmt: skip
ADMIN_FILTERS = (
    "", "status__exact=customer", "niches=N3", "opted_out=yes", "consent=no", "in_review=yes", "q=Lead", "q=Lead+77",
    "q=nobody",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and goals."""

    leads: int
    rounds: int
    count_bound_ms: float = 1000
    page_bound_ms: float = 300


FULL = Plan(leads=1_000_000, rounds=3)
QUICK = Plan(leads=100_000, rounds=2)


def run(stage: Stage, plan: Plan) -> list[Line]:
    """Counts, then pages."""
    stage.say("segments: preparing")
    seeding.clear()
    owner = seeding.make_owner()
    owner.groups.add(Group.objects.get_or_create(name=Role.STAFF.value)[0])
    User.objects.filter(pk=owner.pk).update(is_staff=True)
    _, devices = seeding.make_fleet(owner=owner, number=100)
    make_people(owner=owner, devices=devices, number=plan.leads)
    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(owner)
    made = {name: Segment.objects.create(owner=owner, name=name, rules=rules) for name, rules in RULES.items()}

    def count(rules: dict[str, Any]) -> Callable[[], HttpResponseBase]:
        body = json.dumps({"rules": rules})
        return lambda: client.post("/api/v1/segments/count", body, content_type="application/json")

    def get(address: str) -> Callable[[], HttpResponseBase]:
        return lambda: client.get(address)

    counts = {name: count(rules) for name, rules in RULES.items()}
    lists = {f"list {query}": get(f"/api/v1/leads?{query}") for query in FILTERS}
    narrowed = {f"list of {name}": get(f"/api/v1/leads?segment={each.pk}") for name, each in made.items()}
    deepest = f"p={min(BoundedPaginator.bound, plan.leads) // OwnedAdmin.list_per_page}"
    pages = {f"admin {query}": get(f"/admin/leads/lead/?{query}") for query in (*ADMIN_FILTERS, deepest)}
    pages |= {f"admin {name}": get(f"/admin/leads/lead/?segment={each.pk}") for name, each in made.items()}
    kinds: tuple[tuple[str, str, Mapping[str, Callable[[], HttpResponseBase]], float], ...] = (
        ("segments_count", "a count of unsaved rules", counts, plan.count_bound_ms),
        ("segments_list", "a page of the API's list by filter", lists, plan.page_bound_ms),
        ("segments_page", "a page of the API's list by segment", narrowed, plan.page_bound_ms),
        (
            "segments_admin",
            "a page of the admin's list by filter, name and segment",
            pages,
            plan.page_bound_ms,
        ),
    )
    try:
        return [
            _line(stage, plan, name=name, what=what, asked=asked, bound=bound) for name, what, asked, bound in kinds
        ]
    finally:
        Segment.objects.filter(owner=owner).delete()


def _line(
    stage: Stage,
    plan: Plan,
    *,
    name: str,
    what: str,
    asked: Mapping[str, Callable[[], HttpResponseBase]],
    bound: float,
) -> Line:
    """The 95th percentile of one kind of request, round by round; what each took stands in the note."""
    taken: dict[str, list[float]] = {each: [] for each in asked}
    for number in range(plan.rounds + 1):
        for each, ask in asked.items():
            stage.check()
            milliseconds = _timed(each, ask)
            if number:
                taken[each].append(milliseconds)
    note = ", ".join(f"{each or 'all'} {max(figures):.0f}" for each, figures in taken.items())
    stage.say(f"{name}, slowest of {plan.rounds}, in ms: {note}")
    rounds = [p95([figures[number] for figures in taken.values()]) for number in range(plan.rounds)]
    what = f"{what}, {plan.leads:,} leads"
    return Line(name=f"{name}_p95", what=what, unit="ms", ours=rounds, goal=Goal(bound, "most", "ours"), note=note)


def _timed(name: str, ask: Callable[[], HttpResponseBase]) -> float:
    started = time.perf_counter()
    answer = ask()
    milliseconds = 1000 * (time.perf_counter() - started)
    if answer.status_code != 200:
        raise BenchFailed(f"“{name}” was answered with {answer.status_code}")
    return milliseconds


def p95(figures: list[float]) -> float:
    """The smallest figure that 95 of 100 do not exceed."""
    ordered = sorted(figures)
    return ordered[-(-95 * len(ordered) // 100) - 1]


def make_people(*, owner: User, devices: list[Device], number: int) -> None:
    """Leads with tags, own fields, devices and a year of arrival; messages to three of five; replies of one in 25."""
    batch = new_batch(owner=owner)
    device = devices[0]
    stream = batch.streams.create(device=device)
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO leads_lead (owner_id, phone, name, status, niches, triggers, notes, custom, device_id,
                                       consent_at, consent_source, opted_out_at, review_at, created_at, updated_at)
               SELECT %(owner)s, '+6012' || lpad(n::text, 7, '0'), 'Lead ' || n,
                      CASE WHEN n %% 3 = 0 THEN 'customer' ELSE 'prospect' END,
                      ARRAY['N' || n %% 20, 'N' || n %% 23], ARRAY['T' || n %% 11], '',
                      jsonb_build_object('city', (ARRAY['Ipoh', 'Johor Bahru', 'Kuala Lumpur', 'Melaka'])[1 + n %% 4]),
                      (%(devices)s::bigint[])[1 + n %% cardinality(%(devices)s::bigint[])],
                      CASE WHEN n %% 50 > 0 THEN now() END, 'bench',
                      CASE WHEN n %% 200 = 7 THEN now() END, CASE WHEN n %% 5000 = 9 THEN now() END,
                      now() - make_interval(secs => (%(number)s - n) * 31536000.0 / %(number)s), now()
               FROM generate_series(0, %(number)s - 1) n""",
            {"owner": owner.pk, "devices": [each.pk for each in devices], "number": number},
        )
        cursor.execute(
            """INSERT INTO messaging_message (batch_id, stream_id, device_id, lead_id, phone, due_at, state, sent_at)
               SELECT %s, %s, %s, id, phone, now(), CASE WHEN id %% 5 < 3 THEN 'sent' ELSE 'pending' END,
                      CASE WHEN id %% 5 < 3 THEN now() - make_interval(hours => (id %% 720)::int) END
               FROM leads_lead ORDER BY id""",
            [batch.pk, stream.pk, device.pk],
        )
        cursor.execute(
            """INSERT INTO messaging_inboundmessage (gateway, event_id, device_id, lead_id, phone, text, external_id,
                                                     written_at, received_at)
               SELECT 'simulator', 'bench-' || id, %s, id, phone, 'Yes, please', '', now(),
                      now() - make_interval(hours => (id %% 720)::int)
               FROM leads_lead WHERE id %% 25 = 3 ORDER BY id""",
            [device.pk],
        )
    seeding.settle()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE) messaging_inboundmessage")


BENCH = Bench(name="segments", run=run, full=FULL, quick=QUICK)
