"""The wire formats that the simulator speaks, one line each."""

from __future__ import annotations

from messaging.simulator.dialects.base import Dialect
from messaging.simulator.dialects.forgetful import Forgetful
from messaging.simulator.dialects.native import Native

DIALECTS: tuple[Dialect, ...] = (Native(), Forgetful())
