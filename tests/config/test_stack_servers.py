"""The two servers: really started, really killed, and always startable again on the same root."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from config.stack import postgres, processes, state, valkey
from config.stack.addresses import addresses
from config.stack.children import Children
from config.stack.errors import AlreadyRunning, StackError
from config.stack.local import LocalStack, end, servers_running
from config.stack.places import SOCKET_NAME
from config.stack.processes import Identity
from config.stack.state import State
from tests.config.stack_support import bystander, database_account, fresh_root, identity, owner_of, wait_for, wait_gone

pytestmark = pytest.mark.usefixtures("no_servers_given")


@pytest.fixture
def no_servers_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "FLOTILLA_LOCAL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root() -> Iterator[Path]:
    with fresh_root() as folder:
        yield folder


@pytest.fixture
def stack(root: Path) -> Iterator[LocalStack]:
    stack = LocalStack(root, durable=False)
    stack.start()
    yield stack
    stack.stop()


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    """The rows of ``query``, each in its own connection."""
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall() if cursor.description else []


def valkey_says(url: str, *commands: str) -> str:
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as connection:
        connection.sendall("".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def make_notes(url: str) -> None:
    ask(url, "CREATE TABLE notes (text text)")
    ask(url, "INSERT INTO notes VALUES ('kept')")


def test_both_answer_where_the_state_file_says(stack: LocalStack) -> None:
    environment = stack.environment()
    found = addresses(environment={}, root=stack.root)
    assert found.source == "stack"
    assert found.redis_url == environment["REDIS_URL"]
    settings = found.database
    with (
        contextlib.closing(
            psycopg2.connect(
                host=settings["HOST"], user=settings["USER"], password=settings["PASSWORD"], dbname=settings["NAME"]
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SHOW listen_addresses")
        assert cursor.fetchone() == ("",)
    password = urlsplit(environment["REDIS_URL"]).password
    assert "+PONG" in valkey_says(environment["REDIS_URL"], f"AUTH {password}", "PING")


def test_a_stranger_gets_into_neither(stack: LocalStack) -> None:
    environment = stack.environment()
    settings = addresses(environment={}, root=stack.root).database
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(host=settings["HOST"], user=settings["USER"], password="guess", dbname=settings["NAME"])
    assert "NOAUTH" in valkey_says(environment["REDIS_URL"], "PING")
    assert stat.S_IMODE(Path(settings["HOST"]).stat().st_mode) == 0o700
    for path in stack.root.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"{path} is open to others"


def test_no_password_is_in_any_command_line(stack: LocalStack) -> None:
    secrets = (
        [
            (stack.root / "postgres.password").read_text(),
            (stack.root / "valkey" / "password").read_text(),
            *json.loads((stack.root / "secrets.json").read_text()).values(),
        ]
        if stack.environment()
        else []
    )
    assert len(secrets) >= 7
    for child in stack.servers.values():
        line = Path(f"/proc/{child.pid}/cmdline").read_text()
        environment = Path(f"/proc/{child.pid}/environ").read_text()
        assert not [secret for secret in secrets if secret in line or secret in environment]


def test_stopping_leaves_no_process_and_keeps_the_data(root: Path) -> None:
    stack = LocalStack(root, durable=False)
    stack.start()
    pids = [child.identity for child in stack.servers.values()]
    guard = stack.children.guard
    assert guard
    make_notes(stack.environment()["DATABASE_URL"])
    stack.stop()
    assert not any(map(processes.is_alive, [*pids, guard]))
    assert addresses(environment={}, root=root).source == "nowhere"
    stack.start()
    try:
        assert ask(stack.environment()["DATABASE_URL"], "SELECT text FROM notes") == [("kept",)]
    finally:
        stack.stop()


def test_servers_killed_with_their_owner_start_again_with_their_data(root: Path) -> None:
    with owner_of(root) as owner:
        make_notes(owner.database_url)
        os.kill(owner.started["guard"].pid, signal.SIGKILL)
        owner.kill()
        for name in ("postgres", "valkey"):
            os.kill(owner.started[name].pid, signal.SIGKILL)
        wait_gone(*owner.started.values())
    assert (root / "stack.json").exists()
    stack = LocalStack(root, durable=False)
    stack.start()
    try:
        assert ask(stack.environment()["DATABASE_URL"], "SELECT text FROM notes") == [("kept",)]
    finally:
        stack.stop()


def test_orphans_of_a_killed_owner_are_replaced(root: Path) -> None:
    """Owner and guard are gone, the servers live on: they are found, ended in good order, and started again."""
    with owner_of(root) as owner:
        make_notes(owner.database_url)
        os.kill(owner.started["guard"].pid, signal.SIGKILL)
        owner.kill()
        orphans = [owner.started[name] for name in ("postgres", "valkey")]
        assert all(map(processes.is_alive, orphans))
        (root / "stack.json").unlink()  # also without the file that names them
        stack = LocalStack(root, durable=False)
        stack.start()
        try:
            assert not any(map(processes.is_alive, orphans))
            assert ask(stack.environment()["DATABASE_URL"], "SELECT text FROM notes") == [("kept",)]
        finally:
            stack.stop()


def test_end_clears_orphans_without_starting_anything(root: Path) -> None:
    with owner_of(root) as owner:
        os.kill(owner.started["guard"].pid, signal.SIGKILL)
        owner.kill()
        (root / "stack.json").unlink()
        assert end(root) is True
        wait_gone(*owner.started.values())
    assert end(root) is False


def test_a_killed_owner_takes_its_servers_along(root: Path) -> None:
    with owner_of(root) as owner:
        owner.kill()
        wait_gone(*owner.started.values())


def test_end_stops_a_stack_that_another_process_owns(root: Path) -> None:
    with owner_of(root) as owner:
        assert end(root) is True
        wait_gone(*owner.started.values())


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(root: Path) -> None:
    """PostgreSQL alone refuses: somebody of its own account has the pid in its stale lock file."""
    stack = LocalStack(root, durable=False)
    stack.start()
    stack.stop()
    cluster = postgres.locate(root=root, durable=False)
    with bystander(cluster.account) as stranger:
        for lock in (cluster.data / "postmaster.pid", cluster.sockets / f"{SOCKET_NAME}.lock"):
            lock.write_text(f"{stranger.pid}\n{cluster.data}\n1\n5432\n{cluster.sockets}\n\n         1         1\n")
            if cluster.account:
                os.chown(lock, cluster.account.uid, cluster.account.gid)
        children = Children()
        try:
            with pytest.raises(StackError, match=r"lock file .* already exists"):
                postgres.start(cluster, children=children, log=root / "refused.log")
        finally:
            children.close()
        stack.start()
        stack.stop()
        assert processes.is_alive(stranger)


def test_a_recorded_pid_that_belongs_to_a_stranger_now_is_left_alone(root: Path) -> None:
    stack = LocalStack(root, durable=False)
    stack.start()
    stack.stop()
    with bystander() as stranger:
        recycled = Identity(pid=stranger.pid, started="an earlier life")
        state.write(
            root, State(owner=recycled, running=True, guard=recycled, processes={"web": recycled, "postgres": recycled})
        )
        assert addresses(environment={}, root=root).source == "nowhere"
        assert end(root) is False
        state.write(root, State(owner=recycled, running=True, processes={"web": recycled}))
        stack.start()
        stack.stop()
        assert processes.is_alive(stranger)


def test_a_live_stack_is_reported_and_not_doubled(root: Path, stack: LocalStack) -> None:
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        LocalStack(root).start()
    assert all(child.exit_code() is None for child in stack.servers.values())


def test_a_second_command_joins_and_leaves_it_running(root: Path) -> None:
    with owner_of(root) as owner:
        with servers_running(root) as environment:
            assert environment["DATABASE_URL"] == owner.database_url
            assert ask(environment["DATABASE_URL"], "SELECT 1") == [(1,)]
        assert all(map(processes.is_alive, owner.started.values()))
        owner.end()
        wait_gone(*owner.started.values())


@pytest.mark.parametrize("with_its_guard", [False, True])
def test_an_initdb_cut_short_is_done_again(root: Path, with_its_guard: bool) -> None:
    with owner_of(root, wait=False) as owner:
        wait_for(lambda: list(root.glob("postgres/new-*/data/*")), what="initdb at work")
        found = state.read(root)
        assert found
        assert found.guard
        if with_its_guard:
            os.kill(found.guard.pid, signal.SIGKILL)
        owner.kill()
        wait_gone(found.guard)
    assert not (root / "postgres" / "data").exists()
    assert list(root.glob("postgres/new-*"))
    stack = LocalStack(root, durable=False)
    stack.start()
    try:
        assert ask(stack.environment()["DATABASE_URL"], "SELECT 1") == [(1,)]
        assert not list(root.glob("postgres/new-*"))
    finally:
        stack.stop()


def test_servers_that_die_come_back_at_the_same_address(stack: LocalStack) -> None:
    environment = stack.environment()
    make_notes(environment["DATABASE_URL"])
    assert stack.heal() == []
    for child in list(stack.servers.values()):
        os.kill(child.pid, signal.SIGKILL)
        wait_gone(child.identity)
    assert sorted(stack.heal()) == ["postgres", "valkey"]
    assert stack.environment() == environment
    assert ask(environment["DATABASE_URL"], "SELECT text FROM notes") == [("kept",)]
    assert "NOAUTH" in valkey_says(environment["REDIS_URL"], "PING")


def test_a_killed_guard_is_replaced_and_still_guards(root: Path) -> None:
    stack = LocalStack(root, durable=False)
    stack.start()
    try:
        first = stack.children.guard
        assert first
        os.kill(first.pid, signal.SIGKILL)
        wait_gone(first)
        stack.heal()
        second = stack.children.guard
        assert second
        assert second != first
    finally:
        stack.stop()


def test_a_taken_port_is_not_fought_over(root: Path) -> None:
    stack = LocalStack(root, durable=False)
    stack.start()
    port = urlsplit(stack.environment()["REDIS_URL"]).port
    stack.stop()
    with socket.create_server(("127.0.0.1", port or 0)):
        stack.start()
        try:
            assert urlsplit(stack.environment()["REDIS_URL"]).port != port
        finally:
            stack.stop()


def test_a_start_that_fails_leaves_nothing_running(root: Path) -> None:
    stack = LocalStack(root, durable=False)
    stack.start()
    stack.stop()
    cluster = postgres.locate(root=root, durable=False)
    (cluster.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match="made by PostgreSQL 9"):
        stack.start()
    (cluster.data / "PG_VERSION").write_text("18\n")
    (cluster.data / "postgresql.conf").write_text("no_such_setting = on\n")
    with pytest.raises(StackError, match="did not start"):
        stack.start()
    assert not stack.servers
    assert stack.children.guard is None
    assert not processes.identities_in(folder=root / "valkey", program="valkey-server")
    assert not processes.identities_in(folder=cluster.data, program="postgres")


def test_servers_given_from_outside_are_used_and_none_is_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody:word@db.example/fleet")
    monkeypatch.setenv("REDIS_URL", "redis://cache.example:6379/0")
    stack = LocalStack(root)
    stack.start()
    try:
        assert not stack.servers
        assert not (root / "postgres").exists()
        assert stack.environment()["DATABASE_URL"] == "postgresql://somebody:word@db.example/fleet"
    finally:
        stack.stop()
    monkeypatch.delenv("REDIS_URL")
    with pytest.raises(StackError, match="REDIS_URL is not"):
        LocalStack(root).start()


def test_an_append_only_valkey_keeps_its_keys(root: Path) -> None:
    stack = LocalStack(root, durable=False, appendonly=True)
    for expected in ("+OK", "$4\r\nkept"):
        stack.start()
        try:
            url = stack.environment()["REDIS_URL"]
            command = "SET note kept" if expected == "+OK" else "GET note"
            assert expected in valkey_says(url, f"AUTH {urlsplit(url).password}", command).removeprefix("+OK\r\n")
        finally:
            stack.stop()


def test_identity_tells_lives_of_one_pid_apart() -> None:
    own = identity(os.getpid())
    assert processes.is_alive(own)
    assert not processes.is_alive(Identity(pid=own.pid, started="an earlier life"))
    assert processes.send(Identity(pid=own.pid, started="an earlier life"), signal.SIGKILL) is False


def test_only_processes_that_work_in_the_folder_are_ours(stack: LocalStack, tmp_path: Path) -> None:
    assert stack.servers["valkey"].identity in processes.identities_in(
        folder=stack.root / "valkey", program="valkey-server"
    )
    assert processes.identities_in(folder=tmp_path, program="valkey-server") == []
    assert processes.identities_in(folder=stack.root / "valkey", program="postgres") == []


def test_postgres_never_runs_as_root(stack: LocalStack) -> None:
    account = database_account()
    owner = os.stat(f"/proc/{stack.servers['postgres'].pid}").st_uid  # noqa: PTH116 - a process, not a path of ours
    assert owner == (account.uid if account else os.geteuid())
    assert owner != 0
    groups = Path(f"/proc/{stack.servers['postgres'].pid}/status").read_text()
    if account:
        assert "Groups:\t \n" in groups
    assert valkey.LADDER.steps[-1][0] == signal.SIGTERM
