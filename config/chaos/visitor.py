"""Somebody who sends single messages through the API, and asks again with the same key until there is an answer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import requests
from django.db import connection

from config.chaos.away import Away, ask

AGAIN_SECONDS: Final = 0.3
ANSWER_SECONDS: Final = (2.0, 15.0)
"""Deadlines for the connection and for the answer."""
MOVED: Final = "device_not_connected"
NOT_NOW: Final = frozenset({"idempotency_key_in_progress", MOVED})
REFUSES: Final = "opted_out"


class Visitor(threading.Thread):
    """Carries out orders one after the other. ``choose`` gives a lead's and a device's id for a number."""

    def __init__(self, *, url: str, token: str, seed: int, text: str, choose: Callable[[int], tuple[int, int]]) -> None:
        super().__init__(name="visitor", daemon=True)
        self._url = f"{url}/api/v1/messages"
        self._token = token
        self._seed = seed
        self._text = text
        self._choose = choose
        self._orders: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.accepted: list[int] = []
        """Messages that the API said it had taken."""
        self.problems: list[str] = []
        """Answers that make no sense."""
        self.repeats = 0

    def single(self, number: int) -> None:
        """Send message ``number``."""
        self._orders.put(number)

    def finish(self) -> None:
        """The thread ends after the last order."""
        self._orders.put(None)

    def run(self) -> None:
        """Take orders until :meth:`finish`."""
        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Token {self._token}"
        try:
            while (number := self._orders.get()) is not None:
                self._insist(session, number)
        finally:
            session.close()
            connection.close()

    def _insist(self, session: requests.Session, number: int) -> None:
        """Ask until there is an answer. The same key means the same words, so these change only when refused."""
        body: dict[str, Any] | None = None
        while True:
            try:
                body = body or ask(lambda: self._body(number))
                answer = session.post(
                    self._url,
                    json=body,
                    headers={"Idempotency-Key": f"chaos-{self._seed}-{number}"},
                    timeout=ANSWER_SECONDS,
                )
                told: Any = answer.json()
            except (Away, requests.RequestException):  # a body that is no JSON is one of the latter
                self._pause()
                continue
            if answer.status_code == 202:
                self.accepted.append(told["id"])
                return
            codes = {told.get("code"), *(error["code"] for error in told.get("errors", ()))}
            if answer.status_code < 500 and answer.status_code != 429 and not codes & NOT_NOW:
                if REFUSES not in codes:
                    self.problems.append(f"the API answered {answer.status_code}: {told}"[:300])
                return
            if MOVED in codes:
                body = None
            self._pause()

    def _body(self, number: int) -> dict[str, Any]:
        lead, device = self._choose(number)
        return {"lead": lead, "device": device, "text": self._text}

    def _pause(self) -> None:
        self.repeats += 1
        time.sleep(AGAIN_SECONDS)
