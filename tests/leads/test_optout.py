"""Refusals and consent as rows: who is marked, what is remembered, and what outlives what."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.db import connection, transaction
from django.utils import timezone

from leads import consent, optout, services, suppression
from leads.audience import Audience
from leads.keywords import Kind
from leads.models import ConsentEvent, Lead, Suppression
from messaging.services import SendRefused, send_single
from tests.api_support import at_once
from tests.factories import make_device, make_user

pytestmark = pytest.mark.django_db

PHONE = "+60123456789"
API = ConsentEvent.Channel.API


def hear(owner, text, *, phone=PHONE, now=None):
    return optout.hear(owner_id=owner.pk, phone=phone, text=text, now=now or timezone.now())


def kinds(lead) -> list[str]:
    return [entry.kind.value for entry in consent.history(lead)]


def make_lead(owner, phone=PHONE, **fields) -> Lead:
    fields = {"consent_at": timezone.now() - timedelta(days=9), "consent_source": "Fair", **fields}
    return Lead.objects.create(owner=owner, phone=phone, **fields)


# -- What people write -------------------------------------------------------------------------------------------------


def test_stop_is_recorded_with_what_they_wrote_and_once(settings):
    settings.FLOTILLA_OPT_OUT_REPLY = "You will hear no more."
    owner = make_user()
    lead = make_lead(owner)
    first, second = hear(owner, " Stop! "), hear(owner, "STOP")
    assert (first.kind, first.changed, first.lead_id, first.reply) == (
        Kind.OPT_OUT, True, lead.pk, "You will hear no more.",
    )  # fmt: skip
    assert (second.kind, second.changed, second.reply) == (Kind.OPT_OUT, False, "")
    lead.refresh_from_db()
    newest, oldest = consent.history(lead)
    assert (newest.kind, newest.channel, newest.source) == ("opted_out", "reply", "Stop!")
    assert (oldest.kind, oldest.source) == ("given", "Fair")
    assert lead.opted_out_at == newest.happened_at


def test_a_near_miss_holds_the_lead_until_a_person_decides():
    owner, judge = make_user(), make_user()
    lead = make_lead(owner)
    assert hear(owner, "stop please").changed
    lead.refresh_from_db()
    since = lead.review_at
    assert since is not None
    assert lead.opted_out_at is None
    assert hear(owner, "please stop").kind is Kind.REVIEW
    lead.refresh_from_db()
    assert lead.review_at == since
    assert not Audience(owner_id=owner.pk).reachable().exists()
    assert Audience(owner_id=owner.pk).left_out() == {"in_review": 1}
    with pytest.raises(SendRefused, match="decide"):
        send_single(owner=owner, text="Hi", lead=lead, now=timezone.now())

    assert optout.dismiss_review(lead=lead, channel=API, now=timezone.now(), by=judge)
    assert not optout.dismiss_review(lead=lead, channel=API, now=timezone.now(), by=judge)
    assert lead.review_at is None
    assert consent.history(lead)[0].by == judge.get_username()
    hear(owner, "please stop")
    optout.opt_out(lead=lead, channel=API, now=timezone.now(), by=judge)
    assert (lead.review_at, lead.opted_out_at is None) == (None, False)
    assert kinds(lead) == ["opted_out", "held", "dismissed", "held", "held", "given"]


@pytest.mark.parametrize("text", ["don't stop", "hello", "", "START"])
def test_what_is_no_refusal_changes_nothing(text):
    owner = make_user()
    lead = make_lead(owner)
    assert hear(owner, text) == optout.Heard(Kind.NOTHING, lead.pk if text == "START" else None)
    lead.refresh_from_db()
    assert (lead.opted_out_at, lead.review_at, ConsentEvent.objects.count()) == (None, None, 0)


def test_start_takes_it_back_and_is_their_consent_from_then_on():
    owner = make_user()
    lead = make_lead(owner)
    hear(owner, "stop")
    assert hear(owner, "START").changed
    lead.refresh_from_db()
    assert (lead.opted_out_at, lead.consent_source) == (None, "Wrote “START”")
    assert kinds(lead) == ["opted_in", "opted_out", "given"]
    assert suppression.suppressed(owner_id=owner.pk, phones=[PHONE]) == {}
    hear(owner, "stop please")
    hear(owner, "start")
    lead.refresh_from_db()
    assert lead.review_at is None


def test_a_stranger_who_says_stop_is_remembered_and_may_change_their_mind():
    owner = make_user()
    assert hear(owner, "stop") == optout.Heard(Kind.OPT_OUT)
    assert make_stored(owner).opted_out_at is not None
    Lead.objects.all().delete()
    assert hear(owner, "start").changed
    assert make_stored(owner).opted_out_at is None


def make_stored(owner) -> Lead:
    return services.upsert_lead(owner=owner, phone=PHONE, region="MY", consent_source="Shop")[0]


def test_opting_in_needs_a_source():
    lead = make_lead(make_user())
    optout.opt_out(lead=lead, channel=API, now=timezone.now())
    with pytest.raises(optout.OptInRefused) as refused:
        optout.opt_in(lead=lead, channel=API, source="  ", now=timezone.now())
    assert refused.value.field == "source"
    assert optout.opt_in(lead=lead, channel=API, source="Shop counter", now=timezone.now())
    assert (lead.opted_out_at, lead.consent_source) == (None, "Shop counter")
    assert not optout.opt_in(lead=lead, channel=API, source="Again", now=timezone.now())


# -- What outlives what ------------------------------------------------------------------------------------------------


def test_every_way_in_notices_a_suppressed_number():
    owner = make_user()
    device = make_device(owner=owner)
    make_lead(owner, device=device)
    hear(owner, "stop")
    optout.delete_lead(lead=Lead.objects.get(), now=timezone.now())
    device.delete()

    def merged() -> None:
        services.upsert_lead(owner=owner, phone=PHONE, region="MY")

    def imported() -> None:
        made = services.create_import(
            owner=owner, file=ContentFile(f"name,phone\nA,{PHONE}\nB,+60123456780\n"), filename="a.csv", region="MY",
            consent_source="Fair",
        )  # fmt: skip
        services.run_import(import_id=made.pk)

    def sent() -> None:
        make_device(owner=owner, name="another")
        with pytest.raises(SendRefused, match="opted out"):
            send_single(owner=owner, phone=PHONE, text="Hi", now=timezone.now())
        merged()  # the refused call leaves no lead behind

    def renamed() -> None:
        lead = make_lead(owner, phone="+60123456781")
        with consent.editing(lead=lead, channel=API, now=timezone.now()):
            lead.phone = PHONE
            lead.save()

    for way_in in (merged, imported, sent, renamed):
        way_in()
        found = Lead.objects.get(phone=PHONE)
        assert found.opted_out_at is not None, way_in.__name__
        assert "suppressed" in kinds(found)
        found.delete()
    assert Lead.objects.get(phone="+60123456780").opted_out_at is None


def test_the_list_holds_no_number():
    owner = make_user()
    hear(owner, "stop")
    row = Suppression.objects.get()
    assert PHONE not in repr(row.__dict__)
    assert PHONE[1:] not in repr(row.__dict__)
    assert len(row.digest) == 64


def test_keys_change_and_the_old_ones_are_still_looked_under(settings):
    owner = make_user()
    settings.SUPPRESSION_KEYS = ["old"]
    hear(owner, "stop")
    settings.SUPPRESSION_KEYS = ["new", "old"]
    hear(owner, "stop", phone="+60123456780")
    assert set(suppression.suppressed(owner_id=owner.pk, phones=[PHONE, "+60123456780", "+60123456781"])) == {
        PHONE, "+60123456780",
    }  # fmt: skip
    assert Suppression.objects.values("key_id").distinct().count() == 2
    hear(owner, "start")
    assert set(suppression.suppressed(owner_id=owner.pk, phones=[PHONE, "+60123456780"])) == {"+60123456780"}
    settings.SUPPRESSION_KEYS = ["new"]
    with pytest.raises(ImproperlyConfigured, match="FLOTILLA_SUPPRESSION_KEYS") as refused:
        make_stored(owner)
    assert "old" not in str(refused.value)
    assert not Lead.objects.exists()


def test_whose_leads_a_refusal_speaks_for(settings):
    first, second, third = make_user(), make_user(), make_user()
    one, other = make_lead(first), make_lead(second)
    hear(first, "stop")
    other.refresh_from_db()
    assert other.opted_out_at is None
    settings.FLOTILLA_SUPPRESSION_SCOPE = "installation"
    hear(first, "stop")
    other.refresh_from_db()
    assert other.opted_out_at is not None
    assert make_stored(third).opted_out_at is not None
    # agreeing speaks for one owner only
    hear(second, "start")
    one.refresh_from_db()
    other.refresh_from_db()
    assert (one.opted_out_at is None, other.opted_out_at) == (False, None)
    other.delete()
    assert make_stored(second).opted_out_at is None
    hear(first, "stop")  # and a later refusal for all of them again
    assert Lead.objects.get(owner=second).opted_out_at is not None


@pytest.mark.django_db(transaction=True)
def test_a_lead_that_is_made_while_its_number_is_suppressed_is_marked_whoever_is_first():
    owners = [make_user() for _ in range(60)]

    def work(index: int) -> None:
        for owner in owners:
            barrier.wait(30)
            make_stored(owner) if index else hear(owner, "stop")

    barrier = threading.Barrier(2)
    at_once(2, work)
    assert Lead.objects.filter(opted_out_at__isnull=False).count() == 60


@pytest.mark.django_db(transaction=True)
def test_who_suppresses_waits_for_who_is_making_leads():
    """The race itself, held open: the lead is there but not committed when the refusal arrives."""
    owner = make_user()
    heard: list[optout.Heard] = []

    def refuse() -> None:
        heard.append(hear(owner, "stop"))
        connection.close()

    thread = threading.Thread(target=refuse)
    with transaction.atomic():
        make_stored(owner)
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        for _ in range(3000):
            with connection.cursor() as cursor:
                cursor.execute(waiting)
                if cursor.fetchone()[0]:
                    break
        else:
            pytest.fail("the refusal did not wait")
        assert heard == []
    thread.join(30)
    assert heard[0].changed
    assert Lead.objects.get().opted_out_at is not None


# -- Consent -----------------------------------------------------------------------------------------------------------


def test_no_consent_replaces_another():
    owner, editor = make_user(), make_user()
    lead = make_lead(owner)
    make_stored(owner)
    make_stored(owner)  # the same again is nothing new
    made = services.create_import(
        owner=owner, file=ContentFile(f"name,phone\nA,{PHONE}\n"), filename="a.csv", region="MY", consent_source="Web"
    )
    services.run_import(import_id=made.pk)
    lead.refresh_from_db()
    assert (lead.consent_source, [e.source for e in consent.history(lead)]) == ("Fair", ["Web", "Shop", "Fair"])
    with consent.editing(lead=lead, channel=ConsentEvent.Channel.ADMIN, now=timezone.now(), by=editor):
        lead.consent_at, lead.consent_source = timezone.now(), "Telephone"
        lead.save()
    newest = consent.history(lead)[0]
    assert (newest.source, newest.by) == ("Telephone", editor.get_username())
    assert sorted(e.source for e in consent.history(lead)) == ["Fair", "Shop", "Telephone", "Web"]


def test_a_first_import_writes_one_row_for_each_person():
    owner = make_user()
    rows = "".join(f"A,+6012345{n:04d}\n" for n in range(50))
    made = services.create_import(
        owner=owner, file=ContentFile(f"name,phone\n{rows}"), filename="a.csv", region="MY", consent_source="Fair"
    )
    services.run_import(import_id=made.pk)
    assert ConsentEvent.objects.count() == 0
    assert {entry.source for lead in Lead.objects.all() for entry in consent.history(lead)} == {"Fair"}


def test_a_waiver_lets_bulk_do_without_the_record_and_nothing_else():
    owner, admin = make_user(), make_user(role="admin")
    make_lead(owner)
    make_lead(owner, phone="+60123456780", consent_at=None)
    make_lead(owner, phone="+60123456781", consent_at=None, opted_out_at=timezone.now())
    audience = Audience(owner_id=owner.pk)
    assert (audience.reachable().count(), audience.left_out()) == (1, {"opted_out": 1, "no_consent": 1})
    waiver = consent.waive(owner=owner, reason="Customers of ours", by=admin, now=timezone.now())
    assert (audience.reachable().count(), audience.without_consent(), audience.left_out()) == (2, 1, {"opted_out": 1})
    assert Audience(owner_id=make_user().pk).left_out() == {}
    for reason, code in (("again", "in_force"), ("  ", "required")):
        with pytest.raises(consent.WaiverRefused) as refused:
            consent.waive(owner=owner, reason=reason, by=admin, now=timezone.now())
        assert refused.value.code == code
    assert consent.end_waiver(waiver=waiver, by=admin, now=timezone.now())
    assert not consent.end_waiver(waiver=waiver, by=admin, now=timezone.now())
    assert audience.reachable().count() == 1
    waiver.refresh_from_db()
    assert (waiver.made_by, waiver.ended_by, waiver.reason) == (admin, admin, "Customers of ours")
    consent.waive(owner=None, reason="Everybody agreed on paper", by=admin, now=timezone.now())
    assert audience.reachable().count() == 2
