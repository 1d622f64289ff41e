"""All gateways, one line each.

A new gateway is a driver module, a line here, and its cases in the conformance suite.
"""

from __future__ import annotations

from devices.gateways.base import Driver
from devices.gateways.evolution import EvolutionDriver
from devices.gateways.generic import GenericDriver
from devices.gateways.gowa import GowaDriver
from devices.gateways.meta import MetaDriver
from devices.gateways.simulator import SimulatorDriver
from devices.gateways.wablas import WablasDriver
from devices.gateways.waha import WahaDriver
from devices.gateways.whacenter import WhacenterDriver
from devices.gateways.wuzapi import WuzapiDriver

_DRIVERS: tuple[Driver, ...] = (
    SimulatorDriver(),
    GowaDriver(),
    WahaDriver(),
    EvolutionDriver(),
    WuzapiDriver(),
    MetaDriver(),
    WablasDriver(),
    WhacenterDriver(),
    GenericDriver(),
)

_BY_KIND: dict[str, Driver] = {driver.kind: driver for driver in _DRIVERS}


class UnknownGateway(LookupError):  # noqa: N818 - reads as a fact
    """No driver of that kind is registered."""


def driver_for(kind: str) -> Driver:
    """The driver of a gateway kind. Raises :class:`UnknownGateway`."""
    try:
        return _BY_KIND[kind]
    except KeyError:
        raise UnknownGateway(f"There is no gateway {kind!r}. Known: {', '.join(sorted(_BY_KIND))}.") from None


def kinds() -> frozenset[str]:
    """All registered kinds."""
    return frozenset(_BY_KIND)


def drivers() -> list[Driver]:
    """All drivers, in the order of registration."""
    return list(_BY_KIND.values())


def choices() -> list[tuple[str, str]]:
    """(kind, label) pairs for forms, in the order of registration."""
    return [(driver.kind, driver.label) for driver in _BY_KIND.values()]


def register(driver: Driver) -> None:
    """Know one more gateway in this process: for programs that bring a driver of their own, as the chaos run does."""
    _BY_KIND[driver.kind] = driver
