"""The seam to gateways whose devices are sessions: connections that one process in the whole fleet may hold."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Protocol

from devices.gateways.base import Client, DeviceConfig, Gateway, SessionLost, Temporary, Throttled
from devices.gateways.news import News


class SessionClient(Client, Protocol):
    """One open session. ``send`` is called by one thread at a time; the other methods by any.

    Every call comes back in bounded time, whatever the library underneath does: a call that does not is left on its
    thread, the answer is Unknown (or Temporary where surely nothing left), :meth:`is_healthy` is False from then on,
    and :meth:`SessionHost.wedged` is told.
    """

    def is_healthy(self) -> bool:
        """Whether it is connected and logged in, from what is known here: asks nobody and never blocks.

        False makes the next send open the session anew, so a connection that mends itself within seconds may say True.
        """
        ...

    def drain(self, *, seconds: float) -> bool:
        """Wait until what came while the session was away has been told (:meth:`SessionHost.tell`), for at most so
        long. Called once, before the first send. Returns whether all of it was; the rest is told when it comes."""
        ...

    def close(self) -> None:
        """Disconnect cleanly, within ten seconds, keeping the link to the phone. May be called twice; tells no news."""
        ...


class SessionHost(Protocol):
    """What the process that houses a session offers to its driver; one for each device that is opened."""

    @property
    def store_url(self) -> str:
        """Where sessions are stored: a libpq address of the project's database. A secret: never in logs or reprs."""
        ...

    def tell(self, news: Sequence[News]) -> bool:
        """Hand over what the session heard. From any thread but never from the one that serves other sessions, since it
        waits for the database (at most about ten seconds). False: it could not be written down; do not acknowledge it
        to the other side where that is possible. ``device_id`` is filled in. Telling twice changes nothing.

        A DeviceEvent ``logged_out``, ``banned`` or ``replaced`` takes the device out of service.
        """
        ...

    def risky(self, call: str) -> AbstractContextManager[None]:
        """Around a native call that may abort the process; ``open`` as a whole is inside of one already.

        If the process dies in there, the device is charged with it. Twice, and it is set aside for a person.
        """
        ...

    def wedged(self, call: str) -> None:
        """A native call did not come back and its thread is lost: counts towards replacing this process."""
        ...


class SessionDriver(Gateway, Protocol):
    """A gateway whose devices are sessions: its ``transport`` is ``session``.

    Instances live in every process, web and beat included: import what is heavy or native in :meth:`open`. A driver
    brings no threads of its own to life before the first ``open``, and leaves none after the last ``close``.
    """

    opens_at_once: ClassVar[int]
    """How many sessions one process may be opening at the same moment."""

    def open(
        self, config: DeviceConfig, *, host: SessionHost, seconds: float
    ) -> SessionClient | Temporary | Throttled | SessionLost:
        """Load the stored session that ``config.credentials`` name, connect, and wait until logged in.

        Comes back within ``seconds`` (and a little) and never raises for anything the gateway or the network does:

        * Temporary with a code of :data:`NETWORK_CODES` if nobody was met: not the device's fault when many fail so;
        * Temporary with another code if somebody refused for now;
        * Throttled for a ban that ends by itself;
        * SessionLost (``logged_out``, ``banned``, ``replaced``, ``not_paired``, ``outdated``…) if a person is needed.

        Whatever it opened is closed again unless a client is returned. Nobody else holds the session meanwhile: the
        caller has the lease of the device's shard.
        """
        ...
