"""Imports into PostgreSQL: counts, merging, consent, what fails, their tasks; and one lead by hand."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.celery import app
from leads import services, tasks
from leads.models import Lead, LeadImport, LeadImportProblem
from leads.phones import PhoneProblem
from tests.factories import make_device, make_user
from tests.leads.importing import PATIENCE_SECONDS, counts, create, held_import, people, run, thread

# -- One import --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_import_counts_and_keeps_what_it_read() -> None:
    lead_import = run(
        'Ali,012-345 6789,"VIP,Gym",customer,WELCOME,hello,Ipoh\n'
        "Bibi,0133456789,,,,,\n"
        ",+60 12 345 6789,Yoga,,WELCOME,,KL\n"
        "Cici,12,,,,,\n"
        "Dodo,0143456789,,maybe,,,\n"
    )
    assert (lead_import.state, counts(lead_import)) == ("finished", (2, 1, 2))
    assert (lead_import.rows_done, lead_import.rows_total, lead_import.region) == (5, 5, "MY")
    assert lead_import.finished_at is not None
    ali, bibi = Lead.objects.order_by("pk")
    assert (ali.phone, ali.name, ali.status, ali.notes) == ("+60123456789", "Ali", "customer", "hello")
    assert (ali.niches, ali.triggers, ali.custom) == (["VIP", "Gym", "Yoga"], ["WELCOME"], {"city": "Ipoh"})
    assert (ali.consent_source, bibi.status, bibi.owner) == ("form", "prospect", lead_import.owner)
    assert ali.consent_at is not None
    short, status = LeadImportProblem.objects.order_by("row_number")
    assert (short.row_number, short.code, short.field) == (5, "phone_too_short", "phone")
    assert (status.row_number, status.code, status.values["target_status"]) == (6, "status_unknown", "maybe")


@pytest.mark.django_db
def test_texts_that_are_special_to_copy_arrive_as_they_are() -> None:
    strange = ["\\N", "\\.", 'a"b\\c', "{x,y}", "tab\tand\\n", "NULL", "'; DROP TABLE leads_lead; --", "😀 %s {}"]
    rows = "".join(
        '"{0}",+6012{1:07d},"{0}",,,"{0}","{0}"\n'.format(text.replace('"', '""'), number)
        for number, text in enumerate(strange)
    )
    assert counts(run(rows)) == (len(strange), 0, 0)
    for text, lead in zip(strange, Lead.objects.order_by("pk"), strict=True):
        assert (lead.name, lead.notes, lead.custom) == (" ".join(text.split()), text, {"city": text})
        assert lead.niches == [" ".join(tag.split()) for tag in text.replace(";", ",").split(",") if tag.strip()]


@pytest.mark.django_db
def test_leads_keep_the_order_of_the_file() -> None:
    run("".join(f"P{n},+6012{n:07d},,,,,\n" for n in (5, 3, 9, 1)))
    assert list(Lead.objects.order_by("pk").values_list("name", flat=True)) == ["P5", "P3", "P9", "P1"]


@pytest.mark.django_db
def test_merging_fills_and_unites_and_takes_nothing_away() -> None:
    owner = make_user()
    device, other = make_device(owner=owner), make_device(owner=owner)
    refused_at = timezone.now() - timedelta(days=3)
    Lead.objects.create(
        owner=owner, phone="+60123456789", name="Ali", status="customer", niches=["A", "B"], triggers=["X"],
        notes="mine", custom={"city": "Ipoh"}, device=device, consent_at=refused_at, consent_source="fair",
    )  # fmt: skip
    Lead.objects.create(owner=owner, phone="+60133456789", opted_out_at=refused_at)
    Lead.objects.create(owner=owner, phone="+60143456789")
    lead_import = run(
        "Other,0123456789,B;C,prospect,Y,theirs,KL\nBibi,0133456789,,,,,\nCici,0143456789,,customer,,,\n",
        owner=owner,
        device=other,
    )
    assert counts(lead_import) == (0, 3, 0)
    known, refused, bare = Lead.objects.order_by("pk")
    assert (known.name, known.status, known.notes, known.device) == ("Ali", "customer", "mine", device)
    assert (known.niches, known.triggers, known.custom) == (["A", "B", "C"], ["X", "Y"], {"city": "Ipoh"})
    assert (known.consent_at, known.consent_source) == (refused_at, "fair")
    assert (refused.name, refused.opted_out_at, refused.consent_at) == ("Bibi", refused_at, None)
    assert (bare.name, bare.status, bare.device, bare.consent_source) == ("Cici", "customer", other, "form")
    assert bare.consent_at is not None


@pytest.mark.django_db
def test_a_row_that_says_nothing_new_is_not_written_again() -> None:
    owner = make_user()
    run(people(3), owner=owner)
    before = list(Lead.objects.order_by("pk").values_list("updated_at", flat=True))
    assert counts(run(people(3), owner=owner)) == (0, 3, 0)
    assert list(Lead.objects.order_by("pk").values_list("updated_at", flat=True)) == before


@pytest.mark.django_db
def test_without_a_consent_source_no_consent_is_noted() -> None:
    run("Ali,0123456789,,,,,\n", consent=" ")
    lead = Lead.objects.get()
    assert (lead.consent_at, lead.consent_source) == (None, "")


@pytest.mark.django_db
def test_owners_do_not_meet() -> None:
    assert counts(run(people(2))) == counts(run(people(2))) == (2, 0, 0)
    assert Lead.objects.count() == 4


_row = st.tuples(
    st.sampled_from(["", "Ali", "Bibi"]),
    st.integers(0, 2),
    st.lists(st.sampled_from("ABC"), max_size=2),
    st.sampled_from(["", "prospect", "customer"]),
    st.sampled_from(["", "n1", "n2"]),
    st.sampled_from(["", "c1", "c2"]),
)


@pytest.mark.django_db
@given(rows=st.lists(_row, min_size=2, max_size=8))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_duplicate_merges_alike_within_a_chunk_and_across_chunks(rows: list[Any]) -> None:
    content = "".join(
        f"{name},+6012000000{number},{';'.join(tags)},{status},{';'.join(tags)},{notes},{city}\n"
        for name, number, tags, status, notes, city in rows
    )
    found = []
    for chunk_rows in (1, 3, 100):
        owner = make_user()
        done = services.run_import(import_id=create(content, owner=owner).pk, chunk_rows=chunk_rows)
        leads = Lead.objects.filter(owner=owner).order_by("phone")
        fields = ("phone", "name", "status", "niches", "triggers", "notes", "custom")
        found.append((counts(done), list(leads.values(*fields))))
    assert found[0] == found[1] == found[2]


# -- Files that fail ---------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_unreadable_file_fails_with_its_reason_and_stays_failed() -> None:
    lead_import = run("", header="name,email\nAli,a@example.com\n")
    assert (lead_import.state, counts(lead_import)) == ("failed", (0, 0, 0))
    assert "No column is called “phone”" in lead_import.error
    assert services.run_import(import_id=lead_import.pk).finished_at == lead_import.finished_at


@pytest.mark.django_db
def test_a_file_that_is_gone_fails_in_words() -> None:
    lead_import = create(people(1))
    Path(lead_import.file.path).unlink()
    assert services.run_import(import_id=lead_import.pk).error == "The uploaded file is gone: upload it again."


@pytest.mark.django_db
def test_what_cannot_be_set_up_is_refused_with_its_field() -> None:
    with pytest.raises(services.ImportRefused) as caught:
        services.create_import(
            owner=make_user(), file=io.BytesIO(b"phone\n"), filename="x.csv", region="Mars", consent_source=""
        )
    assert (caught.value.code, caught.value.field) == ("region_unknown", "region")
    with pytest.raises(services.ImportRefused) as caught:
        create(people(1), device=make_device(owner=make_user()))
    assert (caught.value.code, caught.value.field) == ("device_of_another", "device")
    assert not LeadImport.objects.exists()


@pytest.mark.django_db
def test_file_names_from_elsewhere_stay_inside_the_folder(tmp_path: Path) -> None:
    lead_import = services.create_import(
        owner=make_user(), file=io.BytesIO(b"phone\n"), filename="..\\..\\etc/../" + "x" * 300 + ".csv", region="MY",
        consent_source="",
    )  # fmt: skip
    assert Path(lead_import.file.path).is_relative_to(tmp_path)
    assert (len(lead_import.filename), lead_import.filename[-4:]) == (255, ".csv")


@pytest.mark.django_db
def test_the_summary_groups_reasons_with_their_first_rows() -> None:
    bad = "".join(f"Bad {n},1,,,,,\n" for n in range(5))
    result = services.summary(run(people(2) + bad + "Ali,0143456789,,vip,,,\n"))
    assert (result.accepted, result.merged, result.rejected, result.rows_done) == (2, 0, 6, 8)
    assert [(reason.code, reason.count) for reason in result.reasons] == [("phone_too_short", 5), ("status_unknown", 1)]
    assert [row for row, _ in result.reasons[0].examples] == [4, 5, 6]


# -- Tasks -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _tasks_run_here() -> Iterator[None]:
    app.conf.task_always_eager = app.conf.task_eager_propagates = True
    yield
    app.conf.task_always_eager = app.conf.task_eager_propagates = False


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_tasks_run_here")
def test_the_beat_goes_on_with_what_nobody_works_on() -> None:
    long_ago = timezone.now() - timedelta(minutes=2)
    interrupted, forgotten, brand_new = create(people(3)), create(people(3)), create(people(3))
    LeadImport.objects.filter(pk=interrupted.pk).update(state="running", rows_done=1, rows_total=3)
    LeadImport.objects.filter(pk=forgotten.pk).update(created_at=long_ago)
    tasks.resume_imports()
    states = dict(LeadImport.objects.values_list("pk", "state"))
    assert states == {interrupted.pk: "finished", forgotten.pk: "finished", brand_new.pk: "waiting"}
    interrupted.refresh_from_db()
    assert counts(interrupted) == (2, 0, 0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_tasks_run_here")
def test_the_task_leaves_what_is_taken_and_takes_the_rest() -> None:
    with held_import(people(30)) as lead_import:
        tasks.run_import(import_id=lead_import.pk)
        lead_import.refresh_from_db()
        assert lead_import.state == "running"
    other = create(people(2))
    tasks.run_import(import_id=other.pk)
    other.refresh_from_db()
    assert other.state == "finished"


def test_task_names_are_those_that_beat_and_routes_use() -> None:
    assert {"leads.run_import", "leads.resume_imports"} <= set(app.tasks)


# -- One lead ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_upsert_makes_then_merges() -> None:
    owner = make_user()
    lead, created = services.upsert_lead(owner=owner, phone="012-345 6789", region="MY", niches=["A"], custom={"n": 1})
    assert (created, lead.phone, lead.name, lead.status, lead.consent_at) == (
        True,
        "+60123456789",
        "",
        "prospect",
        None,
    )
    again, created = services.upsert_lead(
        owner=owner, phone="+60123456789", region="MY", name=" Ali ", status="customer", niches=["A", "B"],
        triggers=["T"], custom={"n": 2, "m": 3}, consent_source="shop",
    )  # fmt: skip
    assert (created, again.pk, again.name, again.status) == (False, lead.pk, "Ali", "customer")
    assert (again.niches, again.triggers, again.custom) == (["A", "B"], ["T"], {"n": 1, "m": 3})
    assert again.consent_source == "shop"
    unchanged, created = services.upsert_lead(owner=owner, phone="0123456789", region="MY")
    assert (created, unchanged.updated_at) == (False, again.updated_at)


@pytest.mark.django_db
def test_upsert_refuses_bad_numbers_and_states() -> None:
    with pytest.raises(PhoneProblem):
        services.upsert_lead(owner=make_user(), phone="12", region="MY")
    with pytest.raises(ValueError, match="no status"):
        services.upsert_lead(owner=make_user(), phone="0123456789", region="MY", status="vip")
    assert not Lead.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_same_lead_from_many_threads_is_made_once() -> None:
    owner = make_user()
    start = threading.Barrier(6)
    made: list[bool] = []

    def work() -> None:
        start.wait(PATIENCE_SECONDS)
        made.append(services.upsert_lead(owner=owner, phone="0123456789", region="MY", niches=[str(len(made))])[1])

    with thread(work), thread(work), thread(work), thread(work), thread(work), thread(work):
        pass
    assert sorted(made) == [False] * 5 + [True]
    assert Lead.objects.count() == 1
