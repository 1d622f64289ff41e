"""Is this program alive? Exit code 0 if so. Standard library only, so that asking costs next to nothing.

    python3 deploy/probe.py web      the web application answers /healthz
    python3 deploy/probe.py beat     beat has written its schedule down within ten minutes (it does every three)
    python3 deploy/probe.py backup   the newest backup below /backups is less than 26 hours old

Workers are asked through Celery: celery -A config inspect ping --timeout 10 -d control@HOST
"""

from __future__ import annotations

import http.client
import os
import sys
import time
from pathlib import Path

BEAT_SECONDS = 600
BACKUP_SECONDS = 26 * 3600


def web() -> str:
    """What is wrong with the web application of this container; nothing if it is well."""
    port = int((os.environ.get("FLOTILLA_BIND") or "127.0.0.1:8000").rpartition(":")[2])
    host = next((name.strip() for name in os.environ.get("FLOTILLA_HOSTS", "").split(",") if name.strip()), "localhost")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        # as the proxy asks: by a name that the application answers to, and over HTTPS
        connection.request("GET", "/healthz", headers={"Host": host.lstrip("."), "X-Forwarded-Proto": "https"})
        status = connection.getresponse().status
    except OSError as problem:
        return f"no answer on port {port}: {type(problem).__name__}"
    finally:
        connection.close()
    return (
        "" if status == 200 else f"/healthz answers {status}; is the first name in FLOTILLA_HOSTS one of this server?"
    )


def beat() -> str:
    """What is wrong with beat; nothing if it is well."""
    folder = Path(os.environ.get("FLOTILLA_LOCAL") or ".local")
    written = max((path.stat().st_mtime for path in folder.glob("beat-schedule*")), default=0.0)
    age = time.time() - written
    return "" if age < BEAT_SECONDS else f"its schedule in {folder} was last written {age:.0f} seconds ago"


def backup() -> str:
    """What is wrong with the backups; nothing if the newest is of last night."""
    folder = Path(os.environ.get("FLOTILLA_BACKUPS") or "/backups")
    written = max((path.stat().st_mtime for path in folder.glob("flotilla-*/backup.json")), default=0.0)
    hours = (time.time() - written) / 3600
    if not written:
        return f"there is no backup in {folder}"
    return "" if hours * 3600 < BACKUP_SECONDS else f"the newest backup in {folder} is {hours:.0f} hours old"


if __name__ == "__main__":
    wrong = {"web": web, "beat": beat, "backup": backup}[sys.argv[1]]()
    if wrong:
        sys.exit(wrong)
