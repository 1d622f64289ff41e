from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from campaigns.models import Campaign, CampaignState, Run, RunState
from campaigns.services import tick, trigger
from devices.models import Pool
from messaging.models import Batch, BatchState, Message, Stream
from tests.api_support import V1, at_once, broker_down, caller, fields_of, problem, published
from tests.factories import make_campaign, make_device, make_leads, make_pool, make_user

pytestmark = pytest.mark.django_db

NEW = {"name": "Spring", "text": "Hello {{ name or 'friend' }}"}


def test_a_campaign_is_made_edited_and_deleted():
    client = caller()
    made = client.post(f"{V1}/campaigns", {**NEW, "niches": ["coffee"]})
    assert made.status_code == 201
    assert (made.json()["state"], made.json()["niches"]) == ("draft", ["coffee"])
    address = f"{V1}/campaigns/{made.json()['id']}"
    assert client.patch(address, {"name": "Summer"}).json()["name"] == "Summer"
    assert client.patch(address, {"state": "scheduled"}).json()["state"] == "draft"
    assert client.delete(address).status_code == 204
    assert Campaign.objects.count() == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"text": "{{ oops"}, "text"),
        ({"routing": "pooled"}, "pool"),
        ({"schedule": "at"}, "scheduled_at"),
        ({"schedule": "cron", "cron": "every day"}, "cron"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"delay_min_seconds": 30, "delay_max_seconds": 1}, "delay_max_seconds"),
        ({"expires_after_days": 0}, "expires_after_days"),
    ],
)
def test_what_the_model_refuses_is_said_at_its_field(change, field):
    client = caller()
    assert set(fields_of(problem(client.post(f"{V1}/campaigns", {**NEW, **change}), 400, "invalid"))) == {field}
    campaign = make_campaign(owner=client.user)
    assert set(fields_of(problem(client.patch(f"{V1}/campaigns/{campaign.pk}", change), 400, "invalid"))) == {field}


def test_launching_twice_is_one_run():
    client = caller()
    campaign = make_campaign(owner=client.user)
    first, second = (client.post(f"{V1}/campaigns/{campaign.pk}/launch") for _ in range(2))
    assert (first.status_code, first.json()["created"]) == (202, True)
    assert (second.status_code, second.json()["created"]) == (200, False)
    assert first.json()["run"]["id"] == second.json()["run"]["id"] == Run.objects.get().pk
    assert first.json()["run"]["progress"]["total"] == 0


@pytest.mark.django_db(transaction=True)
def test_ten_launches_at_once_are_one_run_each_with_its_own_key():
    published()
    user = make_user()
    campaign = make_campaign(owner=user)
    clients = [caller(user) for _ in range(10)]
    answers = at_once(
        10,
        lambda index: clients[index].post(
            f"{V1}/campaigns/{campaign.pk}/launch", headers={"Idempotency-Key": f"click-{index}"}
        ),
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [202]
    assert published() == [("campaigns.trigger", {"run_id": Run.objects.get().pk})]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "a"}])
def test_a_launch_is_accepted_while_the_broker_is_down(headers):
    client = caller()
    campaign = make_campaign(owner=client.user)
    with broker_down():
        answer = client.post(f"{V1}/campaigns/{campaign.pk}/launch", headers=headers)
    assert (answer.status_code, answer.json()["run"]["state"]) == (202, "pending")
    tick(now=timezone.now())  # what beat calls triggers it
    assert Run.objects.get().state == RunState.FINISHED
    assert published() == []


def test_a_campaign_that_is_not_ready_names_every_reason():
    client = caller()
    campaign = make_campaign(owner=client.user)
    Campaign.objects.filter(pk=campaign.pk).update(state=CampaignState.CANCELLED, text="{{ oops")
    body = problem(client.post(f"{V1}/campaigns/{campaign.pk}/launch"), 422, "refused")
    assert fields_of(body) == {"text": "invalid", "state": "cancelled"}
    assert Run.objects.count() == 0


def test_a_run_from_launch_to_cancel():
    client = caller()
    pool, _ = make_pool(owner=client.user, devices=2)
    make_leads(6, owner=client.user)
    make_leads(1, owner=client.user, opted_out_at=timezone.now())
    campaign = make_campaign(owner=client.user, pool=pool)
    run_id = client.post(f"{V1}/campaigns/{campaign.pk}/launch").json()["run"]["id"]
    address = f"{V1}/runs/{run_id}"
    problem(client.post(f"{address}/pause"), 409, "wrong_state")  # nothing to pause before it is triggered

    trigger(run_id=run_id, now=timezone.now())
    run = client.get(address).json()
    assert (run["state"], run["batch_state"], run["left_out"]) == ("triggered", "running", {"opted_out": 1})
    assert (run["progress"]["total"], run["progress"]["pending"], run["progress"]["percent"]) == (6, 6, 0)

    for _ in range(2):
        answer = client.post(f"{address}/pause")
        assert (answer.status_code, answer.json()["batch_state"]) == (200, "paused")
    for _ in range(2):
        answer = client.post(f"{address}/resume")
        assert (answer.status_code, answer.json()["batch_state"]) == (200, "running")
    for _ in range(2):
        answer = client.post(f"{address}/cancel")
        assert (answer.status_code, answer.json()["batch_state"]) == (200, "cancelled")
    assert answer.json()["progress"]["cancelled"] == 6
    assert answer.json()["progress"]["percent"] == 100
    problem(client.post(f"{address}/resume"), 409, "wrong_state")
    tick(now=timezone.now())
    assert client.get(address).json()["state"] == "finished"
    assert set(Message.objects.values_list("state", flat=True)) == {"cancelled"}


def test_a_launched_campaign_is_kept():
    client = caller()
    campaign = make_campaign(owner=client.user)
    client.post(f"{V1}/campaigns/{campaign.pk}/launch")
    problem(client.delete(f"{V1}/campaigns/{campaign.pk}"), 409, "has_runs")
    assert (Campaign.objects.count(), Run.objects.count()) == (1, 1)


def test_a_pool_that_a_campaign_uses_is_kept():
    client = caller()
    pool, _ = make_pool(owner=client.user, devices=1)
    make_campaign(owner=client.user, pool=pool)
    problem(client.delete(f"{V1}/pools/{pool.pk}"), 409, "in_use")
    assert Pool.objects.filter(pk=pool.pk).exists()


def make_runs(number: int, *, campaign: Campaign) -> list[Run]:
    """Finished runs, each with a batch of its own on one device."""
    device = make_device(owner=campaign.owner)
    rows = []
    for n in range(number):
        batch = Batch.objects.create(
            owner=campaign.owner, name="b", content={}, state=BatchState.FINISHED, expires_at=timezone.now()
        )
        Stream.objects.create(batch=batch, device=device, total=10, sent=n % 7, failed=10 - n % 7)
        occurrence = f"{campaign.pk}-{Run.objects.count()}"
        rows.append(
            Run.objects.create(
                campaign=campaign,
                occurrence=occurrence,
                batch=batch,
                planned_at=timezone.now(),
                state=RunState.FINISHED,
            )
        )
    return rows


def test_lists_of_runs_show_progress_and_filter():
    client = caller()
    one, two = make_campaign(owner=client.user), make_campaign(owner=client.user)
    (a,), (b,) = make_runs(1, campaign=one), make_runs(1, campaign=two)
    Run.objects.filter(pk=b.pk).update(state=RunState.MISSED)
    for address, expected in (
        ("runs", [b, a]), (f"runs?campaign={one.pk}", [a]), ("runs?state=missed", [b]),
        (f"campaigns/{one.pk}/runs", [a]),
    ):  # fmt: skip
        found = client.get(f"{V1}/{address}").json()["results"]
        assert [run["id"] for run in found] == [run.pk for run in expected], address
        assert all(run["progress"]["total"] == 10 for run in found)


@pytest.mark.parametrize("address", ["runs", "campaigns/{campaign}/runs"])
def test_a_page_of_runs_costs_the_same_for_one_and_for_thirty(address):
    client, counts = caller(), []
    campaign = make_campaign(owner=client.user)
    client.get(f"{V1}/runs")  # writes down that the token was used, once a minute
    for number in (1, 29):
        make_runs(number, campaign=campaign)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(f"{V1}/{address.format(campaign=campaign.pk)}").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 9


def test_campaigns_are_filtered():
    client = caller()
    a = make_campaign(owner=client.user, schedule="cron", cron="0 9 * * *")
    b = make_campaign(owner=client.user, state=CampaignState.PAUSED)
    for query, expected in (("schedule=cron", [a]), ("state=paused", [b]), ("routing=own", [b, a])):
        found = client.get(f"{V1}/campaigns?{query}").json()["results"]
        assert [row["id"] for row in found] == [row.pk for row in expected], query
