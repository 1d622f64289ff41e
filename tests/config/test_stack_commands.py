"""The commands as people and scripts meet them: exit codes, one-line errors, signals, and pytest's own servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from config.stack import processes, state
from config.stack.processes import Identity
from tests.config.stack_support import CHECKOUT, bystander, environment_without_servers, fresh_root, identity, wait_for
from tests.config.stack_support import wait_gone as wait_until_gone

STACK = (sys.executable, "-m", "config.stack")


@pytest.fixture
def root() -> Iterator[Path]:
    with fresh_root() as folder:
        yield folder


def stack(*arguments: str, root: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STACK, *arguments],
        env=environment_without_servers(FLOTILLA_LOCAL=str(root), **more),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@contextlib.contextmanager
def running(argv: Sequence[str], *, root: Path, cwd: Path = CHECKOUT, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a group of its own, so that a signal reaches only what the test means."""
    with subprocess.Popen(
        list(argv),
        env=environment_without_servers(FLOTILLA_LOCAL=str(root), **more),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as popen:
        try:
            yield popen
        finally:
            popen.kill()


def everything_of(root: Path) -> list[Identity]:
    """Owner, guard and servers of the stack that runs below ``root``."""

    def found() -> state.State | None:
        here = state.read(root)
        return here if here and here.is_live() else None

    wait_for(found, what="a running stack")
    here = state.read(root)
    assert here
    assert here.guard
    return [here.owner, here.guard, *here.processes.values()]


def test_run_hands_on_the_servers_and_the_exit_code(root: Path) -> None:
    script = "import os, psycopg2; psycopg2.connect(os.environ['DATABASE_URL']).close(); raise SystemExit(7)"
    done = stack("run", "--", sys.executable, "-c", script, root=root)
    assert (done.returncode, done.stderr) == (7, "")
    assert stack("run", "--", "sh", "-c", "kill -9 $$", root=root).returncode == 128 + 9


def test_errors_are_one_line_and_not_zero(root: Path) -> None:
    for done, words in (
        (stack("run", "--", "no-such-command", root=root), "no-such-command cannot be run"),
        (stack("run", "--", "true", root=root, REDIS_URL="redis://cache"), "DATABASE_URL is not"),
        (stack("up", "--port", "1", "--flower-port", "1", root=root), "Port 1 for flower is in use"),
    ):
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_the_servers(root: Path, number: signal.Signals) -> None:
    with running([*STACK, "run", "--", "sh", "-c", "echo $$; exec sleep 600"], root=root) as popen:
        assert popen.stdout
        command = identity(int(popen.stdout.readline()))
        started = everything_of(root)
        popen.send_signal(number)
        assert popen.wait(timeout=60) == 128 + number
        wait_until_gone(command, *started)
    assert not (root / "stack.json").exists()


def test_a_killed_run_leaves_neither_command_nor_servers(root: Path) -> None:
    with running([*STACK, "run", "--", "sh", "-c", "echo $$; exec sleep 600"], root=root) as popen:
        assert popen.stdout
        command = identity(int(popen.stdout.readline()))
        started = everything_of(root)
        popen.kill()
        wait_until_gone(command, *started)


def test_it_ends_with_the_process_it_is_bound_to(root: Path) -> None:
    with (
        bystander() as make,
        running([*STACK, "run", "--", "sleep", "600"], root=root, FLOTILLA_ENDS_WITH=str(make.pid)) as popen,
    ):
        started = everything_of(root)
        os.kill(make.pid, signal.SIGKILL)
        assert popen.wait(timeout=60) == 128 + signal.SIGTERM
        wait_until_gone(*started)


def test_status_and_stop_from_another_terminal(root: Path) -> None:
    assert stack("status", root=root).returncode == 1
    assert stack("stop", root=root).stdout == "Nothing was running.\n"
    with running([*STACK, "run", "--", "sleep", "600"], root=root) as popen:
        started = everything_of(root)
        done = stack("status", root=root)
        assert done.returncode == 0
        for who in (popen.pid, *(who.pid for who in started[2:])):
            assert str(who) in done.stdout
        busy = stack("up", root=root)
        assert busy.returncode == 1
        assert f"already running (process {popen.pid})" in busy.stderr
        assert busy.stdout == ""
        assert stack("stop", root=root).returncode == 0
        wait_until_gone(*started)
    assert stack("status", root=root).returncode == 1


def test_clean_removes_everything(root: Path) -> None:
    with running([*STACK, "run", "--", "sleep", "600"], root=root):
        started = everything_of(root)
        assert stack("clean", root=root).returncode == 0
        wait_until_gone(*started)
    assert not root.exists()


INNER = """
import os, psycopg2

def test_servers():
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    with connection, connection.cursor() as cursor:
        cursor.execute("SHOW fsync")
        assert cursor.fetchone() == ("off",)
    connection.close()
    print("AT", os.getpid(), flush=True)
    if os.environ.get("HOLD"):
        import time
        time.sleep(100)
"""


@pytest.fixture
def session(tmp_path: Path) -> list[str]:
    """A pytest session of its own with only our plugin and one test."""
    (tmp_path / "test_inner.py").write_text(INNER)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    plugins = ["-p", "no:django", "-p", "no:cacheprovider", "-p", "tests.servers"]
    return [
        sys.executable,
        "-m",
        "pytest",
        *plugins,
        "-s",
        "--rootdir",
        str(tmp_path),
        "-c",
        str(tmp_path / "pytest.ini"),
    ]


def hold(session: list[str], folder: Path, *, root: Path) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return running([*session, str(folder)], root=root, HOLD="1", PYTHONPATH=str(CHECKOUT))


def test_a_test_session_brings_its_own_servers(root: Path, tmp_path: Path, session: list[str]) -> None:
    with running([*session, str(tmp_path)], root=root, PYTHONPATH=str(CHECKOUT)) as popen:
        output, _ = popen.communicate(timeout=100)
    assert popen.returncode == 0, output
    assert f"servers: {root / 'test'}" in output
    assert state.read(root / "test") is None
    assert not processes.identities_in(folder=root / "test" / "valkey", program="valkey-server")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_servers_end_with_the_test_session_however_it_ends(
    root: Path, tmp_path: Path, session: list[str], number: signal.Signals
) -> None:
    with hold(session, tmp_path, root=root) as popen:
        started = everything_of(root / "test")
        output = popen.stdout
        assert output
        wait_for(lambda: "AT" in output.readline(), what="the test at work")
        popen.send_signal(number)
        wait_until_gone(*started)


def test_two_test_sessions_at_once_do_not_share(root: Path, tmp_path: Path, session: list[str]) -> None:
    with hold(session, tmp_path, root=root), hold(session, tmp_path, root=root):
        first = everything_of(root / "test")
        second = everything_of(root / "test-2")
        assert not set(first) & set(second)
    wait_until_gone(*first, *second)


def test_a_test_session_uses_servers_that_are_given(root: Path, tmp_path: Path, session: list[str]) -> None:
    (tmp_path / "test_inner.py").write_text(
        "import os\ndef test_given():\n    assert os.environ['DATABASE_URL'] == 'postgresql://db.example/fleet'\n"
    )
    database_url, redis_url = "postgresql://db.example/fleet", "redis://cache.example"
    with running(
        [*session, str(tmp_path)], root=root, PYTHONPATH=str(CHECKOUT), DATABASE_URL=database_url, REDIS_URL=redis_url
    ) as popen:
        output, _ = popen.communicate(timeout=100)
    assert popen.returncode == 0, output
    assert "servers: from the environment" in output
    assert not root.exists()


def checkout_copy(folder: Path) -> Path:
    """Enough of the checkout for make's bootstrap, with nothing to download."""
    (folder / "config" / "stack").mkdir(parents=True)
    shutil.copy(CHECKOUT / "Makefile", folder)
    shutil.copy(CHECKOUT / "config" / "stack" / "bootstrap.py", folder / "config" / "stack")
    (folder / "requirements.lock").write_text("# nothing\n")
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--no-print-directory", "-C", str(folder), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_make_alone_prints_one_line_for_each_target() -> None:
    done = make(CHECKOUT)
    assert done.returncode == 0
    targets = [line.split()[1] for line in done.stdout.splitlines()]
    assert targets == [
        "help",
        "venv",
        "demo",
        "up",
        "test",
        "test-browser",
        "check",
        "bench",
        "chaos",
        "chaos-mutations",
        "clean",
    ]


def test_without_a_usable_python_there_is_one_line(tmp_path: Path) -> None:
    done = make(checkout_copy(tmp_path), "venv", "PYTHON=/no/such/python")
    assert done.returncode != 0
    ours = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(ours) == 1
    assert "Python 3.11 or newer" in ours[0]
    assert not (tmp_path / ".venv").exists()


@pytest.mark.slow
def test_the_venv_is_made_once_and_again_only_when_something_changed(tmp_path: Path) -> None:
    folder = checkout_copy(tmp_path)
    chosen = f"PYTHON={Path(sys.executable).resolve()}"
    lock, venv = folder / "requirements.lock", folder / ".venv"
    marker = venv / "marker"

    lock.write_text("./no-such-package ; python_version > '3'\n")
    failed = make(folder, "venv", chosen)
    assert failed.returncode != 0
    assert "Installing requirements.lock failed" in failed.stderr
    assert "Traceback" not in failed.stderr

    # What an install cut short has left cannot be trusted, so it is made anew.
    marker.touch()
    lock.write_text("# nothing\n")
    first = make(folder, "venv", chosen, "-j4")
    assert first.returncode == 0, first.stderr
    assert "Installed in" in first.stderr
    assert not marker.exists()

    marker.touch()
    for arguments in (["venv"], ["venv", chosen]):
        again = make(folder, *arguments)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    lock.write_text("# nothing more\n")
    assert "Installed in" in make(folder, "venv").stderr
    assert marker.exists()

    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/no/such/python")
    assert "Installed in" in make(folder, "venv").stderr
    assert not marker.exists()
    assert make(folder, "venv").stderr == ""
