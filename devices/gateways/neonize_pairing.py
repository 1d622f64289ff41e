"""Pairs one session, or logs one out, in a process of its own: ``python -m devices.gateways.neonize_pairing FD``.

Reads its order, one JSON object, from standard input, and tells what happens in JSON lines on the descriptor FD.
Whoever started it kills it when its time is up: once the last code has passed, the library's connect() never returns.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from devices import session_store
from devices.gateways.neonize_events import OUTDATED, failure_text, parts_of_jid, text_of_jid
from devices.gateways.neonize_library import CannotLoad, load, proxy_of, text_of
from devices.gateways.whatsmeow_errors import readable

FIRST_CODE_SECONDS, NEXT_CODE_SECONDS = 60, 20
PHONE_CODE_SECONDS = 160
SETTLE_SECONDS = 20.0
"""How long a fresh session may take to connect and to exchange its first keys with the phone."""
LOG_OUT_SECONDS = 50.0


class Child:
    """The one client of this process."""

    def __init__(self, *, order: dict[str, Any], tell: int) -> None:
        self._order = order
        self._tell = tell
        self._lock = threading.Lock()
        self._codes = 0
        self._jid = ""
        self._connected = threading.Event()
        self._settled = threading.Event()
        self._ended = threading.Event()
        self._library = load()
        session_store.prepare(order["store_url"])

    def say(self, status: str, **more: Any) -> None:
        """One line to whoever started this."""
        line = json.dumps({"status": status, **more}) + "\n"
        with self._lock:
            os.write(self._tell, line.encode())

    def fail(self, text: str) -> None:
        """Why it came to nothing; the last line."""
        self.say("failed", text=session_store.without_secrets(text, store_url=self._order["store_url"]))
        self._ended.set()

    def pair(self) -> None:
        """Show codes until a phone takes one."""
        client = self._client(uuid=self._order["name"], new_device=True)
        library = self._library
        client.event.qr(self._on_code)
        events = library.events

        @client.event(events.PairStatusEv)
        def paired(_client: Any, event: Any) -> None:
            if event.HasField("Status") and event.Status == event.SUCCESS:
                self._jid = text_of_jid(event.ID)
                self.say("waiting", text="The phone has taken it; the session is being set up.")
                threading.Thread(target=self._finish, daemon=True).start()
            else:
                self.fail(f"The phone refused: {readable(event.Error) or 'no reason was given'}.")

        self._run(client)
        self._ended.wait()

    def log_out(self) -> None:
        """Connect the stored session once more, and unlink it."""
        fields = parts_of_jid(self._order["jid"])
        if fields is None or not session_store.holds(self._order["store_url"], jid=self._order["jid"]):
            self.say("done")  # what is not stored is linked to nothing that could be reached
            return
        client = self._client(jid=self._library.proto.JID(**fields))
        self._run(client)
        if not self._connected.wait(LOG_OUT_SECONDS) or self._ended.is_set():
            if not self._ended.is_set():
                self.fail("WhatsApp's servers did not answer in time.")
            return
        try:
            client.logout()
        except Exception as problem:  # noqa: BLE001 - the library's errors carry text only
            self.fail(readable(text_of(problem)))
        else:
            self.say("done")

    def _client(self, **which: Any) -> Any:
        library = self._library
        url = session_store.library_url(self._order["store_url"], name=f"flotilla {self._order['name']}")
        props = library.DeviceProps(os="Flotilla", platformType=library.DeviceProps.CHROME)
        client = library.NewClient(url, props=props, **which)
        events = library.events

        @client.event(events.ConnectedEv)
        def connected(_client: Any, _event: Any) -> None:
            self._connected.set()

        @client.event(events.OfflineSyncCompletedEv)
        def settled(_client: Any, _event: Any) -> None:
            self._settled.set()

        @client.event(events.ConnectFailureEv)
        def refused(_client: Any, event: Any) -> None:
            self.fail(failure_text(event))
            self._connected.set()

        @client.event(events.LoggedOutEv)
        def logged_out(_client: Any, _event: Any) -> None:
            # While logging out it says that somebody was faster.
            self.say("done") if self._order["do"] == "log_out" else self.fail("The phone unlinked it again.")
            self._ended.set()
            self._connected.set()

        @client.event(events.ClientOutdatedEv)
        def outdated(_client: Any, _event: Any) -> None:
            self.fail(OUTDATED)
            self._connected.set()

        return client

    def _run(self, client: Any) -> None:
        def inside() -> None:
            try:
                client.connect(proxy_of(self._library, self._order.get("proxy", "")))
            except Exception as problem:  # noqa: BLE001
                text = text_of(problem)
                reached = "failed to dial" not in text
                self.fail(readable(text) if reached else "WhatsApp's servers could not be reached from this host.")
                self._connected.set()

        threading.Thread(target=inside, daemon=True).start()

    def _on_code(self, client: Any, code: bytes) -> None:
        self._codes += 1
        phone = self._order.get("phone", "")
        if not phone:
            seconds = FIRST_CODE_SECONDS if self._codes == 1 else NEXT_CODE_SECONDS
            self.say("qr", qr=code.decode(), seconds=seconds)
        elif self._codes == 1:
            # Not on the library's own thread, which waits for this handler.
            threading.Thread(target=self._ask_phone_code, args=(client, phone), daemon=True).start()

    def _ask_phone_code(self, client: Any, phone: str) -> None:
        try:
            code = client.PairPhone(phone, True)
        except Exception as problem:  # noqa: BLE001
            self.fail(f"No code for this number: {readable(text_of(problem))}.")
        else:
            self.say("code", code=code, seconds=PHONE_CODE_SECONDS)

    def _finish(self) -> None:
        """After the phone has taken it: WhatsApp makes it connect anew, and hands over what has waited."""
        if self._connected.wait(SETTLE_SECONDS):
            self._settled.wait(SETTLE_SECONDS)
        self.say("connected", jid=self._jid)
        self._ended.set()


def main() -> None:
    """Do as told, and leave without waiting for threads that are inside the library."""
    order = json.loads(sys.stdin.read())
    tell = int(sys.argv[1])
    try:
        child = Child(order=order, tell=tell)
        child.pair() if order["do"] == "pair" else child.log_out()
    except (CannotLoad, session_store.StoreAway) as reason:
        os.write(tell, (json.dumps({"status": "failed", "text": str(reason)}) + "\n").encode())
    os._exit(0)


if __name__ == "__main__":
    main()
