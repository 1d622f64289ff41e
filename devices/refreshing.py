"""Why a device could not be connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devices.weather import Weather


class RefreshFailed(Exception):  # noqa: N818 - reads as a fact
    """A device could not be connected. What follows from it, the first that applies:

    ``session_lost``: only a person can mend it (``banned``: and perhaps nobody). ``rest_seconds``: the gateway wants
    the device to rest. ``wait_seconds``: nothing is wrong with the device, ask again then. Else it counts against the
    device, unless there is an incident in the ``weather`` where it was tried.
    """

    def __init__(
        self,
        code: str,
        text: str,
        *,
        session_lost: bool = False,
        banned: bool = False,
        rest_seconds: float = 0.0,
        wait_seconds: float = 0.0,
        weather: Weather | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.session_lost = session_lost
        self.banned = banned
        self.rest_seconds = rest_seconds
        self.wait_seconds = wait_seconds
        self.weather = weather
