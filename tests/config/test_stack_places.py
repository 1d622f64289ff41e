"""Where files go: nothing on the way is loosened, sockets fit, and strangers' folders are not trusted."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.stack.binaries import postgres_programs
from config.stack.errors import StackError
from config.stack.local import LocalStack, erase
from config.stack.places import (
    _DATA_PARENTS,
    _SOCKET_PARENTS,
    SOCKET_PATH_LIMIT_BYTES,
    database_account,
    make_root,
    pointed,
    private_folder,
    reaches,
    socket_folder,
)
from tests.config.stack_support import CHECKOUT, environment_without_servers, fresh_root

OPEN_TO_ALL = Path(_SOCKET_PARENTS[0])
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run PostgreSQL as somebody else")


@pytest.fixture(autouse=True)
def no_servers_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "FLOTILLA_LOCAL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root() -> Iterator[Path]:
    with fresh_root() as folder:
        yield folder


def modes(path: Path) -> dict[str, tuple[int, int, int]]:
    """Mode and owner of a folder and everything above it."""
    found = {}
    for folder in (path, *path.parents):
        status = folder.stat()
        found[str(folder)] = (status.st_mode, status.st_uid, status.st_gid)
    return found


def started_and_stopped(root: Path) -> LocalStack:
    stack = LocalStack(root, durable=False)
    stack.start()
    stack.stop()
    return stack


@AS_ROOT
def test_a_reachable_root_holds_the_cluster(root: Path) -> None:
    before = modes(root.parent)
    started_and_stopped(root)
    assert modes(root.parent) == before
    account = database_account()
    assert account
    assert (root / "postgres").stat().st_uid == account.uid
    assert stat.S_IMODE((root / "postgres").stat().st_mode) == 0o700
    assert not (root / "postgres.path").exists()


@AS_ROOT
def test_a_root_out_of_reach_is_not_opened_but_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh_root(mode=0o700) as root:
        before = modes(root.parent)
        started_and_stopped(root)
        assert modes(root.parent) == before
        home = pointed(root / "postgres.path")
        account = database_account()
        assert home
        assert account
        assert home.parent == Path(_DATA_PARENTS[0])
        assert home.stat().st_uid == account.uid
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert (home / "data" / "PG_VERSION").is_file()
        started_and_stopped(root)
        assert pointed(root / "postgres.path") == home
        erase(root)
        assert not home.exists()
        assert not root.exists()


@AS_ROOT
def test_programs_out_of_reach_are_copied() -> None:
    """A venv below /root: its PostgreSQL is run from a copy that the account can reach, made once."""
    installed = postgres_programs().folder.parent
    with fresh_root(mode=0o700, inside="venv") as venv, fresh_root() as root:
        shutil.copytree(installed, venv / installed.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
        shutil.copytree(installed.with_name(f"{installed.name}.libs"), venv / f"{installed.name}.libs")
        script = "import sys; from config.stack.cli import main; sys.exit(main(['run', '--', 'true']))"
        for _ in range(2):
            subprocess.run(
                [sys.executable, "-c", script],
                env=environment_without_servers(PYTHONPATH=str(venv), FLOTILLA_LOCAL=str(root)),
                cwd=CHECKOUT,
                check=True,
            )
        stamp = root / "postgres" / "programs" / "stamp"
        assert str(venv) in stamp.read_text()
        account = database_account()
        assert account
        assert not reaches(account, folder=venv)


def test_a_long_path_gets_a_short_private_socket_folder() -> None:
    with fresh_root(inside="d" * 100) as root:
        stack = LocalStack(root, durable=False)
        stack.start()
        try:
            folder = pointed(root / "socket.path")
            assert folder
            assert len(os.fsencode(folder / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT_BYTES
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        finally:
            stack.stop()
        started_and_stopped(root)
        assert pointed(root / "socket.path") == folder
        erase(root)
        assert not folder.exists()


def test_the_longest_path_that_fits_is_used_as_it_is(root: Path) -> None:
    make_root(root)
    room = SOCKET_PATH_LIMIT_BYTES - len(os.fsencode(root / "x" / "run" / ".s.PGSQL.5432")) + 1
    fits, too_long = root / ("h" * room), root / ("h" * (room + 1))
    for home in (fits, too_long):
        home.mkdir()
    assert socket_folder(root=root, home=fits, account=None) == fits / "run"
    assert socket_folder(root=root, home=too_long, account=None).parent == OPEN_TO_ALL


def test_a_folder_somebody_else_put_there_is_not_used(root: Path) -> None:
    make_root(root)
    pointer = root / "socket.path"
    first = private_folder(pointer=pointer, parents=(str(OPEN_TO_ALL),), account=None)
    assert private_folder(pointer=pointer, parents=(str(OPEN_TO_ALL),), account=None) == first
    first.chmod(0o755)  # as if swept away and made again by somebody else
    second = private_folder(pointer=pointer, parents=(str(OPEN_TO_ALL),), account=None)
    first.rmdir()
    assert second != first
    elsewhere = root / "elsewhere"
    second.rename(elsewhere)
    second.symlink_to(elsewhere)
    third = private_folder(pointer=pointer, parents=(str(OPEN_TO_ALL),), account=None)
    second.unlink()
    assert third not in {first, second}


def test_a_place_that_cannot_be_written_is_named(root: Path) -> None:
    make_root(root)
    (root / "file").write_text("")
    with pytest.raises(StackError, match="FLOTILLA_LOCAL names another place"):
        make_root(root / "file" / "local")


@AS_ROOT
def test_without_root_rights_everything_is_ours() -> None:
    """The whole life of a stack as an ordinary account, when this interpreter is within its reach."""
    account = database_account()
    assert account
    interpreter = Path(sys.executable)
    if not reaches(account, folder=OPEN_TO_ALL, program=interpreter):
        interpreter = Path(f"/usr/bin/python3.{sys.version_info.minor}")
        if not reaches(account, folder=OPEN_TO_ALL, program=interpreter):
            pytest.skip("no Python of this version is within reach of an unprivileged account")
    packages = Path(psycopg2_folder()).parent
    if not reaches_for_reading(account.popen_options(), packages):
        pytest.skip("the venv is out of reach of an unprivileged account")
    with fresh_root(mode=0o755) as root:
        root.mkdir()
        os.chown(root, account.uid, account.gid)
        root.chmod(0o700)
        script = (
            "import sys, types; sys.path[:0] = sys.argv[1:3]; "
            # the stack needs nothing of the application around it, so the package is entered without its own imports
            "config = sys.modules['config'] = types.ModuleType('config'); config.__path__ = [sys.argv[1] + '/config']; "
            "from config.stack.cli import main; "
            "sys.exit(main(['run', '--', sys.executable, '-c', "
            "'import os, sys; sys.path.insert(0, sys.argv[1]); import psycopg2; "
            'psycopg2.connect(os.environ["DATABASE_URL"]).close(); sys.exit(5)\', sys.argv[2]]))'
        )
        done = subprocess.run(
            [interpreter, "-c", script, str(CHECKOUT), str(packages)],
            env={"PATH": os.defpath, "FLOTILLA_LOCAL": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            **account.popen_options(),
        )
        assert (done.returncode, done.stderr) == (5, "")
        assert {path.stat().st_uid for path in root.rglob("*")} == {account.uid}
        assert (root / "postgres" / "data" / "PG_VERSION").is_file()


def psycopg2_folder() -> str:
    import psycopg2

    return str(Path(psycopg2.__file__).parent)


def reaches_for_reading(options: dict[str, object], folder: Path) -> bool:
    done = subprocess.run(["/bin/ls", str(folder)], cwd="/", capture_output=True, check=False, **options)  # type: ignore[call-overload]
    return bool(done.returncode == 0)
