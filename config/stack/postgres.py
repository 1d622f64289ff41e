"""One private PostgreSQL cluster: made whole or not at all, behind a socket and a password, stopped by its own pid."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg2

from config.stack import processes
from config.stack.binaries import POSTGRES_MAJOR, PostgresPrograms, postgres_programs, programs_for
from config.stack.children import Child, Children
from config.stack.errors import StackError
from config.stack.places import SOCKET_NAME, Account, database_account, database_home, socket_folder
from config.stack.private_files import create_once
from config.stack.processes import Ladder

USER = DATABASE = "flotilla"
PORT = 5432  # part of the socket's name only; nothing listens on TCP
START_SECONDS = 120.0  # recovery after an unclean stop replays the log first

# SIGINT: fast shutdown; SIGQUIT: immediate, as after a crash (PostgreSQL manual, "Shutting Down the Server").
LADDER = Ladder(steps=((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0)))

_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "cluster_name": "flotilla",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "128MB",
    "work_mem": "8MB",
    "synchronous_commit": "on",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "random_page_cost": "1.1",
    "jit": "off",  # every hot query is short
    "autovacuum_naptime": "5s",
    "autovacuum_vacuum_cost_limit": "2000",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    # Statements carry phone numbers and texts, and error details quote rows: neither belongs in a log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Cluster:
    """Where one cluster lives and how it is run."""

    home: Path
    sockets: Path
    account: Account | None
    programs: PostgresPrograms
    password_file: Path
    durable: bool
    listen: str = ""
    """An address of this host by which others reach it as well, with the password; none, unless somebody asks."""

    @property
    def data(self) -> Path:
        return self.home / "data"

    def password(self) -> str:
        return self.password_file.read_text(encoding="utf-8").strip()

    def url(self) -> str:
        """A libpq URL; the socket's folder is its ``host``."""
        password, host = quote(self.password(), safe=""), quote(str(self.sockets), safe="")
        return f"postgresql://{USER}:{password}@/{DATABASE}?host={host}"


def locate(*, root: Path, durable: bool, listen: str = "") -> Cluster:
    """Decide where the cluster of ``root`` lives, and make its folders."""
    account = database_account()
    home = database_home(root=root, account=account)
    return Cluster(
        home=home,
        sockets=socket_folder(root=root, home=home, account=account),
        account=account,
        programs=programs_for(account, home=home) if account else postgres_programs(),
        password_file=root / "postgres.password",
        durable=durable,
        listen=listen,
    )


def clear_leftovers(cluster: Cluster) -> None:
    """After an unclean stop: end what still works in this data folder and remove the lock files it left.

    PostgreSQL judges a stale ``postmaster.pid`` by the pid alone and refuses to start when somebody else has that pid
    by now. We look for processes that work in the data folder instead; only when there is none are the files removed.
    The caller owns the stack's lock, so nobody is starting this cluster meanwhile.
    """
    living = processes.identities_in(folder=cluster.data, program="postgres")
    for number, seconds in (*LADDER.steps, (signal.SIGKILL, 5.0)):
        if processes.stop_all(living, number=number, seconds=seconds):
            break
        living = processes.identities_in(folder=cluster.data, program="postgres")
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (cluster.sockets / name).unlink(missing_ok=True)
    (cluster.data / "postmaster.pid").unlink(missing_ok=True)
    for initdb in processes.identities_in(folder=cluster.home, program="initdb"):
        processes.stop(initdb, Ladder(steps=()))
    for half_made in cluster.home.glob("new-*"):
        for who in processes.identities_in(folder=half_made / "data", program="postgres"):
            processes.stop(who, Ladder(steps=(), group=False))
        shutil.rmtree(half_made)


def make(cluster: Cluster, *, children: Children, log: Path) -> None:
    """Make the cluster if there is none: in a folder beside, renamed when complete, so half of one is never used."""
    version = cluster.data / "PG_VERSION"
    if version.is_file():
        found = version.read_text().strip()
        if found != str(POSTGRES_MAJOR):
            raise StackError(f"{cluster.data} was made by PostgreSQL {found}, this is {POSTGRES_MAJOR}; move it away.")
        if not cluster.password_file.is_file():
            raise StackError(f"{cluster.password_file} is gone, and with it the way into {cluster.data}; remove both.")
        return
    password = create_once(cluster.password_file, secrets.token_urlsafe(32))
    new = Path(tempfile.mkdtemp(prefix="new-", dir=cluster.home))
    password_copy = new / "password"
    password_copy.touch(mode=0o600)
    password_copy.write_text(password)
    if cluster.account:
        for path in (new, password_copy):
            os.chown(path, cluster.account.uid, cluster.account.gid, follow_symlinks=False)
    child = children.start(
        name="initdb",
        argv=[
            str(cluster.programs.initdb),
            f"--pgdata={new / 'data'}",
            f"--username={USER}",
            f"--pwfile={password_copy}",
            "--auth-local=scram-sha-256",
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            *(() if cluster.durable else ("--no-sync",)),
        ],
        ladder=Ladder(steps=((signal.SIGTERM, 5.0),)),
        env=_environment(),
        cwd=cluster.home,
        log=log,
        account=cluster.account,
    )
    try:
        code = child.popen.wait()
    finally:
        children.stop(child)
    if code != 0:
        shutil.rmtree(new)
        raise StackError(f"initdb failed: {child.last_words()} ({log})")
    (new / "data").rename(cluster.data)
    shutil.rmtree(new)


def _environment() -> dict[str, str]:
    """Nothing of ours: the server's account must not read our secrets from its environment."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def start(
    cluster: Cluster, *, children: Children, log: Path, started: Callable[[Child], None] = lambda _child: None
) -> Child:
    """Start the cluster and wait until it answers; its database exists afterwards.

    ``started`` hears of the process before the wait. Raises :class:`StackError` with the end of its log.
    """
    settings = dict(
        _SETTINGS, unix_socket_directories=str(cluster.sockets), **({} if cluster.durable else _NOT_DURABLE)
    )
    if cluster.listen:
        settings["listen_addresses"] = cluster.listen
        _admit_network(cluster)
    child = children.start(
        name="postgres",
        argv=[
            str(cluster.programs.postgres),
            "-D",
            str(cluster.data),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ],
        ladder=LADDER,
        env=_environment(),
        cwd=cluster.home,
        log=log,
        account=cluster.account,
    )
    started(child)
    deadline = time.monotonic() + START_SECONDS
    while True:
        if child.exit_code() is not None:
            children.forget(child)
            raise StackError(f"PostgreSQL did not start: {child.last_words()} ({log})")
        try:
            _make_database(cluster)
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                children.stop(child)
                raise StackError(f"PostgreSQL does not answer after {START_SECONDS:.0f} seconds ({log})") from None
            time.sleep(0.05)
        else:
            return child


def _admit_network(cluster: Cluster) -> None:
    """Hosts of our own networks may log in with the password."""
    rules = cluster.data / "pg_hba.conf"
    rule = f"host {DATABASE} {USER} samenet scram-sha-256\n"
    present = rules.read_text(encoding="utf-8")
    if rule not in present:
        rules.write_text(present + rule, encoding="utf-8")


def _make_database(cluster: Cluster) -> None:
    connection = psycopg2.connect(
        host=str(cluster.sockets),
        port=PORT,
        user=USER,
        password=cluster.password(),
        dbname="postgres",
        connect_timeout=5,
    )
    with contextlib.closing(connection):
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
            if cursor.fetchone() is None:
                cursor.execute(f'CREATE DATABASE "{DATABASE}"')
