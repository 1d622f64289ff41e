"""WhatsApp sessions, as far as a machine without WhatsApp can tell: the real library, its real store, no phone.

The library runs in child processes. Whatever it dials goes to a proxy on the loopback address, so nothing leaves here.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from django.conf import settings
from PIL import Image

from devices import session_store
from devices.gateways.base import Outcome, Rejected, SessionLost, Temporary, Throttled
from devices.gateways.base import Unknown as UnknownOutcome
from devices.gateways.neonize_events import parts_of_jid, phone_of_jid
from devices.gateways.neonize_library import Late, within
from devices.gateways.whatsmeow_errors import outcome_of, upload_outcome_of

ROOT = Path(__file__).parents[3]
JID = "628110000001:7@s.whatsapp.net"
CLOSED = "http://127.0.0.1:9"
DEADLINE_SECONDS = 100


def run(do: str, *, bot_tag: str = "off", **given: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.devices.gateways.neonize_child"],
        input=json.dumps({"do": do, **given}),
        env={**os.environ, "NEONIZE_BOT_TAG": bot_tag},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def result(do: str, **given: Any) -> Any:
    done = run(do, **given)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def store(django_db_setup: None) -> Iterator[str]:
    """The address of the test database, with the library's tables in it, which are gone afterwards."""
    database = settings.DATABASES["default"]
    parts = {key: database[key.upper()] for key in ("host", "port", "user", "password") if database.get(key.upper())}
    url = " ".join(f"{key}='{value}'" for key, value in {**parts, "dbname": database["NAME"]}.items())
    assert not session_store.holds(url, jid=JID), "no tables yet, which is no error"
    result("tables", store_url=url, proxy=CLOSED)
    yield url
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA IF EXISTS {session_store.SCHEMA} CASCADE")


@pytest.fixture
def stored(store: str) -> Iterator[str]:
    """A store with one session in it. Its keys are not real, which nobody finds out before a server is met."""
    insert(store, JID)
    yield store
    session_store.forget(store, jid=JID)


def insert(store: str, jid: str) -> None:
    key = b"\1" * 32
    with closing(psycopg2.connect(store)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO whatsmeow.whatsmeow_device (jid, registration_id, noise_key, identity_key,"
            " signed_pre_key, signed_pre_key_id, signed_pre_key_sig, adv_key, adv_details, adv_account_sig,"
            " adv_account_sig_key, adv_device_sig) VALUES (%s, 1, %s, %s, %s, 1, %s, %s, %s, %s, %s, %s)",
            (jid, key, key, key, key * 2, key, b"x", key * 2, key, key * 2),
        )


# -- Texts and values --------------------------------------------------------------------------------------------------


@pytest.mark.contract
@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        ("client is nil", Temporary, "not_connected"),
        ("failed to send usync query: websocket not connected", Temporary, "not_connected"),
        ("failed to refresh media connections: timeout", Temporary, "media_servers"),
        ("upload failed with status code 507", Temporary, "upload"),
        ("failed to get user info for 628110000002@s.whatsapp.net to fill LID cache: x", Temporary, "look_up"),
        ("failed to get LID for PN 628110000002@s.whatsapp.net: info query timed out", Temporary, "look_up"),
        ("the store doesn't contain a device JID", SessionLost, "logged_out"),
        ("no LID found for 628110000002@s.whatsapp.net from server", Rejected, "not_on_whatsapp"),
        ("message recipient must be a user JID with no device part", Rejected, "bad_recipient"),
        ("can't send message to unknown server x", Rejected, "bad_recipient"),
        ("failed to get device list: info query returned status 429: rate-overlimit", Throttled, "429"),
        ("server returned error 463", Throttled, "463"),
        ("server returned error 479", Rejected, "server_479"),
        ("timed out waiting for message send response", UnknownOutcome, "timeout"),
        ("websocket disconnected before message send returned response", UnknownOutcome, "connection_lost"),
        ("something that no table names", UnknownOutcome, "error"),
    ],
)
def test_every_error_text_is_one_outcome(error: str, outcome: type[Outcome], code: str) -> None:
    found = outcome_of(error)
    assert type(found) is outcome
    assert getattr(found, "code", "") == code
    assert "628110000002" not in repr(found)
    # An upload that failed for whatever reason has sent nothing.
    assert not isinstance(upload_outcome_of(error), UnknownOutcome)


def test_a_reach_out_lock_holds_back_only_messages_to_new_people() -> None:
    found = outcome_of("server returned error 463")
    assert isinstance(found, Throttled)
    assert found.scope == "new_contacts"
    other = outcome_of("status 429: rate-overlimit")
    assert isinstance(other, Throttled)
    assert other.scope == "device"


def test_only_whole_identities_are_identities() -> None:
    assert parts_of_jid(JID) == {
        "User": "628110000001", "RawAgent": 0, "Device": 7, "Integrator": 0, "Server": "s.whatsapp.net",
        "IsEmpty": False,
    }  # fmt: skip
    assert (parts_of_jid("628110000001.1:7@s.whatsapp.net") or {})["RawAgent"] == 1
    for not_one in ("", "628110000001@s.whatsapp.net", "628110000001:0", "abc:1@s.whatsapp.net", JID + "\n"):
        assert not (parts_of_jid(not_one) or {}).get("Device"), not_one
    assert phone_of_jid(JID) == "+628110000001"
    assert phone_of_jid("123456789:7@lid") == ""


def test_the_store_s_address_in_the_library_s_form() -> None:
    on_socket = "host=/run/a dbname=flo/tilla user=u password='p w&/'"
    assert session_store.library_url(on_socket, name="flotilla wa 1") == (
        "postgres:///flo%2Ftilla?host=%2Frun%2Fa&user=u&password=p%20w%26%2F"
        "&search_path=whatsmeow&application_name=flotilla%20wa%201&sslmode=disable"
    )
    over_tcp = "postgresql://u:p@db.example:5433/flotilla?sslmode=require&target_session_attrs=read-write"
    assert session_store.library_url(over_tcp, name="n") == (
        "postgres:///flotilla?host=db.example&port=5433&user=u&password=p&sslmode=require"
        "&search_path=whatsmeow&application_name=n"
    )
    with pytest.raises(session_store.StoreAway) as away:
        session_store.library_url("postgresql://u:hunter22@[h/x", name="n")
    assert "hunter22" not in str(away.value)


def test_a_call_that_does_not_come_back_is_left_and_its_late_answer_heard() -> None:
    gate, heard, told = threading.Event(), threading.Event(), []

    def late(answer: str | None) -> None:
        told.append(answer)
        heard.set()

    def hangs() -> str:
        assert gate.wait(60)
        return "after all"

    with pytest.raises(Late):
        within(0.05, hangs, name="hangs", late=late)
    gate.set()
    assert heard.wait(30)
    assert told == ["after all"]
    assert within(30, lambda: 5, name="answers") == 5
    with pytest.raises(ZeroDivisionError):
        within(30, lambda: 1 // 0, name="raises")


# -- The real library --------------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_events_of_the_library() -> None:
    lid = {"User": "99887766", "Server": "lid", "RawAgent": 0, "Device": 0, "Integrator": 0, "IsEmpty": False}
    person = {**lid, "User": "628110000002", "Server": "s.whatsapp.net"}
    none = {**lid, "User": "", "Server": "", "IsEmpty": True}
    source = {
        "Chat": lid, "Sender": lid, "SenderAlt": person, "IsFromMe": False, "IsGroup": False,
        "RecipientAlt": none, "BroadcastListOwner": none,
    }  # fmt: skip
    info = {"ID": "3A01", "Timestamp": 1790000000123, "Pushname": "Ada", "MessageSource": source}
    receipt = {"MessageIDs": ["3EB0A1B2", "3EB0A1B3"], "Timestamp": 1790000000, "MessageSource": source}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("Receipt", {**receipt, "Type": "READ"}),
        ("Receipt", {**receipt, "Type": "DELIVERED"}),
        ("Receipt", {**receipt, "Type": "SENDER"}),
        ("Receipt", {**receipt, "Type": "RETRY"}),
        ("Receipt", receipt),
        ("Receipt", {**receipt, "Type": "DELIVERED", "MessageSource": {**source, "IsFromMe": True}}),
        ("Message", {"Info": info, "Message": {"conversation": "STOP"}}),
        ("Message", {"Info": info, "Message": {"extendedTextMessage": {"text": "Halo"}}}),
        ("Message", {"Info": {**info, "MessageSource": {**source, "IsFromMe": True}}, "Message": {}}),
        ("Message", {"Info": {**info, "MessageSource": {**source, "IsGroup": True}}, "Message": {}}),
        ("Message", {"Info": {**info, "MessageSource": {**source, "SenderAlt": none}}, "Message": {}}),
        ("LoggedOut", {"OnConnect": True, "Reason": "LOGGED_OUT"}),
        ("LoggedOut", {"OnConnect": False}),
        ("StreamReplaced", {}),
        ("TemporaryBan", {"Code": "SENT_TOO_MANY_SAME_MESSAGE", "Expire": 3600}),
        ("TemporaryBan", {"Expire": 3600}),
        ("ConnectFailure", {"Reason": "SERVICE_UNAVAILABLE", "Message": "x"}),
        ("ConnectFailure", {"Reason": "TEMP_BANNED", "Message": "x"}),
        ("ClientOutdated", {}),
        ("Connected", {"status": True}),
        ("Disconnected", {"status": True}),
        ("KeepAliveTimeout", {"ErrorCount": 1, "LastSuccess": 1}),
    ]
    found = result("events", events=cases)
    read, delivered, *silent = found[:6]
    assert [(each["status"], each["external_id"]) for each in read["news"]] == [
        ("read", "3EB0A1B2"), ("read", "3EB0A1B3"),
    ]  # fmt: skip
    assert read["news"][0]["at"] == "2026-09-21 14:13:20+00:00"
    assert [each["status"] for each in delivered["news"]] == ["delivered", "delivered"]
    assert all(each["news"] == [] for each in silent), "our own devices, retries and server errors prove nothing"

    stop, halo, *others = found[6:11]
    assert stop["news"][0] | {"event_id": ""} == {
        "type": "Reply", "event_id": "", "phone": "+628110000002", "text": "STOP", "device_id": None,
        "at": "2026-09-21 14:13:20.123000+00:00", "external_id": "3A01",
    }  # fmt: skip
    assert halo["news"][0]["text"] == "Halo"
    assert all(each["news"] == [] for each in others)

    verdicts = [(each["verdict"] or {}).get("type") for each in found[11:]]
    assert verdicts == [
        "SessionLost", "SessionLost", "SessionLost", "Throttled", "Throttled", "Temporary", "SessionLost",
        "SessionLost", None, None, None,
    ]  # fmt: skip
    statuses = [each["news"][0]["status"] if each["news"] else None for each in found[11:]]
    assert statuses == [
        "logged_out", "logged_out", "replaced", "banned", "banned", "disconnected", "disconnected", "disconnected",
        "connected", None, None,
    ]  # fmt: skip
    assert "same message too often" in found[14]["news"][0]["text"]
    assert "no reason was given" in found[15]["news"][0]["text"], "an unset code is not “too many people”"
    assert found[17]["verdict"]["banned"]


@pytest.mark.contract
def test_messages_are_what_was_written() -> None:
    drawn = BytesIO()
    Image.new("RGBA", (640, 320), (0, 128, 255, 128)).save(drawn, format="PNG")
    picture = drawn.getvalue().hex()
    text, image, document, video, voice, *refused = result(
        "content",
        cases=[
            {"type": "text", "text": "Call @628110000009 or see https://x.example"},
            {"type": "image", "text": "Look", "mime": "image/png", "data": picture},
            {"type": "document", "text": "", "mime": "application/pdf", "data": "25504446"},
            {"type": "video", "text": "Film", "mime": "video/mp4", "data": "00"},
            {"type": "audio", "text": "", "mime": "audio/ogg", "data": "4f676753"},
            {"type": "image", "text": "", "mime": "image/png", "data": "00ff"},
            {"type": "image", "text": ""},
            {"type": "template", "text": ""},
        ],
    )
    assert text == {"message": {"conversation": "Call @628110000009 or see https://x.example"}, "uploads": []}
    shown = image["message"]["imageMessage"]
    assert (shown["caption"], shown["width"], shown["height"], shown["mimetype"]) == ("Look", 640, 320, "image/png")
    with Image.open(BytesIO(b64decode(shown["JPEGThumbnail"]))) as small:
        assert (small.format, max(small.size)) == ("JPEG", 100)
    assert image["uploads"] == [[picture, "MediaImage"]]
    paper = document["message"]["documentMessage"]
    assert (paper["fileName"], paper["fileLength"], paper.get("caption")) == ("list.pdf", "4", None)
    assert (video["message"]["videoMessage"]["caption"], video["uploads"][0][1]) == ("Film", "MediaVideo")
    assert voice["message"]["audioMessage"]["mimetype"] == "audio/ogg; codecs=opus"
    assert [(each["code"], each["uploads"]) for each in refused] == [
        ("bad_image", []), ("no_media", []), ("not_supported", []),
    ]  # fmt: skip


def test_a_dial_that_fails_is_the_network_s_fault_and_leaves_nothing_open(stored: str) -> None:
    found = result("open", store_url=stored, jid=JID, proxy=CLOSED, seconds=30)
    assert (found["outcome"]["type"], found["outcome"]["code"]) == ("Temporary", "connect")
    assert found["wedges"] == []
    assert session_store.holds(stored, jid=JID), "the session is still there"
    with closing(psycopg2.connect(stored)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'flotilla wa %'")
        assert cursor.fetchone()[0] == 0


def test_a_dial_that_hangs_is_given_up_in_time_and_not_begun_twice(stored: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        found = result("open", store_url=stored, jid=JID, proxy=proxy, seconds=1, again=True)
        server.settimeout(0)
        server.accept()[0].close()
        with pytest.raises(BlockingIOError):
            server.accept()
    assert (found["outcome"]["type"], found["outcome"]["code"]) == ("Temporary", "timeout")
    assert (found["again"]["type"], found["again"]["code"]) == ("Temporary", "timeout")


def test_a_session_that_is_gone_is_noticed_before_it_aborts_anything(stored: str) -> None:
    gone = "628110000009:3@s.whatsapp.net"
    found = result("open", store_url=stored, jid=gone, proxy=CLOSED, seconds=30)
    assert (found["outcome"]["type"], found["outcome"]["code"]) == ("SessionLost", "not_paired")
    assert session_store.forget(stored, jid=JID)
    assert not session_store.forget(stored, jid=JID)
    found = result("open", store_url=stored, jid=JID, proxy=CLOSED, seconds=30)
    assert found["outcome"]["code"] == "not_paired"


def test_asking_the_library_for_a_session_that_is_gone_kills_that_process_and_no_other(stored: str) -> None:
    done = run("abort", store_url=stored, jid="628110000009:3@s.whatsapp.net", proxy=CLOSED)
    assert done.returncode < 0, "ended by a signal"
    assert "panic" in done.stderr


def test_a_store_that_refuses_is_no_fault_of_the_device_and_shows_no_secret(store: str) -> None:
    wrong = "host=127.0.0.1 port=9 dbname=x user=u password=hunter22"
    done = run("open", store_url=wrong, jid=JID, proxy=CLOSED, seconds=20)
    assert "hunter22" not in done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["outcome"]["code"] == "not_started"
    text = 'parse "postgres://u:hunter22@h:x/db?password=hunter22": invalid port'
    assert "hunter22" not in session_store.without_secrets(text, store_url=wrong)


def test_a_host_that_would_mark_every_message_as_a_bot_s_opens_nothing(store: str) -> None:
    done = run("open", bot_tag="", store_url=store, jid=JID, proxy=CLOSED, seconds=20)
    found = json.loads(done.stdout.splitlines()[-1])["outcome"]
    assert found["code"] == "host"
    assert "NEONIZE_BOT_TAG=off" in found["text"]


def test_what_a_session_hears_reaches_its_host_in_order(stored: str) -> None:
    found = result("told", store_url=stored, jid=JID, proxy=CLOSED)
    # connected, receipt, drained | silent, answering again | away for a moment | taken over
    assert found["states"] == [True, True, True, False, True, True, False]
    assert found["drained"]
    assert [each.get("status") for each in found["news"]] == ["connected", "read", "replaced"]
    assert (found["outcome"]["type"], found["outcome"]["code"]) == ("SessionLost", "replaced")
    assert not found["finalizer"], "garbage collection must not stop a successor"


def test_the_library_s_own_words_when_nothing_is_connected(stored: str) -> None:
    send, log_out = result("sends", store_url=stored, jid=JID, proxy=CLOSED)
    assert (send["type"], send["code"]) == ("Temporary", "not_connected")
    assert (log_out["type"], log_out["code"]) == ("Temporary", "log_out")


def test_hundreds_of_sessions_opened_and_closed_leave_nothing_behind(stored: str) -> None:
    found = result("cycles", store_url=stored, jid=JID, proxy=CLOSED, number=200, look_at=[20, 200])
    early, late = found["seen"]
    assert late["connections"] == 0
    assert late["threads"] <= early["threads"] + 4
    assert late["rss_kb"] <= early["rss_kb"] + 40_000
    assert found["wedges"] == []


def test_web_and_beat_never_load_the_library() -> None:
    code = (
        "import sys; sys.argv = ['manage.py', 'check']; import runpy\n"
        "try: runpy.run_path('manage.py', run_name='__main__')\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "import config.urls, config.celery; config.celery.app.loader.import_default_modules()\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'neonize'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
