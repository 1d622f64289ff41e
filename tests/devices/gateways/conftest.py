"""One simulator for all driver tests; each test uses device tokens of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.simulator_process import Simulator, running_simulator

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    with running_simulator() as running:
        yield running


@pytest.fixture
def new_token() -> Callable[[], str]:
    """Tokens that no other test uses, awkward enough to need quoting in a URL."""
    return lambda: f"tok/en {next(_numbers)}+ä"
