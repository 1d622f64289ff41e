from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.messaging.conftest import simulator, simulator_process  # noqa: F401 - fixtures
from tests.sequences.world import World


@pytest.fixture
def world(simulator, transactional_db) -> Iterator[World]:  # noqa: F811 - the fixture
    """Sequences, dispatch and simulator under one clock that jumps."""
    with World.begun(simulator) as world:
        yield world
