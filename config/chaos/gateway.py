"""The driver of the forgetful gateway: like the simulator's, but it drops no repeat.

Only the programs of a chaos run know it (:func:`known_here`); half of the fleet sends through it.
"""

from __future__ import annotations

from typing import ClassVar

from devices.gateways import registry
from devices.gateways.base import DeviceConfig, IdSemantics
from devices.gateways.simulator import SimulatorClient, SimulatorDriver

FORGETFUL = "forgetful"


class ForgetfulClient(SimulatorClient):
    """A device at the simulator's forgetful addresses."""

    path: ClassVar[str] = "/forgetful/v1/devices"


class ForgetfulDriver(SimulatorDriver):
    """A gateway that delivers every repeat."""

    kind: ClassVar[str] = FORGETFUL
    label: ClassVar[str] = "Simulator without memory"
    id_semantics: ClassVar[IdSemantics] = "none"
    id_proof: ClassVar[str] = ""

    def connect(self, config: DeviceConfig) -> ForgetfulClient:
        """A client for this device. Opens nothing."""
        return ForgetfulClient(config)


def known_here() -> None:
    """Make the forgetful gateway known to this process."""
    registry.register(ForgetfulDriver())
