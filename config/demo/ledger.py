"""A small client of the simulator's control API: what the judge saw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import requests


class Judge:
    """The simulator as its own witness. Raises requests' errors when it cannot be reached."""

    def __init__(self, *, url: str, token: str) -> None:
        self._url = f"{url}/control"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"

    def set_faults(self, rules: list[dict[str, Any]]) -> None:
        """Replace every fault by ``rules``."""
        self._call("DELETE", "faults")
        self._call("POST", "faults", json=rules)

    def set_webhook(self, settings: dict[str, Any]) -> None:
        """Let phones tell what they got and reply, to the address in ``settings`` (see the simulator's ``phones``)."""
        self._call("POST", "webhook", json=settings)

    def reset_ledger(self) -> None:
        """Forget every request seen so far."""
        self._call("POST", "reset", json={"keep": ["faults", "bans", "webhook"]})

    def summary(self) -> dict[str, Any]:
        """Counts over everything since the last reset."""
        return dict(self._call("GET", "summary").json())

    def sessions(self) -> dict[str, Any]:
        """Who is logged in, and how often somebody was replaced."""
        return dict(self._call("GET", "sessions").json())

    def stays(self) -> list[dict[str, Any]]:
        """Who held which session from when to when, the oldest first."""
        return list(self._call("GET", "sessions/log").json())

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every request since the last reset, in the order of arrival."""
        since = 0
        while True:
            answer = self._call("GET", "ledger", params={"since": since})
            for line in answer.text.splitlines():
                yield json.loads(line)
            following = int(answer.headers["X-Ledger-Next"])
            if following == since or following >= int(answer.headers["X-Ledger-Total"]):
                return
            since = following

    def _call(self, method: str, path: str, **options: Any) -> requests.Response:
        answer = self._session.request(method, f"{self._url}/{path}", timeout=30, **options)
        answer.raise_for_status()
        return answer
