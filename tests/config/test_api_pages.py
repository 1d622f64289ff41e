from __future__ import annotations

import pytest

from devices.models import Pool
from tests.api_support import V1, caller, fields_of, problem

pytestmark = pytest.mark.django_db


def make_pools(number, *, owner):
    return Pool.objects.bulk_create(Pool(owner=owner, name=f"pool {n}") for n in range(number))


def test_walking_the_pages_sees_each_row_once_whatever_arrives_meanwhile():
    client = caller()
    rows = make_pools(25, owner=client.user)
    seen, address = [], f"{V1}/pools?page_size=10"
    while address:
        page = client.get(address).json()
        seen += [row["id"] for row in page["results"]]
        address = page["next"]
        Pool.objects.create(owner=client.user, name=f"late {len(seen)}")
    assert seen == [row.pk for row in reversed(rows)]


def test_going_back_shows_what_was_there():
    client = caller()
    make_pools(12, owner=client.user)
    first = client.get(f"{V1}/pools?page_size=5").json()
    second = client.get(first["next"]).json()
    assert client.get(second["previous"]).json()["results"] == first["results"]


def test_page_sizes_are_bounded():
    client = caller()
    make_pools(210, owner=client.user)
    for size, expected in (("5", 5), ("1000000", 200), ("0", 50), ("-1", 50), ("many", 50), ("", 50)):
        assert len(client.get(f"{V1}/pools?page_size={size}").json()["results"]) == expected, size


@pytest.mark.parametrize("cursor", ["zzz", "cD1hYmM=", "cj0xJnA9LTE=", "bz0tMQ=="])
def test_a_made_up_cursor_is_a_bad_value(cursor):
    client = caller()
    make_pools(3, owner=client.user)
    assert "cursor" in fields_of(problem(client.get(f"{V1}/pools?cursor={cursor}"), 400, "invalid"))


def test_a_later_page_costs_what_the_first_does(django_assert_max_num_queries):
    client = caller()
    make_pools(60, owner=client.user)
    address = f"{V1}/pools?page_size=20"
    while address:
        with django_assert_max_num_queries(6) as seen:
            address = client.get(address).json()["next"]
        assert not any("OFFSET" in query["sql"] or "COUNT(" in query["sql"] for query in seen.captured_queries)
