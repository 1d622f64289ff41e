"""Segments: rules as JSON, rules as a query, and the doors through which they are used."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaigns import services as campaigns
from leads import engagement, segments
from leads.audience import Audience
from leads.models import Lead, Segment
from leads.rules import ENGAGEMENT, NAMES, Rules, RulesRefused, parse
from messaging.models import InboundMessage, Message
from messaging.services import open_batch
from tests.api_support import V1, caller, fields_of, problem
from tests.browsing import signed_in
from tests.factories import make_campaign, make_device, make_leads, make_pool, make_user, messages_of

KUALA_LUMPUR = ZoneInfo("Asia/Kuala_Lumpur")
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def refused(rules: object) -> dict[str, str]:
    with pytest.raises(RulesRefused) as info:
        parse(rules)
    return {each.field: f"{each.code}: {each.text}" for each in info.value.problems}


# -- Rules as JSON -----------------------------------------------------------------------------------------------------


def test_every_rule_is_read_and_written_back():
    given_rules: dict[str, Any] = {
        "status": "customer", "niches_any": [" car ", "car", ""][:2], "custom": {"age": 5, "vip": True, "7": "x"},
        "consent": False, "created_from": "2026-01-31", "created_before": "2026-02-01T09:00:00+08:00",
        "replied_since": {"days_ago": 30}, "triggers_none": [], "opted_out": None,
    }  # fmt: skip
    rules = parse(given_rules)
    assert rules.niches_any == ("car",)
    assert dict(rules.custom) == {"age": "5", "vip": "true", "7": "x"}
    assert rules.to_json()["replied_since"] == {"days_ago": 30}
    assert "triggers_none" not in rules.to_json()
    assert parse(rules.to_json()) == rules
    assert parse({}).to_json() == {}
    assert tuple(field.name for field in fields(Rules)) == NAMES


def test_moments_are_settled_in_the_zone_of_now():
    rules = parse({"created_from": "2026-01-31", "created_before": "2026-02-01T09:00", "sent_since": {"days_ago": 1}})
    settled = rules.settled(now=NOW.astimezone(KUALA_LUMPUR))
    assert settled.created_from == datetime(2026, 1, 30, 16, tzinfo=UTC)
    assert settled.created_before == datetime(2026, 2, 1, 1, tzinfo=UTC)
    assert settled.sent_since == NOW - DAY
    assert parse(settled.to_json()) == settled
    assert rules.created_from == date(2026, 1, 31)


@pytest.mark.parametrize(
    ("rules", "field", "words"),
    [
        ({"stauts": "x"}, "stauts", "Known: status"),
        ({"status": "lost"}, "status", "use prospect or customer"),
        ({"niches_any": "car"}, "niches_any", "give a list"),
        ({"niches_all": [1]}, "niches_all", "text"),
        ({"triggers_none": ["x" * 61]}, "triggers_none", "at most 60"),
        ({"custom": ["city"]}, "custom", "own fields"),
        ({"custom": {"city": "a\0"}}, "custom", "NUL"),
        ({"custom": {"city": 1.5}}, "custom", "text"),
        ({"consent": "yes"}, "consent", "true or false"),
        ({"device": True}, "device", "id of a device"),
        ({"device": 2**63}, "device", "id of a device"),
        ({"created_from": "yesterday"}, "created_from", "2026-01-31"),
        ({"created_from": "9999-12-31"}, "created_from", "2026-01-31"),
        ({"sent_since": {"days_ago": -1}}, "sent_since", "days_ago"),
        ([], "", "object"),
    ],
)  # fmt: skip
def test_a_bad_rule_is_named_with_the_remedy(rules, field, words):
    assert words in refused(rules)[field]


def test_all_problems_are_told_at_once():
    assert set(refused({"status": "x", "consent": 1, "nope": 1, "niches_any": ["ok"]})) == {"status", "consent", "nope"}


# -- Rules as a query --------------------------------------------------------------------------------------------------

TAG = st.sampled_from(["car", "cartoon", "Car", "50% off_", "ä"])
OWN_NAME = st.sampled_from(["city", "1", "a__b"])
OWN = st.dictionaries(
    OWN_NAME,
    st.sampled_from(["Ipoh", "5", "", 5, True, None, "true"]),
    max_size=3,
)
MOMENTS = [NOW - 3 * DAY, NOW - 2 * DAY, NOW - DAY, NOW]
SOME = st.sampled_from(MOMENTS)
MAYBE = st.one_of(st.none(), SOME)
PERSON = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["prospect", "customer"]),
        "niches": st.lists(TAG, max_size=2, unique=True),
        "triggers": st.lists(TAG, max_size=2, unique=True),
        "custom": OWN,
        "consent_at": MAYBE,
        "opted_out_at": MAYBE,
        "review_at": MAYBE,
        "device": st.sampled_from([None, 0, 1]),
        "created_at": SOME,
        "sent": st.lists(MAYBE, max_size=2),
        "heard": st.lists(SOME, max_size=2),
    }
)
TAGS = st.lists(TAG, min_size=1, max_size=2)
WHEN = st.sampled_from([*(moment.isoformat() for moment in MOMENTS), {"days_ago": 1}, {"days_ago": 2}])
ASKED: dict[str, st.SearchStrategy[Any]] = {
    "status": st.sampled_from(["prospect", "customer"]),
    **{f"{tags}_{how}": TAGS for tags in ("niches", "triggers") for how in ("any", "all", "none")},
    "custom": st.dictionaries(
        st.sampled_from(["city", "1", "a__b"]), st.sampled_from(["Ipoh", "5", "true"]), max_size=2
    ),
    **{name: st.lists(st.sampled_from(["city", "1", "a__b"]), max_size=2) for name in ("custom_set", "custom_unset")},
    **dict.fromkeys(("consent", "opted_out", "in_review", "has_device", "reached"), st.booleans()),
    "device": st.sampled_from([0, 1]),
    **dict.fromkeys(("created_from", "created_before", "sent_since", "not_sent_since", "replied_since"), WHEN),
}
ASKING = st.lists(st.sampled_from(sorted(ASKED)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: ASKED[name] for name in names})
)


def text_of(value: Any) -> str | None:
    """An own field's value as PostgreSQL's ->> writes it."""
    return {True: "true", False: "false", None: None}[value] if isinstance(value, bool | None) else str(value)


def holds(name: str, value: Any, person: dict[str, Any]) -> bool:
    """One rule in plain Python; moments are settled, devices are positions."""
    if name.startswith(("niches_", "triggers_")):
        kind, how = name.split("_")
        has, wanted = set(person[kind]), set(value)
        return {"any": bool(has & wanted), "all": wanted <= has, "none": not has & wanted}[how]
    own = {key: text_of(given_value) for key, given_value in person["custom"].items()}
    sent, heard = [moment for moment in person["sent"] if moment], person["heard"]
    return {
        "status": lambda: person["status"] == value,
        "custom": lambda: all(own.get(key) == text for key, text in value),
        "custom_set": lambda: all(own.get(key) for key in value),
        "custom_unset": lambda: not any(own.get(key) for key in value),
        "consent": lambda: (person["consent_at"] is not None) == value,
        "opted_out": lambda: (person["opted_out_at"] is not None) == value,
        "in_review": lambda: (person["review_at"] is not None) == value,
        "has_device": lambda: (person["device"] is not None) == value,
        "device": lambda: person["device"] == value - 1,
        "created_from": lambda: person["created_at"] >= value,
        "created_before": lambda: person["created_at"] < value,
        "reached": lambda: bool(sent) == value,
        "sent_since": lambda: any(moment >= value for moment in sent),
        "not_sent_since": lambda: not any(moment >= value for moment in sent),
        "replied_since": lambda: any(moment >= value for moment in heard),
    }[name]()


def stored(owner: User, people: list[dict[str, Any]], devices: list[Any]) -> list[Lead]:
    """The people as rows, with messages and replies. Outside the batch's way: only what segments look at."""
    leads = []
    batch = open_batch(owner=owner, name="b", content={"type": "text", "text": "t"}, now=NOW)
    stream = batch.streams.create(device=devices[0])
    for number, person in enumerate(people):
        columns = {key: value for key, value in person.items() if key not in {"device", "sent", "heard"}}
        device = None if person["device"] is None else devices[person["device"]]
        leads += make_leads(1, owner=owner, device=device, **columns)
        for again, moment in enumerate(person["sent"]):
            Message.objects.create(batch=batch, stream=stream, device=devices[0], lead=leads[-1], sent_at=moment,
                                   state="sent" if moment else "pending", phone=f"{number}-{again}")  # fmt: skip
        for again, moment in enumerate(person["heard"]):
            InboundMessage.objects.create(gateway="simulator", event_id=f"{owner.pk}-{number}-{again}", lead=leads[-1],
                                          device=devices[0], text="", written_at=NOW, received_at=moment)  # fmt: skip
    return leads


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(people=st.lists(PERSON, min_size=1, max_size=6), asking=st.lists(ASKING, min_size=4, max_size=8))
def test_the_query_agrees_with_plain_python(people, asking):
    owner = make_user()
    devices = [make_device(owner=owner) for _ in range(2)]
    leads = stored(owner, people, devices)
    make_leads(1, owner=make_user())  # somebody else's matches nothing of ours
    for asked in asking:
        rules = parse({**asked, "device": asked["device"] + 1} if "device" in asked else asked).settled(now=NOW)
        expected = {
            lead.pk
            for lead, person in zip(leads, people, strict=True)
            if all(holds(name, value, person) for name, value in rules.asked())
        }
        real = parse({**rules.to_json(), "device": devices[rules.device - 1].pk} if rules.device else rules.to_json())
        assert set(Audience(owner_id=owner.pk, rules=real).leads().values_list("pk", flat=True)) == expected, asked
        assert segments.count(owner_id=owner.pk, rules=real, now=NOW) == len(expected)


def test_every_rule_about_engagement_is_filled_in_once():
    for rule in ENGAGEMENT:
        assert engagement.condition_of(rule, NOW if rule.endswith("since") else True)
        with pytest.raises(ValueError, match="already"):
            engagement.register(rule=rule, condition=lambda value: SimpleNamespace())  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="no rule about engagement"):
        engagement.register(rule="status", condition=lambda value: SimpleNamespace())  # type: ignore[arg-type,return-value]


# -- API ---------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_segment_over_rest_from_the_count_to_the_list():
    client = caller()
    wanted = make_leads(2, owner=client.user, niches=["car"], status="customer")
    make_leads(1, owner=client.user, niches=["cartoon"], status="customer")
    make_leads(3, owner=make_user(), niches=["car"], status="customer")
    rules = {"niches_any": [" car "], "status": "customer", "triggers_any": []}
    assert client.post(f"{V1}/segments/count", {"rules": rules}).json() == {"count": 2}
    made = client.post(f"{V1}/segments", {"name": "Drivers", "rules": rules}).json()
    assert made["rules"] == {"niches_any": ["car"], "status": "customer"}
    assert client.get(f"{V1}/segments/{made['id']}").json()["count"] == 2
    listed = client.get(f"{V1}/leads?segment={made['id']}").json()["results"]
    assert [lead["id"] for lead in listed] == [lead.pk for lead in reversed(wanted)]
    assert len(client.get(f"{V1}/leads?segment={made['id']}&niche=cartoon").json()["results"]) == 0
    problem(client.post(f"{V1}/segments", {"name": "Drivers"}), 400, "invalid")

    admin = caller(role="admin")  # sees everybody's leads, and of the segment only its owner's
    assert len(admin.get(f"{V1}/leads?segment={made['id']}").json()["results"]) == 2
    for stranger in (caller(), caller(role="team")):
        assert fields_of(problem(stranger.get(f"{V1}/leads?segment={made['id']}"), 400, "invalid")) == {
            "segment": "does_not_exist"
        }


@pytest.mark.django_db
def test_bad_rules_are_told_at_their_place():
    client = caller()
    theirs = make_device(owner=make_user())
    answer = client.post(f"{V1}/segments", {"name": "x", "rules": {"status": "x", "nope": 1}})
    assert fields_of(problem(answer, 400, "invalid")) == {"rules.status": "invalid", "rules.nope": "unknown_rule"}
    answer = client.post(f"{V1}/segments/count", {"rules": {"consent": "maybe"}})
    assert fields_of(problem(answer, 400, "invalid")) == {"rules.consent": "invalid"}
    assert fields_of(problem(client.post(f"{V1}/segments/count", {}), 400, "invalid")) == {"rules": "required"}
    assert fields_of(problem(client.post(f"{V1}/segments/count", {"rules": []}), 400, "invalid")) == {
        "rules": "invalid"
    }
    answer = client.post(f"{V1}/segments", {"name": "x", "rules": {"device": theirs.pk}})
    assert fields_of(problem(answer, 400, "invalid")) == {"rules": "does_not_exist"}


# -- Campaigns ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_campaign_speaks_to_its_segment_as_it_is_when_triggered():
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=1)
    segment = Segment.objects.create(owner=owner, name="s", rules={"niches_any": ["car"], "reached": False})
    early, late = make_leads(1, owner=owner, niches=["car"]), make_leads(1, owner=owner, niches=["cartoon"])
    refusing = make_leads(1, owner=owner, niches=["car"], opted_out_at=timezone.now())
    campaign = make_campaign(owner=owner, pool=pool, segment=segment)
    seen = campaigns.preview(campaign)
    assert (seen.total, seen.eligible, seen.left_out) == (2, 1, {"opted_out": len(refusing)})
    run = campaigns.launch(campaign=campaign, now=timezone.now()).run
    Segment.objects.update(rules={"niches_any": ["cartoon"], "created_from": {"days_ago": 1}})
    run = campaigns.trigger(run_id=run.pk, now=timezone.now())
    assert run.batch is not None
    assert [message.lead_id for message in messages_of(run.batch)] == [late[0].pk]
    assert run.audience["rules"]["niches_any"] == ["cartoon"]
    assert isinstance(run.audience["rules"]["created_from"], str)  # settled
    assert json.loads(json.dumps(Audience.from_json(run.audience).to_json())) == run.audience
    assert early[0].messages.count() == 0


@pytest.mark.django_db
def test_a_segment_that_a_campaign_uses_stays():
    client = caller()
    segment = Segment.objects.create(owner=client.user, name="s")
    made = client.post(f"{V1}/campaigns", {"name": "n", "text": "t", "segment": segment.pk})
    assert made.json()["segment"] == segment.pk
    problem(client.delete(f"{V1}/segments/{segment.pk}"), 409, "in_use")


# -- Admin -------------------------------------------------------------------------------------------------------------

PAGES = "/admin/leads/segment/"


@pytest.mark.django_db
def test_a_segment_on_its_page_is_counted_saved_and_shown_again():
    owner = make_user()
    device = make_device(owner=owner)
    client = signed_in(owner)
    make_leads(2, owner=owner, niches=["car"], custom={"city": "Ipoh"}, device=device)
    make_leads(1, owner=owner, niches=["car"], custom={"city": "Perak"})
    typed = {
        "name": "Ipoh", "niches_any": "car, boat", "custom": "city = Ipoh", "created_from": "30", "reached": "no",
        "device": str(device.pk),
    }  # fmt: skip
    assert client.post(f"{PAGES}count/", typed).json() == {"text": "2 leads"}
    assert "segment.js" in client.get(f"{PAGES}add/").content.decode()
    assert client.post(f"{PAGES}add/", typed).status_code == 302
    segment = Segment.objects.get()
    assert segment.rules == {
        "niches_any": ["car", "boat"], "custom": {"city": "Ipoh"}, "created_from": {"days_ago": 30}, "reached": False,
        "device": device.pk,
    }  # fmt: skip
    shown = client.get(f"{PAGES}{segment.pk}/change/")
    assert f'data-segment="{segment.pk}"' in shown.content.decode()
    again = {name: value for name in typed if (value := shown.context["adminform"].form[name].value())}
    assert {name: str(value) for name, value in again.items()} == typed
    client.post(f"{PAGES}{segment.pk}/change/", {**typed, "created_from": ""})
    assert "created_from" not in Segment.objects.get().rules
    listed = client.get(f"/admin/leads/lead/?segment={segment.pk}").context["cl"].queryset
    assert listed.count() == 2


@pytest.mark.django_db
def test_a_page_says_what_is_wrong_at_the_field_and_saves_nothing():
    client = signed_in(make_user())
    typed = {"name": "x", "custom": "city", "created_from": "soon", "niches_any": "x" * 61}
    assert "write it as: city = Ipoh" in client.post(f"{PAGES}count/", typed).json()["text"]
    errors = client.post(f"{PAGES}add/", {**typed, "custom": ""}).context["adminform"].form.errors
    assert {"created_from", "niches_any"} == set(errors)
    assert not Segment.objects.exists()


@pytest.mark.django_db
def test_pages_keep_segments_to_their_owner():
    owner, stranger = make_user(), make_user()
    segment = Segment.objects.create(owner=owner, name="Secret list")
    make_leads(2, owner=owner)
    boss = signed_in(make_user(role="admin"))
    assert boss.post(f"{PAGES}count/", {"segment": segment.pk}).json() == {"text": "2 leads"}
    assert boss.post(f"{PAGES}count/", {"owner": owner.pk}).json() == {"text": "2 leads"}
    other = signed_in(stranger)
    assert other.post(f"{PAGES}count/", {"owner": owner.pk}).json() == {"text": "0 leads"}
    assert other.post(f"{PAGES}count/", {"segment": segment.pk}).status_code == 404
    assert other.get(f"{PAGES}count/").status_code == 405
    assert "Secret list" not in other.get("/admin/leads/lead/").content.decode()
    assert other.get(f"/admin/leads/lead/?segment={segment.pk}").context["cl"].queryset.count() == 0
    for role in ("team", "ops"):
        assert signed_in(make_user(role=role)).post(f"{PAGES}count/", {}).status_code == 403
