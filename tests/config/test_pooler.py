"""PostgreSQL through a real PgBouncer in transaction mode, with too few server connections, taken in turns."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from django.db import connection
from django.utils import timezone

from campaigns import services as campaigns
from campaigns.models import RunState
from config import databases, doctor, pooler
from config.demo.verdict import judge
from config.stack.addresses import Addresses
from config.stack.errors import StackError
from config.stack.places import database_account
from leads.models import Lead
from messaging.models import Message
from messaging.states import State
from tests.factories import make_campaign, make_leads, make_pool, make_user
from tests.programs import ROOT, database_url, worker_and_beat
from tests.simulator_process import running_simulator, wait_until

PROGRAM = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not on this machine (a Debian package)")
PASSWORD = "pooled"
GIVEN = Addresses(database={"NAME": "fleet", "OPTIONS": {"sslmode": "require"}}, redis_url="", source="environment")
OWN = "postgresql://me:word@db:5432/fleet"


@dataclass(frozen=True)
class Pooler:
    url: str
    console: str

    def ask(self, question: str) -> list[dict[str, object]]:
        """A question or command to PgBouncer's console."""
        admin = psycopg2.connect(self.console)
        admin.autocommit = True
        try:
            with admin.cursor() as cursor:
                cursor.execute(question)
                if cursor.description is None:
                    return []
                return [dict(zip([c.name for c in cursor.description], row, strict=True)) for row in cursor.fetchall()]
        finally:
            admin.close()


@pytest.fixture
def pgbouncer(transactional_db: None) -> Iterator[Pooler]:
    """Three server connections for everybody, each transaction on the one that rested longest."""
    assert PROGRAM is not None
    account = database_account()  # PostgreSQL's, whose socket is private; PgBouncer refuses to be root as well
    folder = Path(tempfile.mkdtemp(prefix="flotilla-pgbouncer-"))
    known = connection.settings_dict
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = {"host": known["HOST"], "port": known.get("PORT"), "user": known["USER"], "password": known["PASSWORD"]}
    words = " ".join(f"{name}='{value}'" for name, value in server.items() if value)
    (folder / "users").write_text(f'"{known["USER"]}" "{PASSWORD}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{known['NAME']} = dbname='{known['NAME']}' {words}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\n"
        f"auth_file = {folder}/users\nadmin_users = {known['USER']}\npool_mode = transaction\n"
        "default_pool_size = 3\nmax_client_conn = 300\nserver_round_robin = 1\n"
    )
    for path in (folder, *folder.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)
        if account:
            os.chown(path, account.uid, account.gid)
    at = f"postgresql://{quote(known['USER'])}:{PASSWORD}@127.0.0.1:{port}"
    try:
        with _process([PROGRAM, str(folder / "pgbouncer.ini")], account.popen_options() if account else {}) as process:
            found = Pooler(url=f"{at}/{known['NAME']}", console=f"{at}/pgbouncer")
            wait_until(lambda: process.poll() is not None or _answers(port), what="PgBouncer", seconds=30)
            assert process.poll() is None, "PgBouncer did not start"
            yield found
    finally:
        shutil.rmtree(folder)


@contextmanager
def _process(argv: list[str], options: dict[str, object]) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(argv, cwd="/", **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@needs_pgbouncer
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_campaign_comes_through_and_leaves_no_setting_behind(pgbouncer: Pooler, tmp_path: Path):
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=8)
    make_leads(160, owner=owner)
    with running_simulator() as simulator:
        simulator.add_faults({"fault": "error", "status": 503, "phase": "before", "probability": 0.05, "seed": 1})
        with worker_and_beat(
            simulator, tmp_path, DATABASE_URL=pgbouncer.url, FLOTILLA_DIRECT_DATABASE_URL=database_url()
        ) as log:
            run = campaigns.launch(campaign=make_campaign(owner=owner, pool=pool), now=timezone.now()).run
            ended = (RunState.FINISHED, RunState.FAILED)
            wait_until(lambda: run.refresh_from_db() or run.state in ended, what="the run to end", seconds=240)
            told = log.read_text()
            lent = [
                row for row in pgbouncer.ask("SHOW STATS_TOTALS") if row["database"] == connection.settings_dict["NAME"]
            ]
            left = _settings_of_every_server_connection(pgbouncer)
        verdict = judge(batch_id=run.batch_id, entries=simulator.ledger())
    assert run.state == RunState.FINISHED, run.reason
    assert verdict.clean, verdict
    assert verdict.delivered == 160
    assert set(Message.objects.values_list("state", flat=True)) == {State.SENT}
    assert lent[0]["xact_count"] > 320, "the programs went past the pooler"
    assert left == {("0", "auto")}, "a limit or plan mode was left for whoever comes next"
    for word in ("prepared statement", "ProgrammingError", "Traceback"):
        assert word not in told


def _settings_of_every_server_connection(pgbouncer: Pooler) -> set[tuple[str, str]]:
    """What strangers find: asked more often than there are connections, which go by turns."""
    client = psycopg2.connect(pgbouncer.url)
    client.autocommit = True
    try:
        with client.cursor() as cursor:
            found = set()
            for _ in range(12):
                cursor.execute("SELECT current_setting('statement_timeout'), current_setting('plan_cache_mode')")
                found.add(cursor.fetchone())
            return found
    finally:
        client.close()


SCRIPT = """
import sys, threading
import django
django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.db import connection, connections
from leads import services, storing
from leads.exports import lead_lines
from leads.models import Lead

settings.MEDIA_ROOT = sys.argv[1]
owner = User.objects.get()
stop = threading.Event()

def others():
    while not stop.is_set():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    connections.close_all()

noise = [threading.Thread(target=others) for _ in range(4)]
for thread in noise:
    thread.start()
try:
    rows = "".join(f"Lead {n},012{n % 700:07d}\\n" for n in range(1000))
    for dry_run in (True, False):
        file = ContentFile(("name,phone\\n" + rows).encode(), name="leads.csv")
        words = {"filename": "leads.csv", "region": "MY", "consent_source": "test"}
        made = services.create_import(owner=owner, file=file, dry_run=dry_run, **words)
        done = services.run_import(import_id=made.pk, chunk_rows=100)
        print(done.state, done.accepted, done.merged)
    with storing.working_on(import_id=7, at_once=1):
        busy = []
        def second():
            try:
                with storing.working_on(import_id=7):
                    busy.append("had it too")
            except storing.ImportBusy:
                busy.append("busy")
            busy.append(storing.worked_on())
            connections.close_all()
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    print(busy, storing.worked_on())
    print(sum(1 for _ in lead_lines(Lead.objects.all())))
finally:
    stop.set()
    for thread in noise:
        thread.join()
"""


@needs_pgbouncer
@pytest.mark.slow
def test_imports_their_locks_and_exports_have_a_connection_of_their_own(pgbouncer: Pooler, tmp_path: Path):
    make_user()
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DATABASE_URL": pgbouncer.url,
            "FLOTILLA_DIRECT_DATABASE_URL": database_url(),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        "finished 700 300",
        "finished 700 300",
        "['busy', {7}] set()",
        "701",
    ]
    assert Lead.objects.count() == 700


@needs_pgbouncer
def test_the_doctor_knows_a_pooler_when_it_meets_one(pgbouncer: Pooler, monkeypatch: pytest.MonkeyPatch):
    def told(**environment: str) -> list[tuple[str, str]]:
        for name in ("DATABASE_URL", "FLOTILLA_DIRECT_DATABASE_URL"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return [(found.level, found.remedy) for found in doctor.pooler_is_sound()]

    own = database_url()
    assert not pooler.look(own).pools
    assert told(DATABASE_URL=own) == []
    [(level, remedy)] = told(DATABASE_URL=pgbouncer.url)
    assert (level, "FLOTILLA_DIRECT_DATABASE_URL" in remedy) == ("error", True)
    [(level, remedy)] = told(DATABASE_URL=pgbouncer.url, FLOTILLA_DIRECT_DATABASE_URL=pgbouncer.url)
    assert level == "error"
    [(level, remedy)] = told(DATABASE_URL=pgbouncer.url, FLOTILLA_DIRECT_DATABASE_URL=own)
    assert (level, remedy.startswith("ALTER DATABASE")) == ("warning", True)
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '30s'")
    pgbouncer.ask("RECONNECT")
    try:
        found = told(DATABASE_URL=pgbouncer.url, FLOTILLA_DIRECT_DATABASE_URL=own)
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {name} RESET idle_in_transaction_session_timeout")
    assert found == [("ok", "")]


class TestAddresses:
    def entries(self, *argv: str, direct_url: str = OWN) -> dict[str, dict]:
        return databases.databases(found=GIVEN, direct_url=direct_url, argv=argv, idle_seconds=30, silence_seconds=10)

    def test_programs_pool_and_commands_do_not(self):
        program = self.entries("/venv/celery/__main__.py", "worker")
        assert program["default"]["NAME"] == "fleet"
        assert "options" not in program["default"]["OPTIONS"], "a pooler refuses start-up options"
        assert program["default"]["OPTIONS"]["sslmode"] == "require"
        assert program["default"]["OPTIONS"]["tcp_user_timeout"] == 10_000
        assert program["default"]["DISABLE_SERVER_SIDE_CURSORS"]
        assert program["direct"]["HOST"] == "db"
        command = self.entries("/srv/manage.py", "doctor")
        assert set(command) == {"default"}
        assert command["default"]["HOST"] == "db"
        assert command["default"]["OPTIONS"]["options"].endswith(" -c idle_in_transaction_session_timeout=30000")
        moving = self.entries("manage.py", "migrate")["default"]["OPTIONS"]["options"]
        assert moving.endswith(" -c idle_in_transaction_session_timeout=0 -c lock_timeout=10s")

    def test_without_a_pooler_nothing_is_different(self):
        [(alias, entry)] = self.entries("celery", direct_url="").items()
        assert alias == "default"
        assert entry["OPTIONS"]["options"].endswith(" -c idle_in_transaction_session_timeout=30000")
        assert "-c tcp_user_timeout=10000" in entry["OPTIONS"]["options"]
        assert not entry.get("DISABLE_SERVER_SIDE_CURSORS")

    def test_what_cannot_be_names_the_variable_and_no_secret(self):
        with pytest.raises(StackError, match="FLOTILLA_DIRECT_DATABASE_URL must begin") as caught:
            self.entries("celery", direct_url="mysql://me:word@db/fleet")
        assert "word" not in str(caught.value)
        local = Addresses(database={}, redis_url="", source="stack")
        with pytest.raises(StackError, match="DATABASE_URL is not"):
            databases.databases(found=local, direct_url=OWN, argv=["celery"], idle_seconds=30, silence_seconds=10)
