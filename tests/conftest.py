"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from django.core.cache import cache
from redis.exceptions import RedisError

from messaging.dispatch.pool import shared_pool
from tests import emptying

emptying.install()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """The test database, let go of by the dispatch pool before it is dropped."""
    yield
    shared_pool().close()


@pytest.fixture(autouse=True)
def _nobody_has_knocked(request: pytest.FixtureRequest) -> None:
    """The tries to log in that tests before have used up are none of this one's business."""
    if request.node.get_closest_marker("django_db"):
        client = cache._cache.get_client()
        with suppress(RedisError):
            for key in client.scan_iter(match=f"{cache.key_prefix}:*:login:*", count=10_000):
                client.delete(key)
