"""Find Chromium for the browser tests, or install it: ``python -m config.stack.browser`` prints its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from config.stack.errors import StackError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VARIABLE = "FLOTILLA_CHROMIUM"


def find_chromium() -> Path | None:
    """Chromium as named in ``FLOTILLA_CHROMIUM``, on the PATH, or downloaded by Playwright before; None without one."""
    named = os.environ.get(VARIABLE, "")
    if named:
        if not os.access(named, os.X_OK):
            raise StackError(f"{VARIABLE} names {named}, which cannot be run.")
        return Path(named)
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    downloaded = sorted(cache.glob("chromium-*/chrome-linux*/chrome"))
    return downloaded[-1] if downloaded else None


def install_chromium() -> Path:
    """Install it with the system's packages, which needs root. Raises :class:`StackError` with what to do instead."""
    advice = f"Install your system's chromium package, or name a Chromium with {VARIABLE}=/path/to/chromium."
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise StackError(f"The browser tests need Chromium and none was found. {advice}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
        done = subprocess.run(["apt-get", *arguments], env=environment, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            raise StackError(f"apt-get {arguments[0]} failed with exit {done.returncode}. {advice}")
    found = find_chromium()
    if found is None:
        raise StackError(f"apt-get installed no Chromium that can be found. {advice}")
    return found


def main() -> int:
    try:
        chromium = find_chromium() or install_chromium()
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{chromium}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
