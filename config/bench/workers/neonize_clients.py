"""What real WhatsApp clients take: ``NEONIZE_BOT_TAG=off python -m config.bench.workers.neonize_clients --number 300``.

Opens so many clients of the real library, each with a stored session of its own, that dial a proxy on the loopback
address: one that refuses (they fail at once and are closed), then one that never answers (they are held, dialling).
Nothing leaves the machine. Prints one JSON line for each step: resident memory and threads of the process, connections
at PostgreSQL, seconds per client. Wants ``DATABASE_URL`` of a database that may be written to, and a server whose
``max_connections`` is above the number.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from devices import session_store
from devices.gateways.neonize_events import parts_of_jid
from devices.gateways.neonize_library import load
from devices.gateways.neonize_session import Session
from devices.gateways.news import News

CLOSED = "http://127.0.0.1:9"
STEPS = 6
_INSERT = (
    "INSERT INTO whatsmeow.whatsmeow_device (jid, registration_id, noise_key, identity_key, signed_pre_key,"
    " signed_pre_key_id, signed_pre_key_sig, adv_key, adv_details, adv_account_sig, adv_account_sig_key,"
    " adv_device_sig)"
    " VALUES (%(jid)s, 1, %(key)s, %(key)s, %(key)s, 1, %(two)s, %(key)s, 'x', %(two)s, %(key)s, %(two)s)"
    " ON CONFLICT DO NOTHING"
)


class Deaf:
    """A host for sessions that nobody tells anything."""

    def __init__(self, store_url: str) -> None:
        self.store_url = store_url

    def tell(self, news: Sequence[News]) -> bool:  # noqa: ARG002 - the seam's signature
        return True

    @contextmanager
    def risky(self, call: str) -> Iterator[None]:  # noqa: ARG002
        yield

    def wedged(self, call: str) -> None:
        print(json.dumps({"wedged": call}), flush=True)


def main() -> None:
    """Measure, print, and leave without waiting for dials."""
    parser = argparse.ArgumentParser(description="What real WhatsApp clients take.")
    parser.add_argument("--number", type=int, default=300)
    number = parser.parse_args().number
    url = os.environ["DATABASE_URL"]
    _tell(url, step="before the library")
    library = load()
    _make_tables(library, url)
    _store(url, number)
    _tell(url, step="library loaded")
    host = Deaf(url)
    began = time.monotonic()
    for n in range(number):
        verdict = _session(library, host, n, CLOSED).open(seconds=30)
        if verdict is None:
            raise SystemExit("A client that cannot dial says that it is connected.")
    _tell(url, step=f"{number} failed and closed", seconds_each=round((time.monotonic() - began) / number, 4))
    with closing(socket.create_server(("127.0.0.1", 0), backlog=number + 10)) as server:
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        for n in range(number):
            session = _session(library, host, n, proxy)
            threading.Thread(target=session._run, daemon=True).start()  # noqa: SLF001 - held, not waited for
            with contextlib.suppress(TimeoutError):
                server.settimeout(20)
                _held.append((session, server.accept()[0]))
            if (n + 1) % max(1, number // STEPS) == 0:
                _tell(url, step=f"{n + 1} dialling")
        os._exit(0)


_held: list[tuple[Session, socket.socket]] = []


def _jid(n: int) -> str:
    return f"6281{n:08d}:1@s.whatsapp.net"


def _session(library: Any, host: Deaf, n: int, proxy: str) -> Session:
    return Session(
        library=library, store_url=host.store_url, name=f"flotilla wa bench {n}", device_id=n, host=host,
        jid=parts_of_jid(_jid(n)) or {}, proxy=proxy,
    )  # fmt: skip


def _make_tables(library: Any, url: str) -> None:
    session_store.prepare(url)
    client = library.NewClient(session_store.library_url(url, name="bench tables"), uuid="tables", new_device=True)
    with contextlib.suppress(Exception):
        client.connect(library.ProxySettings(proxy_address=CLOSED))


def _store(url: str, number: int) -> None:
    """Sessions with keys that are not real, which nobody finds out before a server is met."""
    key = b"\1" * 32
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        for n in range(number):
            cursor.execute(_INSERT, {"jid": _jid(n), "key": key, "two": key * 2})


def _tell(url: str, **more: Any) -> None:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'flotilla wa %'")
        found = cursor.fetchone()
    taken = {
        "rss_mb": round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1),
        "threads": int(status.split("Threads:")[1].split()[0]),
        "connections": found[0] if found else 0,
    }
    print(json.dumps({**more, **taken}), flush=True)


if __name__ == "__main__":
    main()
