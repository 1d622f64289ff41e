"""Yesterday's state comes back in the middle of a campaign, and nobody hears anything twice."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from random import Random

import pytest
from cryptography.fernet import Fernet
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from campaigns.models import Campaign, Run
from campaigns.services import tick as campaigns_tick
from config.backup import sealing
from config.backup.problems import BackupProblem
from config.chaos import gateway as forgetful
from devices.clients import ClientRegistry
from devices.gateways.news import Receipt
from devices.models import Device
from messaging import halting, look_ups
from messaging.dispatch.pool import Pool, shared_pool
from messaging.dispatch.release import release_next
from messaging.dispatch.send import Sender
from messaging.media.store import keep
from messaging.models import Attempt, Batch, Halt, Message
from messaging.receipts import apply_receipts
from messaging.settling import settle, settle_due
from messaging.states import State
from sequences.models import Sequence
from tests.factories import make_batch, make_campaign, make_device, make_pool, make_user, messages_of
from tests.messaging.recount import assert_counters_hold
from tests.simulator_process import running_simulator

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

PHONES = 4


@pytest.fixture(scope="module")
def simulator():
    with running_simulator() as found:
        yield found


@pytest.fixture(autouse=True)
def house(simulator, settings, tmp_path, monkeypatch):
    from devices.gateways import registry

    monkeypatch.setattr(registry, "_BY_KIND", dict(registry._BY_KIND))
    forgetful.known_here()
    settings.FLOTILLA_GATEWAY_URLS = {"simulator": simulator.url, forgetful.FORGETFUL: simulator.url}
    settings.FLOTILLA_UNKNOWN_POLICY = {"": "resend"}  # chosen for crashes; a restore is another matter
    settings.MEDIA_ROOT = tmp_path / "media"
    cache.clear()
    simulator.reset()


@contextmanager
def another_database():
    """An empty database of the same server is the default one for a while."""
    ours, name = connection.settings_dict["NAME"], "restored_here"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name}")
    _let_go()
    connection.settings_dict["NAME"] = name
    try:
        yield
    finally:
        _let_go()
        connection.settings_dict["NAME"] = ours
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _let_go() -> None:
    """Whoever wants a connection opens a new one."""
    connection.close()
    shared_pool().close()


@contextmanager
def a_sender():
    """A worker's sender, with connections to whatever the default database is now."""
    pool, clients = Pool(size=2), ClientRegistry()
    try:
        yield Sender(pool=pool, clients=clients, rng=Random(1))
    finally:
        clients.close()
        pool.close()


def send(devices, *, most: int = 100) -> int:
    """Release and send what is due, up to ``most`` of each device; how many were released."""
    number = 0
    with a_sender() as sender:
        for device in devices:
            for _ in range(most):
                if (released := release_next(device_id=device.pk)) is None:
                    break
                sender.send(message_id=released.message_id, release_no=released.release_no)
                number += 1
    return number


def said(*arguments, **options) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, **options)
    return out.getvalue()


def reference(message: Message) -> str:
    return f"{message.pk}-{message.round}-{message.uid.hex[:12]}"


def states(batch: Batch) -> dict[str, int]:
    return dict(Counter(message.state for message in messages_of(batch)))


def deliveries(simulator) -> Counter[str]:
    return Counter(entry["phone"] for entry in simulator.ledger() if entry["delivered"])


def an_hour_later() -> None:
    """As if the restore had been an hour ago, for those who wait before they ask."""
    before = timezone.now() - timedelta(hours=1)
    Attempt.objects.filter(outcome="unknown").update(finished_at=before)
    Message.objects.filter(state=State.UNKNOWN).update(due_at=before)


def a_world(simulator):
    """Three devices, by what their gateways remember, each in the middle of a batch; and what else was under way."""
    owner = make_user(username="keeper")
    pool, _ = make_pool(owner=owner, devices=0)
    remembers = make_device(owner=owner)
    forgets = make_device(owner=owner, gateway=forgetful.FORGETFUL, pool=pool)
    searched = make_device(
        owner=owner, gateway="wablas", base_url=f"{simulator.url}/wablas",
        credentials={"token": "sim-searched", "secret_key": "k3y"},
    )  # fmt: skip
    devices = [remembers, forgets, searched]
    batches = [make_batch(owner=owner, devices=[device], leads=PHONES) for device in devices]
    assert send(devices, most=1) == 3
    return owner, devices, batches


def test_yesterdays_state_is_finished_without_a_second_send(simulator, tmp_path, settings):  # noqa: PLR0915 - one story
    owner, devices, (dropped, held, asked) = a_world(simulator)
    remembers, forgets, searched = devices
    moving = make_batch(owner=owner, devices=[searched], leads=1, failover=True)
    later = make_batch(owner=owner, devices=[forgets], leads=1)
    Message.objects.filter(batch=later).update(due_at=timezone.now() + timedelta(days=1))
    document = keep(owner=owner, data=b"%PDF-1.4 a price list", name="prices.pdf")
    told = said("backup", str(tmp_path / "kept" / "yesterday"), keys=tmp_path / "apart" / "keys.env")
    assert "1 files" in told

    # What the backup will know nothing of: messages go out, one by a batch that may move, and new ones are made.
    assert send([searched], most=1) + send(devices, most=2) == 7
    lost = make_batch(owner=owner, devices=[remembers], leads=2)
    send([remembers])
    lost_references = {message.pk: reference(message) for message in messages_of(lost)}
    assert set(deliveries(simulator).values()) == {1}
    before = deliveries(simulator)
    assert {message.phone for message in messages_of(moving)} <= before.keys()

    settings.MEDIA_ROOT = tmp_path / "new place"
    with another_database():
        told = said("restore", str(tmp_path / "kept" / "yesterday"))
        assert "STOP ALL is in force" in told
        assert "Restored from the backup" in Halt.objects.get(ended_at__isnull=True).reason
        document.refresh_from_db()
        assert document.path.read_bytes() == b"%PDF-1.4 a price list"
        assert document.path.is_relative_to(tmp_path / "new place")
        assert states(dropped) == {State.SENT: 1, State.PENDING: 3}
        assert states(held) == states(asked) == {State.SENT: 1, State.UNKNOWN: 3}
        assert states(moving) == {State.UNKNOWN: 1}
        assert states(later) == {State.PENDING: 1}
        assert_counters_hold()
        assert send(devices) == 0, "it is halted"
        assert Device.objects.get(pk=searched.pk).credentials == {"token": "sim-searched", "secret_key": "k3y"}

        assert halting.resume(now=timezone.now())
        assert send(devices) == 3, "only what its gateway drops if it has it"
        an_hour_later()
        assert look_ups.look_up(settle_due()) == 3
        assert states(asked) == {State.SENT: 3, State.PENDING: 1}, "two were found, one surely is not there"
        assert states(held) == {State.SENT: 1, State.UNKNOWN: 3}, "held, whatever the policy"
        assert states(moving) == {State.UNKNOWN: 1}, "another device may have it: its own is not even asked"

        gone = before.keys() & {message.phone for message in messages_of(held)}
        receipts = [
            Receipt(f"late-{message.pk}", "delivered", timezone.now(), reference(message), "", forgets.pk)
            for message in messages_of(held)
            if message.state == State.UNKNOWN and message.phone in gone
        ]
        assert apply_receipts(gateway=forgetful.FORGETFUL, receipts=receipts).moved == 2
        (left,) = Message.objects.filter(batch=held, state=State.UNKNOWN)
        assert settle(message_ids=[left.pk], verdict="resend", user=owner, now=timezone.now()).settled == 1
        Message.objects.filter(state=State.PENDING).exclude(batch=later).update(due_at=timezone.now())
        send(devices)

        # Numbers of the lost time are given again, to other messages, which no gateway takes for those.
        new = make_batch(owner=owner, devices=[remembers], leads=4)
        references = {message.pk: reference(message) for message in messages_of(new)}
        again = references.keys() & lost_references.keys()
        assert again
        assert all(references[pk] != lost_references[pk] for pk in again)
        send(devices)
        assert states(new) == {State.SENT: 4}
        assert states(dropped) == states(asked) == {State.SENT: 4}
        assert states(held) == {State.SENT: 2, State.DELIVERED: 2}
        assert_counters_hold()
        promised = {m.phone for batch in (dropped, held, asked, new) for m in messages_of(batch)}
    found = deliveries(simulator)
    assert set(found.values()) == {1}
    assert promised <= found.keys()


def test_runs_and_sequences_do_not_go_on_by_themselves(simulator, tmp_path):
    owner = make_user()
    pool, devices = make_pool(owner=owner, devices=1)
    make_batch(owner=owner, devices=devices, leads=1)
    now = timezone.now()
    hourly = make_campaign(
        owner=owner, pool=pool, schedule="cron", cron="* * * * *", state="scheduled", planned_until=now, next_at=now,
    )  # fmt: skip
    once = make_campaign(owner=owner, pool=pool, state="scheduled")
    Run.objects.create(campaign=once, occurrence="once", planned_at=now)
    sequence = Sequence.objects.create(owner=owner, name="welcome", trigger="new", state="active")
    folder = tmp_path / "backup"
    said("backup", str(folder))

    with another_database():
        said("restore", str(folder))
        run = Run.objects.get()
        assert run.state == "missed"
        assert "Restored" in run.reason
        sequence.refresh_from_db()
        assert sequence.state == "paused"
        campaigns_tick(now=timezone.now())
        assert list(Run.objects.values_list("pk", "state")) == [(run.pk, "missed")]
        assert Campaign.objects.get(pk=hourly.pk).next_at > now
    with another_database():  # a move from one server to another: the old one has been silent since
        said("restore", str(folder), nothing_sent_since=True)
        assert halting.current() is not None
        assert Run.objects.get().state == "pending"
        sequence.refresh_from_db()
        assert sequence.state == "active"
        assert Message.objects.get().state == State.PENDING


def test_what_cannot_come_back_leaves_the_database_empty(simulator, tmp_path, settings):
    a_world(simulator)
    folder, keys = tmp_path / "backup", settings.FIELD_KEYS
    said("backup", str(folder))
    sealed = (folder / "database.sealed").read_bytes()
    assert b"sim-searched" not in sealed
    assert b"keeper" not in sealed
    with pytest.raises(CommandError, match="exists"):
        said("backup", str(folder))
    with pytest.raises(CommandError, match="outside its folder"):
        said("backup", str(tmp_path / "other"), keys=tmp_path / "other" / "keys.env")
    with pytest.raises(CommandError, match="not empty"):
        said("restore", str(folder))

    def refused(*, match: str, **options: object) -> None:
        with pytest.raises(CommandError, match=match):
            said("restore", str(folder), **options)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            assert cursor.fetchone()[0] == 0

    with another_database():
        settings.FIELD_KEYS = [Fernet.generate_key().decode()]
        refused(match="FLOTILLA_FIELD_KEYS lacks the key")
        refused(match="was sealed with the key", without_keys=True)
        settings.FIELD_KEYS = keys
        (folder / "database.sealed").write_bytes(sealed[: len(sealed) - 40])
        refused(match="damaged or cut off")
        (folder / "database.sealed").write_bytes(sealed)
        told = json.loads((folder / "backup.json").read_text())
        (folder / "backup.json").write_text(json.dumps(told | {"migrations": [["messaging", "9999_tomorrow"]]}))
        refused(match="newer Flotilla")
        (folder / "backup.json").write_text(json.dumps(told))
        assert "Restored as of" in said("restore", str(folder))


@pytest.mark.parametrize("size", [0, 1, sealing.CHUNK, sealing.CHUNK + 1, 3 * sealing.CHUNK])
def test_what_is_sealed_comes_out_whole_or_not_at_all(tmp_path: Path, size: int):
    path, key, data = tmp_path / "sealed", Fernet.generate_key().decode(), Random(size).randbytes(size)
    with sealing.Sealer(path, key=key) as out:
        for start in range(0, size, 700_001):
            out.write(data[start : start + 700_001])
    assert b"".join(sealing.unseal(path, keys=["other", key])) == data
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole + b"x", whole[: 66 + sealing.CHUNK + 16]):
        if damaged != whole:
            path.write_bytes(damaged)
            with pytest.raises(BackupProblem, match="damaged"):
                list(sealing.unseal(path, keys=[key]))
