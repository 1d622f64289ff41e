"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from messaging.dispatch.pool import shared_pool
from tests import emptying

emptying.install()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """The test database, let go of by the dispatch pool before it is dropped."""
    yield
    shared_pool().close()
