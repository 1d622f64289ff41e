"""Make ``.venv`` with exactly what ``requirements.lock`` says, once.

Run by its path with any Python ≥ 3.11 (standard library only): ``python -I config/stack/bootstrap.py``. A stamp in the
venv names the lock file's hash and the Python; while both are unchanged nothing happens. A note made before installing
and removed after it shows an install that was cut short: that venv is made anew, since pip would take a half-unpacked
package for a finished one.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

CHECKOUT = Path(__file__).resolve().parents[2]
OLDEST = (3, 11)
_DOT_SECONDS = 2.0


class BootstrapError(Exception):
    """Why there is no venv, in one line."""


def _tell(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _python_of(venv: Path) -> str | None:
    """Version and real path of a venv's Python; None when it does not run or is too old."""
    code = (
        "import os, sys; print(sys.version.split()[0], os.path.realpath(sys.executable), sys.version_info >= (3, 11))"
    )
    try:
        answer = subprocess.run(
            [venv / "bin" / "python", "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    told, _, new_enough = answer.stdout.strip().rpartition(" ")
    return told if answer.returncode == 0 and new_enough == "True" else None


def _ours() -> str:
    """The same two facts about the Python that runs this file, which may be a venv's itself."""
    return f"{sys.version.split()[0]} {os.path.realpath(sys.executable)}"


def _wanted(lock: Path, python: str) -> str:
    return f"{hashlib.sha256(lock.read_bytes()).hexdigest()}\n{python}\n"


def _run(argv: list[str | Path], *, log: Path, what: str) -> None:
    """Run quietly with a dot every two seconds; the end of its output when it fails."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    environment.pop("PYTHONHOME", None)
    with log.open("w+", encoding="utf-8", errors="replace") as output:
        popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        try:
            while True:
                try:
                    code = popen.wait(timeout=_DOT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    _tell(".")
        except BaseException:
            popen.terminate()
            popen.wait()
            raise
        if code != 0:
            output.seek(0)
            lines = [line.strip() for line in output if line.strip()]
            errors = [line for line in lines if line.upper().startswith("ERROR")] or lines
            raise BootstrapError(f"{what} failed: {errors[-1] if errors else f'exit {code}'} (all of it in {log})")


def _make_venv(venv: Path, *, log: Path) -> None:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:  # some distributions package them apart
        raise BootstrapError(
            f"{sys.executable} cannot make a venv (no {missing[0]}): install your system's python3-venv package, "
            "or name another Python with PYTHON=/path/to/python."
        )
    # Not the venv's own Python, which an activated .venv puts first: clearing would pull it from under us.
    base = getattr(sys, "_base_executable", None) or sys.executable
    _run([base, "-I", "-m", "venv", "--clear", venv], log=log, what="Making .venv")


def install(*, checkout: Path, insist: bool) -> bool:
    """Bring ``checkout``'s venv in line with its lock file; whether there was anything to do.

    ``insist`` (PYTHON= was given) makes a venv of another Python anew; without it, one that works is kept.
    """
    venv, lock = checkout / ".venv", checkout / "requirements.lock"
    stamp, unfinished = venv / "flotilla.stamp", venv / "flotilla.unfinished"
    python = _python_of(venv)
    usable = python is not None and not unfinished.exists() and (not insist or python == _ours())
    if usable and python is not None and stamp.is_file() and stamp.read_text() == _wanted(lock, python):
        return False
    log = checkout / ".local" / "install.log"
    log.parent.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
    begin = time.monotonic()
    _tell("Installing into .venv; the first time takes about a minute ")
    try:
        if not usable:
            _make_venv(venv, log=log)
        unfinished.touch()
        stamp.unlink(missing_ok=True)
        program = venv / "bin" / "python"
        if subprocess.run([program, "-I", "-m", "pip", "--version"], capture_output=True, check=False).returncode != 0:
            _run([program, "-I", "-m", "ensurepip"], log=log, what="Installing pip")
        _run(
            [program, "-I", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock],
            log=log,
            what="Installing requirements.lock",
        )
    finally:
        _tell("\n")
    made_by = _python_of(venv)
    if made_by is None:
        raise BootstrapError(f"{venv} does not run after installing; remove it and try again.")
    unfinished.unlink()
    stamp.write_text(_wanted(lock, made_by))
    _tell(f"Installed in {time.monotonic() - begin:.0f} s.\n")
    return True


def _ended(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> int:
    signal.signal(signal.SIGTERM, _ended)
    if sys.version_info < OLDEST:
        _tell(f"Flotilla needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}.\n")
        return 1
    if shutil.disk_usage(CHECKOUT).free < 600_000_000:
        _tell(f"Less than 600 MB are free on the disk of {CHECKOUT}; .venv needs about that.\n")
    try:
        # Two makes at once: the second waits, and then finds everything done.
        with (CHECKOUT / "requirements.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            install(checkout=CHECKOUT, insist="--insist" in sys.argv[1:])
    except (BootstrapError, OSError) as error:
        _tell(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
