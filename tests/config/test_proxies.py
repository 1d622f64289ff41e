"""The files of deploy/proxy, run by the proxies themselves: who gets through to what.

The two programs behind them are stand-ins that tell what reached them; what Flotilla answers at the door is tested in
test_login.py.
"""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from config.stack.ports import any_free_port

PROXIES = Path(__file__).resolve().parents[2] / "deploy" / "proxy"
DEADLINE_SECONDS = 60
Ask = Callable[..., http.client.HTTPResponse]


class Behind(BaseHTTPRequestHandler):
    """Says what reached it; at the door it knows two visitors by their cookie."""

    def do_GET(self) -> None:
        visitor = self.headers.get("Cookie", "")
        at_door = self.path.startswith("/auth/flower")
        self.send_response({"ops": 204, "staff": 403}.get(visitor, 401) if at_door else 200)
        for name in ("Authorization", "Cookie", "X-Forwarded-For"):
            self.send_header(f"Got-{name}", self.headers.get(name, ""))
        self.send_header("Served-By", self.server.name)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def behind(name: str) -> Iterator[int]:
    """A program behind the proxy; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Behind)
    server.name = name  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flotilla.example.org")])
    now = datetime.now(UTC)
    ends, number = now + timedelta(days=1), x509.random_serial_number()
    made = x509.CertificateBuilder(name, name, key.public_key(), number, now, ends).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "fullchain.pem").write_bytes(made.public_bytes(pem))
    (folder / "privkey.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def nginx(folder: Path, port: int, web: int, flower: int) -> list[str]:
    """The committed file with other addresses and paths."""
    certificate(folder)
    text = (PROXIES / "nginx.conf").read_text(encoding="utf-8")
    changes = {
        "    listen 80;\n": f"    listen 127.0.0.1:{any_free_port()};\n",
        "    listen [::]:80;\n": "",
        "    listen 443 ssl;\n": f"    listen 127.0.0.1:{port} ssl;\n",
        "    listen [::]:443 ssl;\n": "",
        "/etc/ssl/flotilla/": f"{folder}/",
        "/etc/flotilla/": f"{folder}/",
        "/var/log/nginx/flotilla.log": f"{folder}/access.log",
        "127.0.0.1:8000": f"127.0.0.1:{web}",
        "127.0.0.1:5555": f"127.0.0.1:{flower}",
    }
    for committed, here in changes.items():
        assert committed in text
        text = text.replace(committed, here)
    (folder / "flower.conf").write_text('proxy_set_header Authorization "Basic c2VjcmV0";', encoding="utf-8")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    main = f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}} "
    main += f"http {{ client_body_temp_path {folder}/body; {paths} include {folder}/site.conf; }}"
    (folder / "site.conf").write_text(text, encoding="utf-8")
    (folder / "nginx.conf").write_text(main, encoding="utf-8")
    return ["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]


def caddy(folder: Path, port: int, web: int, flower: int) -> list[str]:
    """The committed file with other addresses, without the certificates that it would ask the world for."""
    text = (PROXIES / "Caddyfile").read_text(encoding="utf-8")
    changes = {
        "{$FLOTILLA_HOSTS} {": f"http://127.0.0.1:{port} {{",
        "web:8000": f"127.0.0.1:{web}",
        "flower:5555": f"127.0.0.1:{flower}",
    }
    for committed, here in changes.items():
        assert committed in text
        text = text.replace(committed, here)
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text, encoding="utf-8")
    return ["caddy", "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"]


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def ask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ask]:
    """``ask(path, cookie=…)`` of a running proxy."""
    make = request.param
    program = shutil.which(make.__name__)
    if program is None:
        pytest.skip(f"{make.__name__} is not on this machine")
    tls = ssl.create_default_context(cafile=None) if make is nginx else None
    if tls is not None:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    port = any_free_port()

    def asked(path: str, *, cookie: str = "", **headers: str) -> http.client.HTTPResponse:
        kind = http.client.HTTPConnection if tls is None else http.client.HTTPSConnection
        connection = kind("127.0.0.1", port, timeout=20, **({} if tls is None else {"context": tls}))
        connection.request("GET", path, headers={"Cookie": cookie, **headers} if cookie else headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    with behind("web") as web, behind("flower") as flower:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FLOTILLA_FLOWER_BASIC": "c2VjcmV0"}
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(
                [program, *make(tmp_path, port, web, flower)[1:]], env=environment, stdout=said, stderr=said
            )
        try:
            ends = monotonic() + DEADLINE_SECONDS
            while True:
                try:
                    asked("/healthz")
                    break
                except OSError:
                    assert process.poll() is None, (tmp_path / "said").read_text()
                    assert monotonic() < ends, (tmp_path / "said").read_text()
            yield asked
        finally:
            process.terminate()
            process.wait(DEADLINE_SECONDS)


def test_flower_is_behind_the_door_and_strangers_are_led_to_the_log_in(ask):
    for path in ("/flower/", "/flower/api/tasks", "/flower/../flower/"):
        stranger, staff, ops = ask(path), ask(path, cookie="staff"), ask(path, cookie="ops")
        assert (stranger.status, staff.status, ops.status) == (302, 403, 200)
        assert stranger.headers["Location"].endswith("/admin/login/?next=/flower/")
        assert ops.headers["Served-By"] == "flower"
        assert ops.headers["Got-Authorization"] == "Basic c2VjcmV0"
        assert ops.headers["Got-Cookie"] == ""  # a session is none of Flower's business


def test_what_is_for_inside_is_not_there_outside(ask):
    assert [ask(path, cookie="ops").status for path in ("/metrics", "/auth/flower")] == [404, 404]


def test_a_forwarded_address_is_the_proxys_own_word(ask):
    answer = ask("/admin/", **{"X-Forwarded-For": "203.0.113.9"})
    assert (answer.headers["Served-By"], answer.headers["Got-X-Forwarded-For"]) == ("web", "127.0.0.1")
