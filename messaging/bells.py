"""Names of the bells that session hosts listen to: light, since every process imports it."""

from __future__ import annotations

from typing import Final

SESSION_BELLS: Final = "devices.session"
"""What the bells of session shards begin with. A worker started with ``-Q devices.session`` houses sessions."""


def session_bell(shard: int) -> str:
    """The bell of one shard of the session devices."""
    return f"{SESSION_BELLS}.{shard}"
