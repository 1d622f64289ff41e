"""Where the local stack may put its files, and as whom PostgreSQL runs.

Two rules decide: nothing on the way is ever loosened (no parent folder changes owner or mode), and no account is made.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.stack.errors import StackError
from config.stack.private_files import write_private

CHECKOUT = Path(__file__).resolve().parents[2]
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_LIMIT_BYTES = 107  # sun_path is 108 bytes with its final NUL on Linux (unix(7))
_DATA_PARENTS = ("/var/tmp", "/tmp")  # noqa: S108 - private folders are made inside, by mkdtemp
_SOCKET_PARENTS = ("/tmp", "/var/tmp")  # noqa: S108


@dataclass(frozen=True)
class Account:
    """An unprivileged account that exists on this machine."""

    name: str
    uid: int
    gid: int

    def popen_options(self) -> dict[str, Any]:
        """Drop to this account, supplementary groups included."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def local_root() -> Path:
    """Everything the local stack writes is below this folder: ``FLOTILLA_LOCAL``, or ``.local`` in the checkout."""
    return Path(os.environ.get("FLOTILLA_LOCAL") or CHECKOUT / ".local").absolute()


def make_root(root: Path) -> None:
    """Make ``root``. Root's own is searchable by others (never readable), so that PostgreSQL's account gets through."""
    try:
        root.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(f"Cannot make {root}: {error.strerror}. FLOTILLA_LOCAL names another place.") from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise StackError(f"{root} belongs to somebody else. FLOTILLA_LOCAL names another place.")


def database_account() -> Account | None:
    """The account PostgreSQL runs as; None means ourselves. PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0:
                return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise StackError("PostgreSQL refuses to run as root, and there is neither a postgres nor a nobody account here.")


def reaches(account: Account, *, folder: Path, program: Path | None = None) -> bool:
    """Whether ``account`` can work in ``folder`` (and run ``program``): tried, not guessed from modes."""
    script = 'cd "$1" && test -w . && { [ -z "$2" ] || "$2" --version; }'
    answer = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(folder), str(program or "")],
        cwd="/",
        env={"PATH": os.defpath},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        **account.popen_options(),
    )
    return answer.returncode == 0


def private_folder(*, pointer: Path, parents: Sequence[str], account: Account | None) -> Path:
    """A folder outside the checkout that only its owner can enter; ``pointer`` remembers which.

    These parents are open to everybody and swept now and then, so a remembered folder counts only while it is still a
    real folder of that owner with mode 0700: a name that somebody else took is never used.
    """
    uid = account.uid if account else os.geteuid()
    remembered = pointed(pointer)
    if remembered and _is_private(remembered, uid=uid):
        return remembered
    for parent in parents:
        try:
            folder = Path(tempfile.mkdtemp(prefix="flotilla-", dir=parent))
        except OSError:
            continue
        if account:
            os.chown(folder, account.uid, account.gid)
        if account is None or reaches(account, folder=folder):
            write_private(pointer, json.dumps({"folder": str(folder), "uid": uid}))
            return folder
        folder.rmdir()
    raise StackError(f"No folder can be made in {' or '.join(parents)}.")


def pointed(pointer: Path) -> Path | None:
    try:
        return Path(json.loads(pointer.read_text())["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_private_folder(pointer: Path) -> None:
    """Remove the folder that ``pointer`` remembers, if it is still the one we made."""
    folder = pointed(pointer)
    if folder:
        uid = json.loads(pointer.read_text()).get("uid")
        if folder.name.startswith("flotilla-") and _is_private(folder, uid=uid):
            shutil.rmtree(folder)
    pointer.unlink(missing_ok=True)


def _is_private(folder: Path, *, uid: int) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and stat.S_IMODE(found.st_mode) == 0o700


def database_home(*, root: Path, account: Account | None) -> Path:
    """The folder that holds the cluster.

    Below ``root`` when its account can get there. A checkout under /root (mode 0700) is out of that account's reach,
    and opening /root is not ours to do: then the cluster lives in a private folder of that account under /var/tmp,
    and ``postgres.path`` in ``root`` says where. It may be swept away there after weeks of disuse, as anything is.
    """
    pointer = root / "postgres.path"
    if account and pointed(pointer):
        return private_folder(pointer=pointer, parents=_DATA_PARENTS, account=account)
    home = root / "postgres"
    home.mkdir(mode=0o700, exist_ok=True)
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise StackError(f"{home} belongs to somebody else. FLOTILLA_LOCAL names another place.")
    if account is None:
        return home
    if not any(home.iterdir()):
        os.chown(home, account.uid, account.gid, follow_symlinks=False)
    if reaches(account, folder=home):
        return home
    if any(home.iterdir()):
        raise StackError(f"{home} holds a database that the account {account.name} cannot reach; move or remove it.")
    home.rmdir()
    return private_folder(pointer=pointer, parents=_DATA_PARENTS, account=account)


def fits_socket(folder: Path) -> bool:
    return len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_LIMIT_BYTES


def socket_folder(*, root: Path, home: Path, account: Account | None) -> Path:
    """A private folder for PostgreSQL's socket: beside the cluster, or one in /tmp when that path is too long."""
    folder = home / "run"
    if not fits_socket(folder):
        return private_folder(pointer=root / "socket.path", parents=_SOCKET_PARENTS, account=account)
    folder.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)  # its parent is in that account's hands
    return folder
