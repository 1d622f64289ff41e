"""Finding people by name and by own fields, and lists that do not count to the end."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from devices.admin_base import BoundedPaginator, OwnedAdmin
from leads import searching, segments
from leads.models import Lead
from leads.rules import parse
from leads.searching import named, words_in
from tests.api_support import V1, caller
from tests.factories import make_leads, make_user


def people(*names: str) -> list[Lead]:
    owner = make_user()
    found = make_leads(len(names), owner=owner)
    for lead, name in zip(found, names, strict=True):
        lead.name = name
    Lead.objects.bulk_update(found, ["name"])
    return found


def names(term: str) -> set[str]:
    return set(named(Lead.objects.all(), term).values_list("name", flat=True))


@pytest.mark.django_db
@pytest.mark.parametrize("many", [searching.MANY, 0], ids=["by index", "down the list"])
def test_words_are_found_by_their_beginnings_in_any_case_and_order(many):
    people("Ada Lovelace", "Nurul Ain binti Tan/Lim", "Sean O'Brien", "Émile Zola", "李小龙", "עלי כהן", "Dr. Adam", "")
    with patch.object(searching, "MANY", many):
        assert names("ad") == {"Ada Lovelace", "Dr. Adam"}
        assert names("LOVE ada") == {"Ada Lovelace"}
        assert names("lim") == names("tan-ain") == {"Nurul Ain binti Tan/Lim"}
        assert names("o'brien") == names("BRIEN") == {"Sean O'Brien"}
        assert names("ÉMI") == {"Émile Zola"}
        assert names("李小") == {"李小龙"}
        assert names("כהן") == {"עלי כהן"}
        assert names("velace") == names("ada zola") == names("--") == names("") == set()


class Names(TestCase):
    """Whatever is typed, PostgreSQL answers, and finds what begins with it."""

    @settings(max_examples=60, deadline=None)
    @given(name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30), cut=st.integers(1, 5))
    def test_any_name_is_found_by_beginnings_of_its_words(self, name, cut):
        Lead.objects.all().delete()
        people(name, "Somebody Else")
        with connection.cursor() as cursor:
            cursor.execute("SELECT lower(%s)", [name])
            words = words_in(cursor.fetchone()[0])
        if words:
            assert name in names(" ".join(word[:cut] for word in words))
        names(name + "' | !:*\\")


@pytest.mark.django_db
def test_own_fields_match_what_reads_the_same_whatever_its_kind():
    owner = make_user()
    values = ["5", 5, 5.0, "5.0", True, "true", "x", None, '"']
    for lead, value in zip(make_leads(len(values), owner=owner), values, strict=True):
        Lead.objects.filter(pk=lead.pk).update(custom={'a"b': value})

    def count(text: str) -> int:
        return segments.count(owner_id=owner.pk, rules=parse({"custom": {'a"b': text}}), now=timezone.now())

    assert [count(text) for text in ("5", "5.0", "true", "x", '"', "null")] == [2, 2, 2, 1, 1, 0]


@pytest.mark.django_db
def test_a_list_says_that_there_are_more_than_it_counts():
    user = make_user()
    make_leads(7, owner=user)
    client = Client()
    client.force_login(user)
    with patch.object(OwnedAdmin, "list_per_page", 3), patch.object(BoundedPaginator, "bound", 5):
        page = client.get("/admin/leads/lead/").content.decode()
    assert "All 5+ selected" in page
    with patch.object(OwnedAdmin, "list_per_page", 3):
        assert "All 7 selected" in client.get("/admin/leads/lead/").content.decode()


@pytest.mark.django_db
def test_the_api_finds_by_name():
    client = caller()
    lead = make_leads(3, owner=client.user)[0]
    Lead.objects.filter(pk=lead.pk).update(name="Grace Hopper")
    answer = client.get(f"{V1}/leads", {"name": "hop"}).json()
    assert [found["id"] for found in answer["results"]] == [lead.pk]
