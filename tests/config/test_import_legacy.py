"""Moving over from system A: its tables in a real database beside ours."""

from __future__ import annotations

import base64
import csv
from contextlib import closing
from datetime import UTC, datetime, time
from pathlib import Path

import psycopg2
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from campaigns.models import Campaign
from campaigns.states import CampaignState
from config.audit_models import AuditEntry
from config.legacy import leads as legacy_leads
from config.legacy import words
from config.management.commands import import_legacy
from config.models import LegacyMove, LegacyRow
from devices.models import Device, DeviceState
from leads import optout
from leads.models import ConsentEvent, Lead
from messaging.media.models import MediaFile
from sequences import entry, services
from sequences.models import Enrolment, Sequence
from tests.config import legacy_world as world
from tests.factories import make_user
from tests.messaging.media.test_doors import png
from tests.messaging.media.test_fetch import ok, serving

WAV = b"RIFF\x00\x00\x00\x00WAVE"


@pytest.fixture(autouse=True)
def _own_files(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path / "media"


@pytest.fixture
def admin():
    return make_user(role="admin", username="boss")


def move(address: str, folder: Path, **options) -> list[dict[str, str]]:
    """Call the command; the lines of its report."""
    path = folder / f"report-{len(list(folder.glob('report-*')))}.csv"
    more = {"wablas_url": "https://wablas.example", **options}
    call_command("import_legacy", database=address, by="boss", report=path, region="MY", **more)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows_everywhere() -> dict[str, int]:
    """How many rows each table has."""
    found = {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT count(*) FROM "{table}"')  # noqa: S608 - names of our own tables
            found[table] = cursor.fetchone()[0]
    return found


def told(lines, code: str) -> list[tuple[str, str, str]]:
    return [(line["table"], line["id"], line["field"]) for line in lines if line["code"] == code]


@pytest.mark.django_db
def test_everything_comes_over_once_and_what_does_not_is_told(admin, tmp_path):  # noqa: PLR0915 - one move, looked at whole
    with world.old_system() as address:
        before = rows_everywhere()
        dry = move(address, tmp_path, dry_run=True)
        assert rows_everywhere() == before
        lines = move(address, tmp_path)
        first = rows_everywhere()
        written = set(Lead.objects.values_list("phone", "updated_at"))
        again = move(address, tmp_path)
        second = rows_everywhere()

    owner = User.objects.get(email__iexact="aisyah@example.com")
    assert not owner.has_usable_password()
    devices = {device.name: device for device in Device.objects.filter(owner=owner)}
    assert {name: (device.gateway, device.state) for name, device in devices.items()} == {
        "Kedai": ("whatsapp", DeviceState.UNPAIRED),
        "Kedai (2)": ("wablas", DeviceState.ACTIVE),
        "Centre": ("whacenter", DeviceState.ACTIVE),
        "No token": ("wablas", DeviceState.NEEDS_ATTENTION),
    }
    assert devices["Kedai (2)"].credentials == {"token": "wablas-token"}
    assert devices["Centre"].credentials == {"device_id": "whacenter-id"}
    assert (devices["Centre"].delay_min_seconds, devices["Centre"].delay_max_seconds) == (5, 15)

    leads = {lead.phone: lead for lead in Lead.objects.filter(owner=owner)}
    assert set(leads) == {"+60123456701", "+60123456702", "+60123456705"}
    ali = leads["+60123456701"]
    assert (ali.name, ali.status, ali.notes, ali.device) == ("Ali", "customer", "asked in May", devices["Kedai"])
    assert ali.niches == ["EXSTART", "VITAC", "TITAN"]
    assert leads["+60123456705"].device is None
    assert not Lead.objects.filter(consent_at__isnull=False).exists()  # nothing there says that anybody agreed

    raya, done = Campaign.objects.get(name="Raya"), Campaign.objects.get(name="Done")
    assert (raya.state, raya.text, raya.niches) == (CampaignState.DRAFT, "Salam {{ name }}", ["EXSTART"])
    assert raya.scheduled_at == datetime(2031, 1, 31, 1, 30, tzinfo=UTC)
    assert raya.content_type == "image"
    assert raya.media is not None
    assert raya.media.path.exists()
    assert (done.state, done.media) == (CampaignState.CANCELLED, None)

    cold, warm = Sequence.objects.get(name="Cold"), Sequence.objects.get(name="Warm")
    assert (cold.state, cold.trigger, cold.next_sequence, warm.trigger) == ("draft", "COLD", warm, "WARM")
    assert list(cold.steps.values_list("position", "text", "delay_minutes", "window_start")) == [
        (1, "Hi {{ name }}", 0, time(10)),
        (2, "Look", 48 * 60, time(21, 15)),
    ]
    ends = dict(Enrolment.objects.filter(sequence=cold).values_list("lead__name", "state"))
    assert ends == {"Ali": "exited", "Siti": "completed"}

    [nobody] = told(lines, "required")
    assert nobody == ("users", world.STRANGER, "email")
    assert sorted(told(lines, "no_user")) == [
        ("leads", world.uid(107), "user_id"), ("user_devices", world.LONELY, "user_id"),
    ]  # fmt: skip
    assert told(lines, "incomplete") == [("user_devices", world.TOKENLESS, "jid")]
    assert told(lines, "unknown_platform") == [("user_devices", world.ODD, "platform")]
    assert told(lines, "no_device") == [("leads", world.uid(105), "device_id")]
    assert told(lines, "one_device") == [("leads", world.uid(103), "device_id")]
    assert told(lines, "bad_status") == [("leads", world.uid(106), "target_status")]
    assert ("leads", world.uid(104), "phone") in [(line["table"], line["id"], line["field"]) for line in lines]
    assert told(lines, "bad_time") == [("campaigns", "3", "time_schedule")]
    refused = told(lines, "private_address")  # the step without a text is nothing without its picture
    assert [(table, field) for table, _, field in refused] == [
        ("campaigns", "image_url"), ("sequence_steps", "media_url"), ("sequence_steps", "media_url"),
    ]  # fmt: skip
    assert len(told(dry, "to_fetch")) == 4
    assert told(lines, "exact_tags") == [("campaigns", "1", "niche")]  # EXSTART2 has it as a part only
    assert [table for table, _, _ in told(lines, "unsent")] == ["broadcast_messages"]
    assert told(lines, "in_the_middle") == [("sequence_contacts", world.COLD, "status")]
    assert [line["table"] for line in lines if line["kind"] == "not in this install"] == ["team_members"]
    assert told(lines, "pair_again") == [("user_devices", world.SESSION, "jid")]
    everything = (tmp_path / "report-1.csv").read_text()
    assert "wablas-token" not in everything
    assert "601234567" not in everything
    assert "Ali" not in everything

    # The dry run foresaw it, but for what only storing finds: fetched pictures, and who has another device by then.
    only_stored = {"renamed", "private_address", "one_device", "in_the_middle", "no_lead", "device_of_another"}
    assert {(n["table"], n["id"], n["code"]) for n in dry if n["code"] != "to_fetch"} == {
        (n["table"], n["id"], n["code"]) for n in lines if n["code"] not in only_stored
    }

    counted = {"config_legacymove", "config_auditentry"}  # that somebody moved over again is itself written down
    assert {t: n for t, n in second.items() if t not in counted} == {t: n for t, n in first.items() if t not in counted}
    assert set(Lead.objects.values_list("phone", "updated_at")) == written
    assert told(again, "bad_status") == told(lines, "bad_status")
    last = LegacyMove.objects.first()
    assert last.counts["leads"] == {"taken": 0, "there": 4, "merged": 0, "refused": 3}

    # Whoever had been in the sequence there is not written to from its first step again.
    Lead.objects.update(consent_at=timezone.now(), consent_source="asked")
    services.activate(sequence=cold, by=admin, now=timezone.now())
    entry.pull(now=timezone.now())
    assert list(Enrolment.objects.filter(sequence=cold, state="active").values_list("lead__name", flat=True)) == ["Mei"]


@pytest.mark.django_db
def test_attachments_of_steps_come_along_and_what_cannot_be_had_is_told(admin, settings, tmp_path):
    settings.FLOTILLA_MEDIA_MAX_BYTES = 20_000
    with serving(*[ok(png())] * 4) as (port, asked), serving(ok(b"x" * 30_000)) as (large, _):
        settings.FLOTILLA_MEDIA_FETCH_ALLOW = [f"127.0.0.1:{port}", f"127.0.0.1:{large}"]
        web, sound = f"http://127.0.0.1:{port}/a.png", f"data:audio/wav;base64,{base64.b64encode(WAV).decode()}"
        steps = (
            ("image", "", world.PIXEL, "For {{name}}"), ("image", "", f"{web}?key=hunter2", ""),
            ("text", "A note", web, ""), ("file", "Read this", web, ""), ("video", "Not a film", web, ""),
            ("audio", "Listen", sound, ""), ("audio", "", sound, ""),
            ("image", "", f"http://127.0.0.1:{large}/b.png", ""), ("image", "Cheap", "http://10.0.0.1/c.png", ""),
        )  # fmt: skip
        rows = ", ".join(
            f"('{world.uid(500 + n)}', '{world.WARM}', {n + 2}, '{kind}', '{text}', '{address}', '{caption}')"
            for n, (kind, text, address, caption) in enumerate(steps)
        ).replace("{{name}}", "{name}")
        more = (
            "INSERT INTO sequence_steps (id, sequence_id, day_number, message_type, content, media_url, caption) "  # noqa: S608 - constants
            f"VALUES {rows}"
        )
        with world.old_system(more) as address:
            dry = move(address, tmp_path, dry_run=True)
            assert asked == []
            lines = move(address, tmp_path)
    listed = [
        line["what and what to do"] for line in dry if line["code"] == "to_fetch" and line["table"] == "sequence_steps"
    ]
    assert sum("from 127.0.0.1 " in text for text in listed) == 7
    assert not any("hunter2" in text for text in listed)
    warm = Sequence.objects.get(name="Warm")
    found = warm.steps.values_list("content_type", "text", "media__kind", "media__mime_type")
    assert list(found) == [
        ("text", "Warm hello", None, None),
        ("image", "For {{ name }}", "image", "image/png"),
        ("image", "", "image", "image/png"),
        ("image", "A note", "image", "image/png"),
        ("document", "Read this", "document", "image/png"),
        ("text", "Not a film", None, None),
        ("text", "Listen", None, None),
        ("audio", "", "audio", "audio/wav"),
        ("text", "Cheap", None, None),
    ]
    assert [media.owner for media in MediaFile.objects.filter(pk__in=warm.steps.values("media"))] == [warm.owner] * 4
    codes = {line["id"]: line["code"] for line in lines if line["field"] == "media_url"}
    assert [codes.get(world.uid(500 + number)) for number in range(len(steps))] == [
        None, None, None, None, "wrong_kind", "no_caption", None, "too_large", "private_address",
    ]  # fmt: skip


@pytest.mark.django_db
def test_an_interrupted_move_goes_on_and_a_device_that_comes_later_finds_its_leads(admin, tmp_path, monkeypatch):
    monkeypatch.setattr(legacy_leads, "AT_ONCE", 2)
    shown = import_legacy.Progress.update

    def stop(*_args, **_options):
        raise KeyboardInterrupt

    with world.old_system() as address:
        monkeypatch.setattr(import_legacy.Progress, "update", stop)
        with pytest.raises(CommandError, match="goes on"):
            move(address, tmp_path)
        assert 0 < LegacyRow.objects.filter(table="leads").count() < 4
        assert LegacyMove.objects.get().finished_at is None
        monkeypatch.setattr(import_legacy.Progress, "update", shown)
        move(address, tmp_path)
        assert Lead.objects.count() == 3
        assert Lead.objects.get(phone="+60123456705").device is None
        world.run(address, "UPDATE user_devices SET platform = 'whacenter' WHERE device_name = 'Odd'")
        lines = move(address, tmp_path)
        assert Lead.objects.get(phone="+60123456705").device == Device.objects.get(name="Odd")
        assert told(lines, "no_device") == []
        world.run(address, "UPDATE user_devices SET id = gen_random_uuid()")
        with pytest.raises(CommandError, match="another system"):
            move(address, tmp_path)


@pytest.mark.django_db
def test_consent_is_declared_by_somebody_or_not_there(admin, tmp_path):
    refused = Lead.objects.create(owner=admin, phone="+60123456702")
    optout.opt_out(lead=refused, source="said so", channel=ConsentEvent.Channel.ADMIN, by=admin, now=timezone.now())
    with world.old_system() as address:
        move(address, tmp_path, owner="boss", consent="Order forms, clause 7")
    agreed = Lead.objects.filter(consent_source="Order forms, clause 7", consent_at__isnull=False)
    assert sorted(agreed.values_list("phone", flat=True)) == ["+60123456701", "+60123456705", "+60123456707"]
    refused.refresh_from_db()
    assert refused.opted_out_at is not None
    entry_ = AuditEntry.objects.filter(table="config_legacymove", event="insert").get()
    assert (entry_.user, entry_.action) == (admin, "manage.py import_legacy")
    assert entry_.after["consent_basis"] == "Order forms, clause 7"
    assert AuditEntry.objects.filter(table="devices_device", event="insert", user=admin).count() == 5


@pytest.mark.django_db
def test_a_stored_session_is_adopted_whole_and_only_when_nobody_else_has_it(admin, tmp_path):
    world.our_store()
    with world.old_system(world.STORE.format(schema="public"), world.SESSIONS) as address:
        with closing(psycopg2.connect(address, application_name="the old process")):
            with pytest.raises(CommandError, match="the old process"):
                move(address, tmp_path)
            assert not Device.objects.exists()
            lines = move(address, tmp_path, without_sessions=True)
            assert told(lines, "pair_again") == [("user_devices", world.SESSION, "jid")]
        lines = move(address, tmp_path)
    assert told(lines, "pair_again") == []
    device = Device.objects.get(gateway="whatsapp")
    assert (device.state, device.credentials["jid"]) == (DeviceState.ACTIVE, world.JID)
    assert device.session_phone == "+60110000001"
    assert [(jid, number, bytes(key), lid) for jid, number, key, lid in world.in_our_store("whatsmeow_device")] == [
        (world.JID, 4711, b"\x01\xff", None)
    ]
    for table in ("whatsmeow_sessions", "whatsmeow_app_state_version", "whatsmeow_app_state_mutation_macs"):
        assert [row[0] for row in world.in_our_store(table)] == [world.JID]
    assert len(world.in_our_store("whatsmeow_lid_map")) == 2


@pytest.mark.django_db
def test_a_store_that_is_not_like_ours_is_left_and_its_devices_are_listed(admin, tmp_path):
    world.our_store()
    newer = "ALTER TABLE whatsmeow_sessions ADD COLUMN generation int"
    with world.old_system(world.STORE.format(schema="public"), world.SESSIONS, newer) as address:
        lines = move(address, tmp_path)
    assert told(lines, "pair_again") == [("user_devices", world.SESSION, "jid")]
    assert any("whatsmeow_sessions.generation" in line["what and what to do"] for line in lines)
    assert Device.objects.get(gateway="whatsapp").state == DeviceState.UNPAIRED
    assert world.in_our_store("whatsmeow_device") == []


@pytest.mark.django_db
def test_what_cannot_be_begun_is_refused_in_words(admin, tmp_path):
    make_user(username="clerk")
    given = {"by": "boss", "report": tmp_path / "r.csv"}
    ours = world.address_of(connection.settings_dict["NAME"])
    with pytest.raises(CommandError, match="a database of Flotilla"):
        call_command("import_legacy", database=ours, **given)
    with pytest.raises(CommandError) as refused:
        call_command("import_legacy", database="postgresql://me:hunter2@127.0.0.1:1/x", **given)
    assert "hunter2" not in str(refused.value)
    with world.old_system() as address:
        with pytest.raises(CommandError, match="no admin"):
            call_command("import_legacy", database=address, by="clerk", report=tmp_path / "s.csv")
        (tmp_path / "there.csv").touch()
        with pytest.raises(CommandError, match="exists"):
            call_command("import_legacy", database=address, by="boss", report=tmp_path / "there.csv")


@pytest.mark.parametrize(
    ("row", "minutes"),
    [({"trigger_delay_hours": 36}, 2160), ({"delay_days": 2}, 2880), ({"day_number": 5}, 5760), ({}, 1440)],
)
def test_how_long_a_step_waits(row, minutes):
    assert words.delay_minutes_of(row, first=False, before={"day_number": 1}) == minutes
    assert words.delay_minutes_of(row, first=True, before=None) == 0


@pytest.mark.parametrize(
    ("said", "clock"),
    [("09:00", time(9)), ("9.05", time(9, 5)), ("12:00 AM", time(0)), ("9:15 pm", time(21, 15)), ("", None)],
)
def test_times_of_day(said, clock):
    assert words.clock_of({"time_schedule": said}) == clock


@pytest.mark.parametrize("said", ["25:00", "13:00 pm", "noon", "9"])
def test_what_is_no_time_of_day(said):
    with pytest.raises(words.Unreadable, match="09:00"):
        words.clock_of({"time_schedule": said})
