"""/readyz, /metrics and the API's health and stats; alert rules and board name only what /metrics serves."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from config import watching
from devices.models import Device
from messaging import health, metrics
from messaging.dispatch.release import release_due
from messaging.health import Broker, Level, Numbers
from messaging.meters import SEND_BOUNDS, Meters
from messaging.models import WorkerProcess
from messaging.workers import Reporter, note_pulse
from tests.api_support import V1, broker_down, caller, problem, published
from tests.factories import make_batch, make_device, make_user

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
WELL = Numbers(devices={"active": 10}, ticks_silent_seconds=1.0, workers=2, device_workers=True, control_workers=True)


@pytest.fixture
def staffed(db: None, monkeypatch: pytest.MonkeyPatch) -> WorkerProcess:
    """A worker that takes everything and has sent three messages; ticks that run."""
    monkeypatch.setattr(watching, "_last", None)
    published()
    now, meters = timezone.now(), Meters()
    for seconds in (0.05, 0.2, 99.0):
        meters.note_send("sent", seconds=seconds)
    meters.note_send("failed", seconds=0.01)
    meters.note_release(5, seconds=0.002)
    note_pulse(now=now)
    return WorkerProcess.objects.create(
        name="all@h", host="h", pid=1, queues=["control", "devices.http.0"], started_at=now, seen_at=now,
        tasks=9, sent=3, failed=1, sent_per_minute=3, memory_mb=64, figures=meters.read(),
    )  # fmt: skip


def make_late() -> None:
    device = make_device(owner=make_user())
    make_batch(owner=device.owner, devices=[device])
    Device.objects.update(wake_at=timezone.now() - timedelta(minutes=5))


@pytest.mark.django_db(transaction=True)  # the release has connections of its own
class TestReady:
    def test_it_follows_what_goes_out(self, staffed, monkeypatch):
        assert Client().get("/readyz").json() == {"status": "ok", "overall": "healthy", "reasons": []}
        make_late()
        monkeypatch.setattr(watching, "_last", None)
        answer = Client().get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == [{"code": "release_late", "level": "critical"}]
        assert Client().get("/readyz/web").status_code == 200, "the admin must stay reachable"
        release_due()
        monkeypatch.setattr(watching, "_last", None)
        assert Client().get("/readyz").status_code == 200

    def test_a_broker_that_is_away_is_not_ready_but_alive(self, staffed):
        with broker_down():
            assert Client().get("/readyz").status_code == 503
            assert Client().get("/healthz").status_code == 200


class TestApi:
    @pytest.mark.parametrize(("role", "sees_all"), [("admin", True), ("ops", True), ("staff", False), ("team", False)])
    def test_who_sees_which_figures(self, staffed, role, sees_all):
        make_late()
        client = caller(role=role)
        told = client.get(f"{V1}/health").json()
        assert told["overall"] == "critical"
        assert [reason["code"] for reason in told["reasons"]] == ["release_late"]
        assert (told["queue"] is not None) == sees_all
        assert told["sessions"]["active"] == (1 if sees_all else 0)
        stats = client.get(f"{V1}/stats").json()
        assert (stats["total"], stats["pending"]) == ((1, 1) if sees_all else (0, 0))
        assert stats["sent_per_minute"] == (3 if sees_all else None)

    def test_staff_see_their_own(self, staffed):
        device = make_device(owner=make_user())
        make_batch(owner=device.owner, devices=[device], leads=4)
        client = caller(device.owner)
        assert client.get(f"{V1}/health").json()["sessions"]["active"] == 1
        assert client.get(f"{V1}/stats").json()["pending"] == 4

    def test_nobody_sees_nothing(self, staffed):
        for path in ("health", "stats"):
            problem(APIClient().get(f"{V1}/{path}"), 401, "not_authenticated")


def families(page: bytes) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(page.decode())}


class TestMetrics:
    def test_who_may_read_them(self, staffed, settings):
        assert caller(role="ops").get("/metrics").status_code == 200
        assert caller(role="admin").get("/metrics").status_code == 200
        assert caller(role="staff").get("/metrics").status_code == 403
        assert Client().get("/metrics").status_code == 401
        assert Client().get("/metrics", headers={"Authorization": "Bearer "}).status_code == 401
        settings.FLOTILLA_METRICS_TOKEN = "s3cret"
        assert Client().get("/metrics", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        assert Client().get("/metrics", headers={"Authorization": "Bearer other"}).status_code == 401

    def test_what_they_say(self, staffed):
        make_late()
        found = families(metrics.text(now=timezone.now()))
        assert found["flotilla_oldest_due_seconds"].samples[0].value >= 300
        assert {s.labels["code"] for s in found["flotilla_health_reason"].samples} == {"release_late"}
        assert {s.labels["state"]: s.value for s in found["flotilla_sends"].samples} == {"sent": 3, "failed": 1}
        buckets = {s.labels["le"]: s.value for s in found["flotilla_send_seconds"].samples if "le" in s.labels}
        assert (buckets["0.05"], buckets["0.25"], buckets["60.0"], buckets["+Inf"]) == (2, 3, 3, 4)
        assert len(buckets) == len(SEND_BOUNDS) + 1
        assert "device" not in {label for f in found.values() for s in f.samples for label in s.labels}

    def test_two_processes_of_one_name_are_one_series(self, staffed):
        now = timezone.now()
        WorkerProcess.objects.create(
            name="all@h", host="h", pid=2, started_at=now, seen_at=now + timedelta(seconds=1), tasks=1
        )
        found = families(metrics.text(now=now))
        assert [s.value for s in found["flotilla_worker_tasks"].samples] == [1]


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\bflotilla_\w+", text))


def rules() -> list[dict[str, Any]]:
    return yaml.safe_load((DEPLOY / "monitoring" / "alerts.yml").read_text())["groups"][0]["rules"]


def every_code() -> set[str]:
    """Of every reason the assessment can give, by asking it about each trouble."""
    troubles: list[dict[str, Any]] = [
        {"database": False}, {"broker": Broker(answers=False)}, {"incidents": 1}, {"resting_gateways": 1},
        {"broker": Broker(memory_bytes=1, memory_limit_bytes=1, control_tasks=1_000)}, {"workers_silent": ("a",)},
        {"halted": True}, {"ticks_silent_seconds": None}, {"queued": 1, "device_workers": False},
        {"oldest_due_seconds": 999.0}, {"oldest_queued_seconds": 999.0}, {"leases_expired": 1}, {"unknown": 1},
        {"failed_last_hour": 999}, {"devices": {"needs_attention": 1}},
    ]  # fmt: skip
    return {reason.code for trouble in troubles for reason in health.assess(replace(WELL, **trouble))}


class TestDeployed:
    def test_rules_and_board_name_only_what_is_served(self, staffed):
        make_device(owner=make_user())
        served = {sample.name for f in families(metrics.text(now=timezone.now())).values() for sample in f.samples} | {
            "flotilla_health_reason"
        }  # without samples while all is well
        board = json.loads((DEPLOY / "monitoring" / "grafana.json").read_text())
        shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        named = named_in(" ".join([*shown, *(rule["expr"] for rule in rules())]))
        assert len(named) > 20
        assert named <= served

    def test_every_alert_and_every_reason_has_its_part_of_the_runbook(self):
        parts = set(re.findall(r"^## (\w+)$", (DEPLOY / "RUNBOOK.md").read_text(), re.MULTILINE))
        linked = {rule["annotations"]["runbook"].removeprefix("RUNBOOK.md#") for rule in rules()}
        assert every_code() | linked == parts
        assert every_code() <= linked

    def test_critical_in_the_rules_is_critical_in_the_health(self):
        severe = {r["annotations"]["runbook"].split("#")[1] for r in rules() if r["labels"]["severity"] == "critical"}
        levels = {"database_away", "broker_away", "release_late", "no_device_worker", "ticks_silent", "unobserved"}
        assert severe == levels
        assert Level.CRITICAL.rank == 3


@pytest.mark.django_db(transaction=True)
def test_a_worker_tells_of_itself_and_says_goodbye():
    meters = Meters()
    reporter = Reporter(name="w@h", threads=4, queues=lambda: ["devices.http.1"], meters=meters)
    assert reporter.report()
    meters.note_send("sent", seconds=0.1)
    assert reporter.report()
    (row,) = WorkerProcess.objects.all()
    assert (row.name, row.queues, row.threads, row.sent, row.left_at) == ("w@h", ["devices.http.1"], 4, 1, None)
    assert row.memory_mb > 0
    assert row.figures["sends"] == {"sent": 1}
    reporter.stop()
    row.refresh_from_db()
    assert row.left_at is not None


def test_sent_per_minute_forgets_what_is_older():
    now = [0.0]
    meters = Meters(clock=lambda: now[0])
    for second in range(0, 130, 5):
        now[0] = float(second)
        meters.note_send("sent", seconds=0.1)
        told = meters.read()["sent_per_minute"]
    assert told == 12
    now[0] = 300.0
    meters.read()
    now[0] = 360.0
    assert meters.read()["sent_per_minute"] == 0
