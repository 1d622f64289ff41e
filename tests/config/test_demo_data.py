"""Demo data comes as a whole, looks as if it had happened, and goes without a trace."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from campaigns import services as campaigns
from campaigns.models import Campaign, Run
from campaigns.states import RunState
from config.demo_data import adding, removing
from config.models import DemoData
from devices.models import Device
from leads.models import Lead, Segment
from leads.rules import parse
from messaging import days
from messaging.media.store import keep
from messaging.models import Batch, DayCount, Message
from sequences import services as sequences
from sequences.models import Enrolment, Sequence
from tests.factories import make_batch, make_device, make_leads, make_user
from tests.messaging.recount import assert_counters_hold

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_files(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path


CURSORS = {"messaging_daycursor", "sequences_feed", "campaigns_answercursor"}
"""One row or few that say how far ticks have read: they move on whatever happens."""


def everything(folder: Path) -> dict[str, object]:
    """Every row of every table, and every file."""
    found: dict[str, object] = {"files": sorted(path.name for path in folder.rglob("*") if path.is_file())}
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM "{table}" t')  # noqa: S608
            found[table] = cursor.fetchone()[0]
    return found


def tick() -> None:
    """What beat would do meanwhile."""
    later = timezone.now() + timedelta(minutes=1)
    campaigns.tick(now=later)
    sequences.tick(now=later)
    days.take_in(now=later)


def test_it_comes_whole_and_goes_without_a_trace(tmp_path):
    somebody = make_user(username="demo")  # a real person, who keeps their name
    make_batch(owner=somebody, devices=[make_device(owner=somebody)], leads=3)
    keep(owner=somebody, data=b"%PDF-1.4 same", name="same.pdf")
    tick()
    before = everything(tmp_path)

    call_command("demo_data", "add")
    owner = DemoData.objects.get().owner
    assert (owner.username, owner.has_usable_password()) == ("demo-2", False)
    assert Lead.objects.filter(owner=owner, consent_at__isnull=False, opted_out_at__isnull=True).count() == 58
    run = Run.objects.get(campaign__owner=owner)
    counts = campaigns.progress(run)
    assert run.state == RunState.FINISHED
    assert counts.total == counts.settled == 58
    assert counts.sent + counts.failed == 58
    assert counts.failed > 0
    assert_counters_hold()
    assert parse(Segment.objects.get(owner=owner).rules)
    assert Campaign.objects.filter(owner=owner, state="draft").exists()
    assert Enrolment.objects.filter(sequence__owner=owner, state="active").count() == 12

    tick()
    assert not Message.objects.filter(batch__owner=owner, state__in=["pending", "queued", "sending"]).exists()
    charted = DayCount.objects.filter(device__owner=owner, day__lt=days.today(timezone.now()))
    assert sum(row.sent for row in charted) == counts.sent
    keep(owner=owner, data=b"%PDF-1.4 same", name="same.pdf")
    keep(owner=owner, data=b"%PDF-1.4 own", name="own.pdf")
    with pytest.raises(CommandError, match="already"):
        call_command("demo_data", "add")

    call_command("demo_data", "remove")
    after = everything(tmp_path)
    assert {name for name in before if before[name] != after[name]} <= CURSORS
    assert removing.remove() == 0


@pytest.mark.parametrize("tie", ["batch", "campaign", "lead", "sending"])
def test_nothing_of_anybody_else_goes_or_changes(tie, tmp_path):
    adding.add(now=timezone.now())
    owner, device = DemoData.objects.get().owner, Device.objects.filter(name="Lighthouse").get()
    somebody = make_user()
    if tie == "batch":
        make_batch(owner=somebody, devices=[device])
    elif tie == "campaign":
        Campaign.objects.create(owner=somebody, name="Theirs", text="x", pool=device.pool, routing="pooled")
    elif tie == "lead":
        make_leads(1, owner=somebody, device=device)
    else:
        first = Message.objects.filter(batch__owner=owner).order_by("pk").values_list("pk", flat=True).first()
        Message.objects.filter(pk=first).update(state="sending", lane=0)
    before = everything(tmp_path)
    with pytest.raises(removing.CannotRemove):
        removing.remove()
    assert everything(tmp_path) == before


def test_production_wants_a_word_more(settings):
    settings.PRODUCTION = True
    with pytest.raises(CommandError, match="--yes"):
        call_command("demo_data", "add")
    assert not User.objects.exists()
    call_command("demo_data", "add", yes=True)
    assert Batch.objects.count() == 1
    with pytest.raises(CommandError, match="--yes"):
        call_command("demo_data", "remove")
    call_command("demo_data", "remove", yes=True)
    assert not User.objects.exists()
    assert not Sequence.objects.exists()
