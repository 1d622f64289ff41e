"""The doctor against real servers, healthy and not."""

from __future__ import annotations

import io
import socket

import pytest
import redis
from cryptography.fernet import Fernet
from django.core.management import call_command
from django.utils import timezone

from config import doctor
from devices.gateways.simulator import SimulatorDriver
from leads import suppression
from leads.models import Suppression
from messaging.dispatch.publish import all_bells
from tests.factories import make_device, make_user

ROOMY = {"maxmemory_policy": "noeviction", "aof_enabled": 1, "maxmemory": 512 << 20, "used_memory": 2 << 20}


def worst(findings):
    return [(finding.level, finding.text) for finding in findings if finding.level != "ok"]


@pytest.fixture
def broker(settings):
    """The test's own Valkey, put back as it was."""
    client = redis.Redis.from_url(settings.REDIS_URL)
    before = client.config_get("maxmemory-policy")["maxmemory-policy"]
    yield client
    client.config_set("maxmemory-policy", before)
    client.close()


@pytest.mark.django_db
def test_a_broker_that_throws_queues_away_is_found_on_the_real_server(broker):
    broker.config_set("maxmemory-policy", "allkeys-lru")
    assert any("allkeys-lru" in text for level, text in worst(doctor.broker_is_sound()) if level == "error")
    broker.config_set("maxmemory-policy", "noeviction")
    assert not any(level == "error" for level, _ in worst(doctor.broker_is_sound()))


@pytest.mark.parametrize(
    ("harm", "level", "word"),
    [
        ({"aof_enabled": 0}, "warning", "append-only"),
        ({"maxmemory": 0}, "warning", "maxmemory"),
        ({"used_memory": 500 << 20}, "error", "500 of 512 MB"),
        ({"evicted_keys": 3}, "warning", "3 keys"),
    ],
)
def test_what_the_broker_tells(harm, level, word):
    assert worst(doctor.broker_findings(ROOMY)) == []
    [(found, text)] = worst(doctor.broker_findings({**ROOMY, **harm}))
    assert found == level
    assert word in text


@pytest.mark.django_db
def test_the_migrated_database_is_healthy_and_an_unapplied_migration_is_found():
    from django.db.migrations.recorder import MigrationRecorder

    assert not any("migration" in text for _, text in worst(doctor.database_is_sound()))
    MigrationRecorder.Migration.objects.filter(app="config").latest("pk").delete()
    assert ("error", "1 migrations are not applied.") in worst(doctor.database_is_sound())


@pytest.mark.django_db
def test_a_shard_that_nobody_serves_is_named():
    heard = {"control", "pairing", *all_bells()}
    assert worst(doctor.coverage_findings(heard)) == []
    [(level, text)] = worst(doctor.coverage_findings(heard - {"devices.http.2"}))
    assert level == "error"
    assert "devices.http.2" in text


@pytest.mark.django_db
def test_sessions_without_a_host_are_found():
    make_device(owner=make_user(), gateway="whatsapp", credentials={"jid": "628110000001:3@s.whatsapp.net"}, lanes=1)
    assert any("no host" in text for _, text in worst(doctor.coverage_findings({"control", "pairing", *all_bells()})))


@pytest.mark.django_db
def test_a_gateway_where_nobody_listens_is_found():
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port meanwhile
        taken.bind(("127.0.0.1", 0))
        make_device(owner=make_user(), base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert any("does not answer" in text for _, text in worst(doctor.gateways_answer()))


@pytest.mark.django_db
def test_a_simulator_that_only_the_workers_are_told_of_is_no_fault(settings, monkeypatch):
    settings.FLOTILLA_GATEWAY_URLS = {}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(SimulatorDriver, "default_base_url", f"http://127.0.0.1:{taken.getsockname()[1]}")
        make_device(owner=make_user())
        [(level, text)] = worst(doctor.gateways_answer())
    assert level == "warning"
    assert "not told" in text


def test_a_broker_that_is_away_is_said_to_be_away(settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings.REDIS_URL = f"redis://:hunter2@127.0.0.1:{taken.getsockname()[1]}/0"
        [finding] = doctor.broker_is_sound()
    assert finding.level == "error"
    assert "does not answer" in finding.text
    assert "hunter2" not in finding.text + finding.remedy


@pytest.mark.django_db
def test_the_installation_is_asked_by_its_own_name(live_server, settings):
    settings.FLOTILLA_URL = live_server.url
    assert worst(doctor.webhooks_are_reachable()) == []
    settings.FLOTILLA_URL = f"{live_server.url}/elsewhere"
    [(level, text)] = worst(doctor.webhooks_are_reachable())
    assert level == "error"
    assert "404" in text


def test_keys_are_judged_and_never_told(settings):
    settings.SECRET_KEY, settings.FIELD_KEYS = "swordfish", ["not-a-fernet-key"]
    found = list(doctor.keys_are_sound())
    assert [finding.level for finding in found] == ["error", "error"]
    assert not any("swordfish" in finding.text + finding.remedy for finding in found)


@pytest.mark.parametrize(("free", "level"), [(100 << 20, "error"), (700 << 20, "warning"), (50 << 30, "ok")])
def test_room_on_the_disk(free, level):
    assert doctor.disk_finding(100 << 30, free).level == level


def test_a_check_that_breaks_is_a_finding_and_the_rest_goes_on(monkeypatch):
    def broken():
        raise OSError("postgresql://user:topsecret@host")

    monkeypatch.setattr(doctor, "CHECKS", (("database", broken), ("disk", doctor.disk_has_room)))
    found = list(doctor.examine())
    assert [finding.topic for finding in found] == ["database", "disk"]
    assert "topsecret" not in repr(found)


@pytest.mark.django_db
def test_the_command_says_every_remedy_and_ends_with_one():
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("doctor", stdout=out)
    assert ended.value.code == 1
    assert "No worker answers" in out.getvalue()
    assert out.getvalue().count("→") == out.getvalue().count("ERROR") + out.getvalue().count("warning  ")


@pytest.mark.django_db
def test_keys_that_are_not_the_ones_of_the_rows_are_found(settings):
    owner = make_user()
    make_device(owner=owner)
    why = Suppression.Reason.OPTED_OUT
    suppression.suppress(owner_id=owner.pk, phone="+60123456789", reason=why, now=timezone.now())
    assert worst(doctor.keys_fit_what_is_stored()) == []
    there, settings.FIELD_KEYS = settings.FIELD_KEYS, [Fernet.generate_key().decode()]
    [(level, text)] = worst(doctor.keys_fit_what_is_stored())
    assert (level, "1 cannot be read" in text) == ("error", True)
    settings.FIELD_KEYS = [*settings.FIELD_KEYS, *there]
    assert worst(doctor.keys_fit_what_is_stored()) == []
    settings.SUPPRESSION_KEYS = ["another key that is long enough"]
    [(level, text)] = worst(doctor.keys_fit_what_is_stored())
    assert level == "error"
    assert "FLOTILLA_SUPPRESSION_KEYS" in text
