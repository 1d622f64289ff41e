"""Receipts during a chaos run: from the simulator's phones to the web application, signed, if it takes them."""

from __future__ import annotations

import secrets
from typing import Any, Final

from django.urls import Resolver404, resolve

PATH: Final = "/hooks/simulator"
SECRETS: Final = "FLOTILLA_WEBHOOK_SECRETS"


def taken_here() -> bool:
    """Whether this installation has an address for the simulator's receipts."""
    try:
        resolve(PATH)
    except Resolver404:
        return False
    return True


def make_secret() -> str:
    """A secret for one run, shared by the simulator and the web application."""
    return secrets.token_urlsafe(24)


def environment(secret: str) -> dict[str, str]:
    """What the web application has to know."""
    return {SECRETS: f"simulator={secret}"}


def settings(*, web_url: str, secret: str) -> dict[str, Any]:
    """What the simulator has to know: most phones tell, soon, some of them twice, and none writes back."""
    return {
        "url": f"{web_url}{PATH}",
        "secret": secret,
        "receipts": {"delivered": 0.8, "read": 0.4, "delay_seconds": [0.05, 1.5]},
        "repeat": 0.2,
    }
