"""The programs of an installation by role."""

from __future__ import annotations

import pytest

from config.serving import ROLES, ServingProblem, serving, shards_of


def started(role, shards=4, **environment):
    return serving(role=role, environment=environment, shards=shards, state_dir="/state")


def queues(served):
    return served.argv[served.argv.index("-Q") + 1].split(",")


def test_every_queue_has_a_worker():
    asked = {queue for role in ("control", "devices", "sessions", "pairing") for queue in queues(started(role))}
    assert asked == {"control", "pairing", "devices.session", *(f"devices.http.{shard}" for shard in range(4))}


@pytest.mark.parametrize(("workers", "running"), [(1, 1), (2, 2), (3, 3), (3, 4), (3, 7), (4, 5)])
def test_no_shard_is_without_a_worker_however_many_are_added(workers, running):
    taken = [shards_of(ordinal=ordinal, workers=workers, shards=4) for ordinal in range(running)]
    assert {shard for shards in taken for shard in shards} == set(range(4))
    assert all(taken), "a worker without a shard would do nothing"
    assert sum(map(len, taken[:workers])) == 4, "those that are always there share the shards without overlap"


def test_a_device_worker_takes_the_shards_of_its_ordinal():
    second = started("devices", FLOTILLA_DEVICE_ORDINAL="1", FLOTILLA_DEVICE_WORKERS="2")
    assert queues(second) == ["devices.http.1", "devices.http.3"]
    assert second.argv[-1] == "devices-1@%h"


def test_more_workers_than_shards_are_refused():
    with pytest.raises(ServingProblem, match="FLOTILLA_SHARDS"):
        started("devices", FLOTILLA_DEVICE_ORDINAL="0", FLOTILLA_DEVICE_WORKERS="5")


def test_flower_never_comes_without_a_password_and_hides_the_one_it_gets():
    with pytest.raises(ServingProblem, match="FLOTILLA_FLOWER_PASSWORD"):
        started("flower")
    served = started("flower", FLOTILLA_FLOWER_PASSWORD="tide-and-time")
    assert "tide-and-time" not in repr(served)
    assert served.env["FLOWER_BASIC_AUTH"] == "admin:tide-and-time"


@pytest.mark.parametrize("role", ["sessions", "pairing"])
def test_what_opens_sessions_begins_with_the_bot_mark_off(role):
    assert started(role).env["NEONIZE_BOT_TAG"] == "off"


def test_a_number_that_is_none_is_named():
    with pytest.raises(ServingProblem, match=r"FLOTILLA_THREADS must be a whole number from 1, not “many”"):
        started("control", FLOTILLA_THREADS="many")


def test_all_roles_start():
    for role in ROLES:
        assert started(role, FLOTILLA_FLOWER_PASSWORD="x").argv[1] == "-m"
