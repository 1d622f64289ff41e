"""Which devices are linked to a phone. They all are, until somebody logs them out; then they can be paired again.

Nobody scans anything here: once a picture or a code has been asked for, the pretended phone has scanned or typed it by
the :data:`CHECKS`-th time that somebody asks how the device is.
"""

from __future__ import annotations

from messaging.simulator.dialects.base import Asked

CHECKS = 2
_IDLE = -1


class Links:
    """Devices without a phone, and devices that were made while this simulator ran."""

    def __init__(self) -> None:
        self._cut: dict[str, int] = {}  # how often it was asked about since it began to pair; _IDLE before that
        self._made: set[str] = set()

    def is_cut(self, device: str) -> bool:
        """Whether this device has no phone."""
        return device in self._cut

    def made(self, device: str) -> bool:
        """Whether this device was made here."""
        return device in self._made

    def cut(self, device: str) -> None:
        """Take the phone away."""
        self._cut[device] = _IDLE

    def link(self, device: str) -> None:
        """Give it a phone."""
        self._cut.pop(device, None)

    def cut_off(self) -> list[str]:
        """All devices without a phone."""
        return sorted(self._cut)

    def heed(self, asked: Asked) -> None:
        """Do what a request asks for, as far as the device's state lets it."""
        device = asked.device
        match asked.purpose, asked.state:
            case "create", "unknown" if device:
                self._made.add(device)
                self.cut(device)
            case "log_out", "linked":
                self.cut(device)
            case "pair", "unlinked":
                self._cut[device] = max(self._cut[device], 0)
            case "check", "unlinked" if self._cut[device] != _IDLE:
                self._cut[device] += 1
                if self._cut[device] >= CHECKS:
                    self.link(device)

    def reset(self) -> None:
        """All devices are linked again, and none was made."""
        self._cut.clear()
        self._made.clear()
