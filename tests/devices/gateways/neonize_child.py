"""Runs in a process of its own: the real library, which may bring its process down, and leaves threads behind.

One JSON object on standard input: ``{"do": name, ...}``; one JSON line on the last line of standard output.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from devices import session_store
from devices.gateways.base import Credentials, DeviceConfig, Media, Outgoing
from devices.gateways.neonize import NeonizeClient, NeonizeDriver
from devices.gateways.neonize_content import Unsendable, message_of
from devices.gateways.neonize_events import device_event_of, parts_of_jid, receipts_of, replies_of
from devices.gateways.neonize_library import load
from devices.gateways.neonize_session import Session, verdict_of
from devices.gateways.news import News

BEAT = 0.05


@dataclass
class Recorder:
    """A host for sessions that writes down what it is told. ``refuse`` times it cannot."""

    store_url: str
    news: list[News] = field(default_factory=list)
    refuse: int = 0
    wedges: list[str] = field(default_factory=list)

    def tell(self, news: Sequence[News]) -> bool:
        if self.refuse:
            self.refuse -= 1
            return False
        self.news += news
        return True

    @contextlib.contextmanager
    def risky(self, call: str) -> Iterator[None]:
        yield

    def wedged(self, call: str) -> None:
        self.wedges.append(call)


def config_of(given: dict[str, Any], device_id: int = 1) -> DeviceConfig:
    credentials = {"jid": given["jid"], "proxy": given.get("proxy", "")}
    return DeviceConfig(device_id=device_id, base_url="", credentials=Credentials(credentials))


def shown(outcome: Any) -> dict[str, Any]:
    if isinstance(outcome, NeonizeClient):
        return {"type": "client"}
    return {"type": type(outcome).__name__, **asdict(outcome)}


def events(given: dict[str, Any]) -> list[Any]:
    """Each of the library's own event objects, made from its fields, as what the driver makes of it."""
    from datetime import UTC, datetime

    from google.protobuf.json_format import ParseDict

    proto = load().proto
    now = datetime(2026, 9, 1, tzinfo=UTC)
    found = []
    for name, fields in given["events"]:
        event = ParseDict(fields, getattr(proto, name)())
        if name in {"Receipt", "Message"}:
            news: tuple[News, ...] = receipts_of(event) if name == "Receipt" else replies_of(event)
        else:
            about = device_event_of(event, device_id=7, now=now)
            news = (about,) if about else ()
        found.append(
            {
                "news": [shown(each) for each in news],
                "verdict": shown(verdict) if (verdict := verdict_of(name, event)) else None,
            }
        )
    return found


def open_session(given: dict[str, Any]) -> dict[str, Any]:
    host = Recorder(given["store_url"])
    outcome = NeonizeDriver().open(config_of(given), host=host, seconds=given["seconds"])
    again = NeonizeDriver().open(config_of(given), host=host, seconds=given["seconds"]) if given.get("again") else None
    return {"outcome": shown(outcome), "again": shown(again) if again else None, "wedges": host.wedges}


def tables(given: dict[str, Any]) -> dict[str, Any]:
    """Let the library make its tables, as pairing does."""
    library = load()
    session_store.prepare(given["store_url"])
    client = library.NewClient(
        session_store.library_url(given["store_url"], name="tables"), uuid="tables", new_device=True
    )
    with contextlib.suppress(Exception):
        client.connect(library.ProxySettings(proxy_address=given["proxy"]))
    return {}


def abort(given: dict[str, Any]) -> dict[str, Any]:
    """What the driver never does: ask the library for a session that is not stored."""
    library = load()
    jid = library.proto.JID(**parts_of_jid(given["jid"]))
    url = session_store.library_url(given["store_url"], name="abort")
    library.NewClient(url, jid=jid).connect(library.ProxySettings(proxy_address=given["proxy"]))
    return {}


def told(given: dict[str, Any]) -> dict[str, Any]:
    """A session that hears events through its own handlers, with a host that cannot write at first."""
    library = load()
    host = Recorder(given["store_url"], refuse=1)
    session = Session(
        library=library,
        store_url=given["store_url"],
        name="told",
        device_id=1,
        host=host,
        jid=parts_of_jid(given["jid"]) or {},
        proxy=given["proxy"],
    )
    states = []
    handlers = session.client.event.list_func
    codes = library.events.EVENT_TO_INT
    proto = library.proto

    def hear(event: Any) -> None:
        handlers[codes[type(event)]](session.client, event)
        states.append(session.is_healthy())

    teller = threading.Thread(target=session._tell_all)
    teller.start()
    hear(proto.Connected(status=True))
    hear(proto.Receipt(MessageIDs=["3EB0A1B2"], Timestamp=1790000000, Type=proto.Receipt.READ))
    hear(proto.OfflineSyncCompleted(Count=1))
    drained = session.drain(seconds=30)
    hear(proto.KeepAliveTimeout(ErrorCount=1, LastSuccess=1))
    hear(proto.KeepAliveRestored())
    hear(proto.Disconnected(status=True))
    hear(proto.StreamReplaced())
    outcome = NeonizeClient(session=session, library=library).send(
        Outgoing(message_id=1, attempt=1, reference="r", phone="+628110000002", text="halo")
    )
    session.close()
    teller.join(30)
    return {
        "states": states,
        "drained": drained,
        "news": [shown(each) for each in host.news],
        "outcome": shown(outcome),
        "finalizer": session.client._stop_finalizer.alive,
    }


def sends(given: dict[str, Any]) -> list[Any]:
    """Sends through a client that the library has and that is not connected: its own words."""
    library = load()
    host = Recorder(given["store_url"])
    session = Session(
        library=library,
        store_url=given["store_url"],
        name="sends",
        device_id=1,
        host=host,
        jid=parts_of_jid(given["jid"]) or {},
        proxy=given["proxy"],
    )
    with contextlib.suppress(Exception):
        session.client.connect(library.ProxySettings(proxy_address=given["proxy"]))
    session.hear(library.proto.Connected(status=True))  # so that the driver lets it try
    client = NeonizeClient(session=session, library=library)
    outgoing = Outgoing(message_id=1, attempt=1, reference="r", phone="+628110000002", text="halo")
    outcomes = [client.send(outgoing), client.log_out()]
    session.close()
    return [shown(outcome) for outcome in outcomes]


def content(given: dict[str, Any]) -> list[Any]:
    """Each message as the library will send it. What is uploaded is answered as WhatsApp's servers do."""
    from google.protobuf.json_format import MessageToDict

    library = load()
    built = []
    for case in given["cases"]:
        data = bytes.fromhex(case.get("data", ""))
        media = Media(case.get("mime", ""), "list.pdf", len(data), url="", read=lambda data=data: data)
        outgoing = Outgoing(
            message_id=1,
            attempt=1,
            reference="r",
            phone="+628110000002",
            text=case["text"],
            type=case["type"],
            media=media if data else None,
        )
        uploads: list[list[Any]] = []

        def upload(put: bytes, kind: Any, uploads: list[list[Any]] = uploads) -> Any:
            uploads.append([put.hex(), kind.name])
            return library.proto.UploadResponse(
                url="https://mmg.example/f", DirectPath="/f", MediaKey=b"k", FileEncSHA256=b"e", FileSHA256=b"s",
                FileLength=len(put),
            )  # fmt: skip

        try:
            message = message_of(outgoing, library=library, upload=upload)
        except Unsendable as reason:
            built.append({"code": reason.code, "uploads": uploads})
        else:
            built.append({"message": MessageToDict(message), "uploads": uploads})
    return built


def cycles(given: dict[str, Any]) -> dict[str, Any]:
    """Open and close again and again; what it takes after the first few, and after all."""
    host = Recorder(given["store_url"])
    seen = []
    for number in range(given["number"]):
        outcome = NeonizeDriver().open(config_of(given), host=host, seconds=30)
        assert shown(outcome)["type"] == "Temporary", outcome
        if number + 1 in given["look_at"]:
            gc.collect()
            seen.append(taken(given["store_url"]))
    return {"seen": seen, "wedges": host.wedges}


def taken(store_url: str) -> dict[str, int]:
    status = Path("/proc/self/status").read_text()
    with contextlib.closing(psycopg2.connect(store_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'flotilla wa %'")
        connections = cursor.fetchone()[0]
    return {
        "rss_kb": int(status.split("VmRSS:")[1].split()[0]),
        "threads": int(status.split("Threads:")[1].split()[0]),
        "connections": connections,
    }


def main() -> None:
    given = json.loads(sys.stdin.read())
    result = {
        "events": events, "tables": tables, "open": open_session, "abort": abort, "told": told, "sends": sends,
        "content": content, "cycles": cycles,
    }[given["do"]](given)  # fmt: skip
    print()
    print(json.dumps(result, default=str), flush=True)
    os._exit(0)  # a dial that hangs would hold the process up for a minute


if __name__ == "__main__":
    main()
