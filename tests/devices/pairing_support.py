"""A gateway that pairs, small but real: a driver over HTTP, and a server on the loopback address that it talks to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from devices.gateways import http
from devices.gateways.base import Accepted, DeviceConfig, Outcome, Outgoing, Pairing, Rejected, SessionLost, Temporary
from devices.gateways.http import Answer
from devices.gateways.simulator import SimulatorDriver


@dataclass
class Phone:
    """The far side: what the gateway's server says about the link, for a test to change."""

    status: str = "qr"
    qr: str = "2@far,side"
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class PairableClient:
    """Asks ``GET /pair[?phone=]``, ``POST /log-out`` and ``POST /restart``."""

    config: DeviceConfig

    def send(self, outgoing: Outgoing) -> Outcome:
        return Rejected("no", "This one only pairs.")

    def check(self) -> Accepted | Temporary | SessionLost:
        return self._post("/check")

    def pair(self, *, phone: str | None = None) -> Pairing:
        answer = self._call("GET", f"/pair?phone={phone}" if phone else "/pair")
        if not isinstance(answer, Answer):
            return Pairing("waiting", text=answer.text)
        told = answer.json()
        return Pairing(
            told["status"],
            qr=told.get("qr", ""),
            code=told.get("code", ""),
            phone=told.get("phone", ""),
            text=told.get("text", ""),
            expires_at=datetime.now(UTC) + timedelta(seconds=60),
        )

    def log_out(self) -> Accepted | Temporary | SessionLost:
        return self._post("/log-out")

    def restart(self) -> Accepted | Temporary | SessionLost:
        return self._post("/restart")

    def close(self) -> None:
        """Holds nothing."""

    def _post(self, path: str) -> Accepted | Temporary | SessionLost:
        answer = self._call("POST", path)
        if isinstance(answer, Answer):
            return Accepted() if answer.status == 200 else Temporary("refused", "The gateway is busy.")
        return Temporary(answer.code, answer.text)

    def _call(self, method: str, path: str) -> Any:
        return http.call(method=method, url=self.config.base_url + path, deadlines=self.config.deadlines)


class PairableDriver(SimulatorDriver):
    """Knows both ways of linking."""

    kind = "pairable"
    label = "Pairable gateway"
    pairing = frozenset({"qr", "code"})
    credential_fields = ()

    def connect(self, config: DeviceConfig) -> Any:
        return PairableClient(config)


@contextmanager
def gateway() -> Iterator[tuple[str, Phone]]:
    """The server's address, and its phone."""
    phone = Phone()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.path.partition("phone=")[2]
            with phone.lock:
                phone.requests.append(("GET", self.path))
                status = "code" if asked and phone.status == "qr" else phone.status
                told = {"status": status, "qr": phone.qr if status == "qr" else ""}
            told |= {"code": "ABCD-EFGH"} if status == "code" else {}
            told |= {"phone": "+628110000001"} if status == "connected" else {}
            self._answer(200, told)

        def do_POST(self) -> None:
            with phone.lock:
                phone.requests.append(("POST", self.path))
                busy = phone.status == "busy"
                if self.path == "/log-out" and not busy:
                    phone.status = "qr"
            self._answer(503 if busy else 200, {})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", phone
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
