"""How the people behind the phones behave: how often they receive, read and reply, and where that news is posted."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


class BadWebhook(ValueError):  # noqa: N818 - reads as a fact
    """Webhook settings that make no sense, with words that say what to change."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where webhooks go, and how phones behave. Probabilities are per delivered message.

    ``{gateway}`` in ``url`` stands for the dialect's name; ``devices`` names other addresses, by device.
    """

    url: str
    secret: str = field(repr=False)
    devices: Mapping[str, str] = field(default_factory=dict, repr=False)
    delivered: float = 0.0
    read: float = 0.0
    failed: float = 0.0
    delay_seconds: tuple[float, float] = (0.0, 0.0)
    reply: float = 0.0
    reply_delay_seconds: tuple[float, float] = (0.0, 0.0)
    texts: tuple[str, ...] = ()
    repeat: float = 0.0

    def url_for(self, *, gateway: str, device: str) -> str:
        """Where news of this device goes."""
        return self.devices.get(device) or self.url.replace("{gateway}", gateway)


def parse_settings(raw: Any, *, allow_remote: bool) -> Settings:
    """Webhook settings from the control API.

    ``{"url", "secret", "devices": {token: url}, "receipts": {"delivered", "read", "failed", "delay_seconds"},
    "replies": {"probability", "texts", "delay_seconds"}, "repeat"}``: words are probabilities, a delay is seconds or a
    pair of them, ``repeat`` is the probability that an event is posted twice. Raises :class:`BadWebhook`.
    """
    top = _object(raw, "the webhook", {"url", "secret", "devices", "receipts", "replies", "repeat"})
    secret = top.get("secret")
    if not isinstance(secret, str) or not secret:
        raise BadWebhook("secret must be a text, and not empty")
    devices = top.get("devices", {})
    if not isinstance(devices, Mapping):
        raise BadWebhook("devices must be an object of addresses by device")
    receipts = _object(top.get("receipts", {}), "receipts", {"delivered", "read", "failed", "delay_seconds"})
    replies = _object(top.get("replies", {}), "replies", {"probability", "texts", "delay_seconds"})
    texts = replies.get("texts", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise BadWebhook("replies.texts must be a list of texts")
    reply = _probability(replies, "probability", "replies.")
    if reply and not texts:
        raise BadWebhook("replies.texts must not be empty when replies.probability is not 0")
    return Settings(
        url=_address(top.get("url"), allow_remote=allow_remote),
        secret=secret,
        devices={device: _address(url, allow_remote=allow_remote) for device, url in devices.items()},
        delivered=_probability(receipts, "delivered", "receipts."),
        read=_probability(receipts, "read", "receipts."),
        failed=_probability(receipts, "failed", "receipts."),
        delay_seconds=_delay(receipts, "receipts."),
        reply=reply,
        reply_delay_seconds=_delay(replies, "replies."),
        texts=tuple(texts),
        repeat=_probability(top, "repeat", ""),
    )


def is_loopback(host: str) -> bool:
    """Whether a host, as written, can only be this machine. No look-up: a name other than localhost is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(url: Any, *, allow_remote: bool) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadWebhook("url must be an http or https address")
    if not allow_remote and not is_loopback(parts.hostname):
        raise BadWebhook("url must be on this machine (127.0.0.1, ::1, localhost) unless started with --allow-remote")
    return str(url)


def _object(raw: Any, name: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise BadWebhook(f"{name} must be a JSON object")
    if unknown := sorted(set(raw) - known):
        raise BadWebhook(f"{name} does not take {', '.join(unknown)} (it takes {', '.join(sorted(known))})")
    return raw


def _is_number(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _probability(values: Mapping[str, Any], name: str, where: str) -> float:
    value = values.get(name, 0.0)
    if not _is_number(value, 1):
        raise BadWebhook(f"{where}{name} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _delay(values: Mapping[str, Any], where: str) -> tuple[float, float]:
    value = values.get("delay_seconds", 0.0)
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2 or not all(_is_number(each, 86_400) for each in pair) or pair[0] > pair[1]:
        raise BadWebhook(f"{where}delay_seconds must be seconds, or the least and the most of them, not {value!r}")
    return float(pair[0]), float(pair[1])
