"""The wire formats that the simulator speaks, one line each."""

from __future__ import annotations

from messaging.simulator.dialects.base import Dialect
from messaging.simulator.dialects.evolution import Evolution
from messaging.simulator.dialects.forgetful import Forgetful
from messaging.simulator.dialects.generic import Generic
from messaging.simulator.dialects.gowa import Gowa
from messaging.simulator.dialects.meta import Meta
from messaging.simulator.dialects.native import Native
from messaging.simulator.dialects.wablas import Wablas
from messaging.simulator.dialects.waha import Waha
from messaging.simulator.dialects.whacenter import Whacenter
from messaging.simulator.dialects.wuzapi import Wuzapi

DIALECTS: tuple[Dialect, ...] = (
    Native(),
    Forgetful(),
    Gowa(),
    Waha(),
    Evolution(),
    Wuzapi(),
    Meta(),
    Wablas(),
    Whacenter(),
    Generic(),
)
