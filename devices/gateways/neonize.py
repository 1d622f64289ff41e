"""WhatsApp sessions through neonize, a binding of whatsmeow.

The library gives no way to choose a message's id, so what may have been sent is never sent again by itself. Everything
native happens elsewhere: :mod:`~devices.gateways.neonize_library` loads it, and
:mod:`~devices.gateways.neonize_session` holds one open session.

What is known of it (0.5.2, seen by running unless said): a client for a session that is not stored aborts the process;
clients are kept in a map by number that is not guarded, so they are opened one at a time; ``connect()`` blocks for as
long as the session lives, and a dial for up to a minute, holding a lock that "is it connected?" wants too.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from devices import session_store
from devices.gateways.base import (
    Accepted,
    Carries,
    ContentType,
    CredentialField,
    DeviceConfig,
    IdSemantics,
    Outcome,
    Outgoing,
    PairingWay,
    Rejected,
    SessionLost,
    Temporary,
    Throttled,
    Transport,
    Unknown,
)
from devices.gateways.neonize_content import Unsendable, message_of
from devices.gateways.neonize_events import USERS, parts_of_jid
from devices.gateways.neonize_library import CannotLoad, Late, load, text_of
from devices.gateways.neonize_session import Session
from devices.gateways.news import Hook, Malformed, News, Receipt
from devices.gateways.session_base import SessionHost
from devices.gateways.whatsmeow_errors import outcome_of, readable, upload_outcome_of

JID = "jid"
"""Name of the credential that pairing stores: the session's whole identity, ``user:device@server``."""
PROXY = "proxy"

SEND_SECONDS = 80.0
"""Upload and send together. The library itself waits 75 s for the server's answer and then says so: giving up before it
does would lose a thread, and an answer."""
LOG_OUT_SECONDS = 30.0

_opening = threading.Lock()


class NeonizeClient:
    """One open session, as the sender sees it."""

    def __init__(self, *, session: Session, library: Any) -> None:
        self._session = session
        self._library = library
        self._one_at_a_time = threading.Lock()

    def send(self, outgoing: Outgoing) -> Outcome:
        """Upload what is attached, then send: once, and never a second one beside it."""
        ends = time.monotonic() + SEND_SECONDS
        state = self._session.state()
        if not isinstance(state, Accepted):
            return state
        if not self._one_at_a_time.acquire(blocking=False):
            return Temporary("busy", "Not sent: this session is sending something else.")
        try:
            return self._send(outgoing, ends)
        finally:
            self._one_at_a_time.release()

    def check(self) -> Accepted | Temporary | SessionLost:
        """From what the session told: nobody is asked."""
        state = self._session.state()
        return Temporary(state.code, state.text) if isinstance(state, Throttled) else state

    def is_healthy(self) -> bool:
        """Whether it is connected and logged in; never blocks."""
        return self._session.is_healthy()

    def drain(self, *, seconds: float) -> bool:
        """Wait for what came while the session was away."""
        return self._session.drain(seconds=seconds)

    def log_out(self) -> Accepted | Temporary | SessionLost:
        """Unlink the device from its phone; the stored session is deleted by that. The session is of no more use."""
        try:
            with self._session.risky("log_out"):
                self._session.call("log_out", self._session.client.logout, seconds=LOG_OUT_SECONDS)
        except Late:
            return Temporary("timeout", "WhatsApp did not confirm the log-out: look at the phone's linked devices.")
        except Exception as problem:  # noqa: BLE001 - the library's errors have no common base worth naming
            return Temporary("log_out", f"Not logged out: {readable(text_of(problem))}.")
        return Accepted()

    def close(self) -> None:
        """Disconnect; the link to the phone stays."""
        self._session.close()

    def _send(self, outgoing: Outgoing, ends: float) -> Outcome:
        session, library = self._session, self._library
        try:
            message = message_of(
                outgoing,
                library=library,
                upload=lambda data, kind: session.call(
                    "upload", lambda: session.client.upload(data, kind), seconds=ends - time.monotonic()
                ),
            )
        except Unsendable as reason:
            return Rejected(reason.code, str(reason))
        except Late:
            return Temporary("timeout", "Not sent: the upload of the attachment took too long.")
        except OSError:
            return Temporary("no_media", "Not sent: the attachment could not be read.")
        except Exception as problem:  # noqa: BLE001
            return upload_outcome_of(text_of(problem))
        to = library.proto.JID(**_recipient(outgoing.phone))

        def late(response: Any) -> None:
            # The outcome was unknown; this settles it.
            if response is not None and response.ID:
                session.tell(_late_receipt(outgoing, response.ID))

        try:
            response = session.call(
                "send", lambda: session.client.send_message(to, message), seconds=ends - time.monotonic(), late=late
            )
        except Late:
            return Unknown("timeout", "The message went to the library, which did not come back in time.")
        except Exception as problem:  # noqa: BLE001
            return outcome_of(text_of(problem))
        return Accepted(external_id=response.ID or None)


class NeonizeDriver:
    """WhatsApp sessions that this installation holds itself."""

    kind: ClassVar[str] = "whatsapp"
    label: ClassVar[str] = "WhatsApp (session)"
    transport: ClassVar[Transport] = "session"
    id_semantics: ClassVar[IdSemantics] = "none"
    id_proof: ClassVar[str] = "The library's send_message() takes no id; it chooses one and tells it with the answer."
    carries: ClassVar[Mapping[ContentType, Carries]] = {
        "text": Carries(),
        "image": Carries(media="bytes"),
        "document": Carries(media="bytes"),
        "video": Carries(media="bytes"),
        "audio": Carries(max_text=0, media="bytes"),
    }
    window_hours: ClassVar[int | None] = None
    pairing: ClassVar[frozenset[PairingWay]] = frozenset({"qr", "code"})
    signs_webhooks: ClassVar[bool] = False
    receipts: ClassVar[bool] = True
    replies: ClassVar[bool] = True
    rate: ClassVar[str] = "none published; one message at a time"
    default_base_url: ClassVar[str] = ""
    credential_fields: ClassVar[tuple[CredentialField, ...]] = (
        CredentialField(
            name=PROXY,
            label="Proxy",
            help_text="Empty for none, else http://, https:// or socks5://, with user and password if it wants them.",
            required=False,
        ),
    )
    opens_at_once: ClassVar[int] = 1

    def open(
        self, config: DeviceConfig, *, host: SessionHost, seconds: float
    ) -> NeonizeClient | Temporary | Throttled | SessionLost:
        """Connect the stored session of ``config.credentials["jid"]``, one in this process at a time."""
        ends = time.monotonic() + seconds
        jid = parts_of_jid(config.credentials.get(JID, ""))
        if jid is None:
            return SessionLost("not_paired", "It is not linked to a phone.")
        proxy = config.credentials.get(PROXY, "")
        if proxy and not proxy.startswith(("http://", "https://", "socks5://")):
            return SessionLost("bad_proxy", "The proxy must begin with http://, https:// or socks5://.")
        if not _opening.acquire(timeout=max(0.0, seconds)):
            return Temporary("not_started", "Other sessions of this host were being opened for too long.")
        try:
            return self._open(config, host=host, jid=jid, proxy=proxy, ends=ends)
        finally:
            _opening.release()

    def webhook(self, hook: Hook) -> tuple[News, ...]:  # noqa: ARG002 - the seam's signature
        """A session tells its news itself."""
        raise Malformed("no_webhooks", "WhatsApp sessions have no webhooks.")

    def _open(
        self, config: DeviceConfig, *, host: SessionHost, jid: dict[str, Any], proxy: str, ends: float
    ) -> NeonizeClient | Temporary | Throttled | SessionLost:
        try:
            library = load()
            session_store.prepare(host.store_url)
            stored = session_store.holds(host.store_url, jid=config.credentials[JID])
        except CannotLoad as reason:
            return Temporary("host", str(reason))
        except session_store.StoreAway as reason:
            return Temporary("not_started", str(reason))
        if not stored:  # the library would abort the process
            return SessionLost("not_paired", "The stored session is gone.")
        if Session.is_dialling(jid["User"]):
            return Temporary("timeout", "The last attempt to connect has not ended yet.")
        session = Session(
            library=library,
            store_url=host.store_url,
            name=f"flotilla wa {config.device_id} {uuid.uuid4().hex[:8]}",
            device_id=config.device_id,
            host=host,
            jid=jid,
            proxy=proxy,
        )
        verdict = session.open(seconds=max(0.0, ends - time.monotonic()))
        return verdict if verdict is not None else NeonizeClient(session=session, library=library)


def _recipient(phone: str) -> dict[str, Any]:
    """A person's number as the fields of the library's JID."""
    return {
        "User": phone.lstrip("+"),
        "RawAgent": 0,
        "Device": 0,
        "Integrator": 0,
        "Server": USERS,
        "IsEmpty": False,
    }


def _late_receipt(outgoing: Outgoing, external_id: str) -> Receipt:
    return Receipt(
        event_id=f"sent:{external_id}",
        status="sent",
        at=datetime.now(UTC),
        reference=outgoing.reference,
        external_id=external_id,
    )
