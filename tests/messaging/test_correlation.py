"""One request can be followed through the logs of every program that works for it."""

from __future__ import annotations

import pytest
from django.test import Client

from campaigns.models import Run
from config.api.tokens import make_token
from messaging.dispatch.publish import all_bells
from messaging.models import Batch
from tests.factories import make_campaign, make_leads, make_pool, make_user
from tests.messaging.corridor import ticking, wait_for_the_end
from tests.programs import worker
from tests.simulator_process import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def test_a_request_is_named_from_the_api_call_to_the_gateway_call(broker, simulator, tmp_path):
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=3)
    make_leads(9, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool)
    headers = {"Authorization": f"Token {make_token(user=owner)[0]}", "X-Request-ID": "shop-4711"}
    log = tmp_path / "worker.log"
    with worker(simulator, log, queues=["control", *all_bells()]), ticking():
        answer = Client().post(f"/api/v1/campaigns/{campaign.pk}/launch", headers=headers)
        assert (answer.status_code, answer["X-Request-ID"]) == (202, "shop-4711"), answer.content
        wait_until(lambda: Run.objects.get().batch_id, what="the run's batch")
        batch = Batch.objects.get(pk=Run.objects.get().batch_id)
        wait_for_the_end(batch)
    assert batch.request_id == "shop-4711"
    mine = [line for line in log.read_text().splitlines() if "request_id='shop-4711'" in line]
    assert sum("event='run.filled'" in line for line in mine) == 1
    assert sum("event='send.platform'" in line for line in mine) == 9
    assert log.read_text().count("event='send.platform'") == 9


@pytest.mark.parametrize("offered", [None, "two words", "x" * 65, "break\tin"])
def test_a_request_without_a_sane_name_gets_one(offered):
    answer = Client().get("/healthz", headers={"X-Request-ID": offered} if offered else {})
    named = answer["X-Request-ID"]
    assert named != offered
    assert len(named) == 32
    assert answer.status_code == 200
