"""The same gateway, pool and sender as messaging's own tests have."""

from __future__ import annotations

from tests.messaging.conftest import pool, sender, simulator, simulator_process

__all__ = ["pool", "sender", "simulator", "simulator_process"]
