"""What clients of JSON gateways share: one call for each send, doubt turned into the right outcome, and pairing.

A subclass says how its gateway words a message, an answer, and how a device stands; it never calls the network but
through :meth:`JsonClient._call` and :meth:`JsonClient._ask`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from devices.gateways import http, payloads
from devices.gateways.base import (
    Accepted,
    Carries,
    ContentType,
    Deadlines,
    DeviceConfig,
    Outcome,
    Outgoing,
    Pairing,
    Rejected,
    SessionLost,
    Temporary,
    Unknown,
)

Standing = Literal["linked", "unlinked", "absent", "starting"]
"""How a device stands with its gateway: ready; without a phone; not known there; on its way."""

QR_SECONDS = 20.0
"""How long WhatsApp takes one picture, where the gateway does not say."""

CODE_SECONDS = 150.0
"""How long WhatsApp takes one code."""

_LONG_NUMBER = re.compile(r"[0-9]{7,}")


class JsonClient:
    """One device. Holds no connection of its own, so any number of threads may use it.

    ``slow`` are the deadlines where the configuration names none of its own: some gateways answer late and truly.
    """

    shows_while_starting: ClassVar[bool] = False

    def __init__(
        self,
        config: DeviceConfig,
        *,
        label: str,
        carries: Mapping[ContentType, Carries],
        default_base_url: str,
        headers: Mapping[str, str],
        slow: Deadlines | None = None,
    ) -> None:
        self._config = config
        self._label = label
        self._carries = carries
        self._base = (config.base_url or default_base_url).rstrip("/")
        self._headers = dict(headers)
        self._deadlines = slow if slow is not None and config.deadlines == Deadlines() else config.deadlines
        self._shown: tuple[str | None, Pairing] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(device_id={self._config.device_id}, host={http.host_of(self._base)!r})"

    # -- what a gateway says differently ---------------------------------------------------------------------------

    def _worded(self, outgoing: Outgoing) -> tuple[str, dict[str, Any] | http.Content]:
        """Path and body of the request that sends this message. Raises OSError if its file cannot be read."""
        raise NotImplementedError

    def _outcome(self, answer: http.Answer, outgoing: Outgoing) -> Outcome:
        """What an answer to a send means. Raises BrokenAnswer where it makes no sense."""
        raise NotImplementedError

    def _standing(self) -> Standing | Temporary | SessionLost:
        """How the device stands. Raises BrokenAnswer where the answer makes no sense."""
        raise NotImplementedError

    def _show(self, phone: str | None) -> Pairing:
        """Ask for a picture to scan, or a code to type. Raises BrokenAnswer where the answer makes no sense."""
        raise NotImplementedError

    def _create(self) -> Pairing:
        """Make a device that the gateway does not know."""
        raise NotImplementedError

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(self, outgoing: Outgoing) -> Outcome:
        """Send one message, by one request at most."""
        if refused := payloads.refusal(outgoing, carries=self._carries, label=self._label):
            return refused
        try:
            path, body = self._worded(outgoing)
        except OSError as problem:
            return payloads.unreadable(problem)
        answer = self._call("POST", path, body)
        if not isinstance(answer, http.Answer):
            return answer
        try:
            return self._outcome(answer, outgoing)
        except http.BrokenAnswer:
            return Unknown(
                "broken_answer", f"The gateway answered HTTP {answer.status} and a body that makes no sense."
            )

    def close(self) -> None:
        """Nothing is held: connections belong to the process."""

    # -- the device ------------------------------------------------------------------------------------------------

    def check(self) -> Accepted | Temporary | SessionLost:
        """Ask how the device stands. Nothing is sent by asking, so every doubt is temporary."""
        match self._stands():
            case "linked":
                return Accepted()
            case "starting":
                return Temporary("starting", f"{self._label} is connecting this device.")
            case "unlinked":
                return self._logged_out()
            case "absent":
                return SessionLost("no_such_device", f"{self._label} knows no such device: pair it to make it.")
            case failure:
                return failure

    def pair(self, *, phone: str | None = None) -> Pairing:
        """Begin to link the device to its phone, or ask how far it is. A picture or code is shown until it is old."""
        standing = self._stands()
        if standing == "linked":
            self._shown = None
            return Pairing("connected", text="The device is linked to its phone.")
        if isinstance(standing, Temporary | SessionLost):
            return Pairing("failed", text=standing.text)
        if standing == "starting" and not self.shows_while_starting:
            return Pairing("waiting", text=f"{self._label} is starting this device.")
        shown = self._shown
        if shown and shown[0] == phone and shown[1].expires_at and shown[1].expires_at > datetime.now(UTC):
            return shown[1]
        try:
            pairing = self._create() if standing == "absent" else self._show(phone)
        except http.BrokenAnswer:
            return Pairing("failed", text=f"{self._label} gave an answer that makes no sense.")
        self._shown = (phone, pairing) if pairing.status in ("qr", "code") else None
        return pairing

    def _stands(self) -> Standing | Temporary | SessionLost:
        try:
            return self._standing()
        except http.BrokenAnswer:
            return Temporary("broken_answer", f"{self._label} did not say how this device is.")

    def _logged_out(self) -> SessionLost:
        return SessionLost("logged_out", "The device is not linked to a phone: pair it again.")

    # -- the network -----------------------------------------------------------------------------------------------

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | http.Content | None = None
    ) -> http.Answer | http.Failure:
        given: dict[str, Any] = {"content": body} if isinstance(body, http.Content) else {"json": body}
        return http.call(
            method=method, url=f"{self._base}{path}", deadlines=self._deadlines, headers=self._headers, **given
        )

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> http.Answer | Temporary | SessionLost:
        """A question or an order: it may be repeated, so what is not known to have happened is temporary."""
        answer = self._call(method, path, body)
        if isinstance(answer, Unknown):
            return Temporary(answer.code, f"{self._label} did not answer.")
        if isinstance(answer, http.Answer) and answer.status in {401, 403}:
            return self._key_refused()
        return answer

    def _key_refused(self) -> SessionLost:
        return SessionLost("key_refused", f"{self._label} refuses the credentials of this device.")

    def _order(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Accepted | Temporary | SessionLost:
        """Have something done about the device; what was shown for pairing is old after that."""
        self._shown = None
        answer = self._ask(method, path, body)
        if not isinstance(answer, http.Answer):
            return answer
        if 200 <= answer.status < 300:
            return Accepted()
        if answer.status == 404:
            return SessionLost("no_such_device", f"{self._label} knows no such device.")
        return Temporary(f"http_{answer.status}", f"{self._label} answered HTTP {answer.status}.")

    # -- words -----------------------------------------------------------------------------------------------------

    def _quoted(self, words: object, *, status: int) -> str:
        """A gateway's own words, fit to be stored and shown: our secrets and people's numbers are blanked out."""
        cleaned = http.clean(words if isinstance(words, str) else "", credentials=self._config.credentials)
        return _LONG_NUMBER.sub(lambda found: f"…{found[0][-3:]}", cleaned) or f"{self._label} answered HTTP {status}."

    def _rejected(self, code: object, words: object, *, status: int) -> Rejected:
        named = http.clean(code if isinstance(code, str) else "", credentials=self._config.credentials)[:60]
        return Rejected(named.lower() or f"http_{status}", self._quoted(words, status=status))


def qr(text: object) -> Pairing:
    """A picture to scan, from the text behind it or from a PNG as ``data:`` URI; waiting if there is none yet."""
    if not isinstance(text, str) or not text:
        return Pairing("waiting", text="The picture is on its way.")
    words, until = "Scan this picture with the phone.", datetime.now(UTC) + timedelta(seconds=QR_SECONDS)
    if not text.startswith("data:image/png"):
        return Pairing("qr", qr=text, expires_at=until, text=words)
    try:
        png = base64.b64decode(text.partition(",")[2], validate=True)
    except (ValueError, binascii.Error):
        raise http.BrokenAnswer("the picture is not base64") from None
    return Pairing("qr", qr_png=png, expires_at=until, text=words)


def code(text: object) -> Pairing:
    """A code to type on the phone. Raises BrokenAnswer if there is none."""
    if not isinstance(text, str) or not text:
        raise http.BrokenAnswer("there is no code")
    until = datetime.now(UTC) + timedelta(seconds=CODE_SECONDS)
    return Pairing("code", code=text, expires_at=until, text="Type this code on the phone.")


def path_of(url: object) -> str:
    """The path of an address that a gateway gave: it is asked for where the gateway is, whatever host it names."""
    try:
        path = urlsplit(url).path if isinstance(url, str) else ""
    except ValueError:
        path = ""
    if not path.startswith("/"):
        raise http.BrokenAnswer("there is no address")
    return path


def failed(problem: Temporary | SessionLost) -> Pairing:
    """A pairing that came to nothing."""
    return Pairing("failed", text=problem.text)
