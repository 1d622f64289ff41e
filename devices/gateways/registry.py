"""All gateways, one line each.

A new gateway is a driver module, a line here, and its cases in the conformance suite.
"""

from __future__ import annotations

from typing import cast

from devices.gateways.base import Driver, Gateway
from devices.gateways.evolution import EvolutionDriver
from devices.gateways.generic import GenericDriver
from devices.gateways.gowa import GowaDriver
from devices.gateways.meta import MetaDriver
from devices.gateways.neonize import NeonizeDriver
from devices.gateways.session_base import SessionDriver
from devices.gateways.simulator import SimulatorDriver
from devices.gateways.wablas import WablasDriver
from devices.gateways.waha import WahaDriver
from devices.gateways.whacenter import WhacenterDriver
from devices.gateways.wuzapi import WuzapiDriver

_DRIVERS: tuple[Gateway, ...] = (
    SimulatorDriver(),
    NeonizeDriver(),
    GowaDriver(),
    WahaDriver(),
    EvolutionDriver(),
    WuzapiDriver(),
    MetaDriver(),
    WablasDriver(),
    WhacenterDriver(),
    GenericDriver(),
)

_BY_KIND: dict[str, Gateway] = {driver.kind: driver for driver in _DRIVERS}


class UnknownGateway(LookupError):  # noqa: N818 - reads as a fact
    """No driver of that kind is registered."""


def driver_for(kind: str) -> Gateway:
    """The driver of a gateway kind. Raises :class:`UnknownGateway`."""
    try:
        return _BY_KIND[kind]
    except KeyError:
        raise UnknownGateway(f"There is no gateway {kind!r}. Known: {', '.join(sorted(_BY_KIND))}.") from None


def http_driver_for(kind: str) -> Driver:
    """The driver of a gateway that is called. Raises :class:`UnknownGateway`, also for a kind of sessions."""
    driver = driver_for(kind)
    if driver.transport != "http":
        raise UnknownGateway(f"{driver.label} is a session: it is opened, not called.")
    return cast("Driver", driver)


def session_driver_for(kind: str) -> SessionDriver:
    """The driver of a kind of sessions. Raises :class:`UnknownGateway`, also for a gateway that is called."""
    driver = driver_for(kind)
    if driver.transport != "session":
        raise UnknownGateway(f"{driver.label} is called over HTTP: it has no sessions.")
    return cast("SessionDriver", driver)


def session_kinds() -> list[str]:
    """All registered kinds whose devices are sessions, in alphabetical order."""
    return sorted(kind for kind, driver in _BY_KIND.items() if driver.transport == "session")


def kinds() -> frozenset[str]:
    """All registered kinds."""
    return frozenset(_BY_KIND)


def drivers() -> list[Gateway]:
    """All drivers, in the order of registration."""
    return list(_BY_KIND.values())


def choices() -> list[tuple[str, str]]:
    """(kind, label) pairs for forms, in the order of registration."""
    return [(driver.kind, driver.label) for driver in _BY_KIND.values()]


def register(driver: Gateway) -> None:
    """Know one more gateway in this process: for programs that bring a driver of their own, as the chaos run does."""
    _BY_KIND[driver.kind] = driver
