"""Imports into PostgreSQL: counts, merging, consent, one worker per import, and going on after a kill."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.contrib.auth.models import User
from django.db import connection, connections
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.celery import app
from leads import services, storing, tasks
from leads.models import Lead, LeadImport, LeadImportProblem
from leads.phones import PhoneProblem
from tests.factories import make_device, make_user

HEADER = "name,phone,niche,target_status,trigger,notes,city\n"
PATIENCE_SECONDS = 30


@pytest.fixture(autouse=True)
def _media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


def create(
    content: str, *, owner: User | None = None, consent: str = "form", header: str = HEADER, **fields: Any
) -> LeadImport:
    return services.create_import(
        owner=owner or make_user(),
        file=io.BytesIO((header + content).encode()),
        filename="people.csv",
        region="my",
        consent_source=consent,
        **fields,
    )


def run(content: str, **fields: Any) -> LeadImport:
    return services.run_import(import_id=create(content, **fields).pk)


def people(number: int) -> str:
    return "".join(f"Person {n},+6012{n:07d},N{n % 3},,T,,\n" for n in range(number))


def counts(lead_import: LeadImport) -> tuple[int, int, int]:
    return lead_import.accepted, lead_import.merged, lead_import.rejected


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


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


# -- More than one at work ---------------------------------------------------------------------------------------------


@contextmanager
def thread(work: Callable[[], None]) -> Iterator[threading.Thread]:
    """``work`` in a thread with a database connection of its own, joined at the end."""

    def main() -> None:
        try:
            work()
        finally:
            connections.close_all()

    worker = threading.Thread(target=main)
    worker.start()
    try:
        yield worker
    finally:
        worker.join(PATIENCE_SECONDS)
        assert not worker.is_alive()


@contextmanager
def held_import(content: str, **fields: Any) -> Iterator[LeadImport]:
    """An import that another thread works on and that stands still after its first chunk until the block ends."""
    lead_import = create(content, **fields)
    stopped, go_on = threading.Event(), threading.Event()

    def hold(_: LeadImport) -> None:
        stopped.set()
        assert go_on.wait(PATIENCE_SECONDS)

    def work() -> None:
        services.run_import(import_id=lead_import.pk, chunk_rows=10, on_progress=hold)

    with thread(work):
        try:
            assert stopped.wait(PATIENCE_SECONDS)
            yield lead_import
        finally:
            go_on.set()


@pytest.mark.django_db(transaction=True)
def test_a_second_worker_on_the_same_import_leaves_at_once() -> None:
    with held_import(people(50)) as lead_import:
        assert storing.worked_on() == {lead_import.pk}
        with pytest.raises(services.ImportBusy):
            services.run_import(import_id=lead_import.pk)
    lead_import.refresh_from_db()
    assert (lead_import.state, counts(lead_import)) == ("finished", (50, 0, 0))
    assert storing.worked_on() == set()


@pytest.mark.django_db(transaction=True)
def test_only_so_many_imports_run_at_once() -> None:
    waiting = create(people(5))
    with held_import(people(50)), held_import(people(50)):
        services.run_import(import_id=create(people(1)).pk)  # nobody limits a person at the terminal
        with storing.working_on(import_id=10**6, at_once=1), pytest.raises(services.ImportBusy, match="limit"):
            with_limit(waiting)
    assert with_limit(waiting).state == "finished"


def with_limit(lead_import: LeadImport) -> LeadImport:
    """Run with a limit of one, from a database session of its own: a session's own locks do not stop it."""
    results: list[Any] = []

    def work() -> None:
        try:
            results.append(services.run_import(import_id=lead_import.pk, at_once=1))
        except services.ImportBusy as busy:
            results.append(busy)

    with thread(work):
        pass
    if isinstance(results[0], services.ImportBusy):
        raise results[0]
    return results[0]


@pytest.mark.django_db(transaction=True)
def test_many_workers_at_the_same_moment_do_the_work_once() -> None:
    lead_import = create(people(300))
    start = threading.Barrier(4)
    left: list[str] = []

    def work() -> None:
        start.wait(PATIENCE_SECONDS)
        try:
            services.run_import(import_id=lead_import.pk, chunk_rows=7)
        except services.ImportBusy:
            left.append("busy")

    with thread(work), thread(work), thread(work), thread(work):
        pass
    lead_import.refresh_from_db()
    assert (lead_import.state, counts(lead_import), lead_import.rows_done) == ("finished", (300, 0, 0), 300)
    assert len(left) <= 3
    assert Lead.objects.count() == 300


@pytest.mark.django_db(transaction=True)
def test_who_has_lost_the_import_stops_at_the_next_chunk() -> None:
    """The lock belongs to a database session; when that is cut, the cursor still lets only one go on."""
    lead_import = create(people(100))

    def interrupt(_: LeadImport) -> None:
        raise KeyboardInterrupt

    def take_over() -> None:
        with suppress(KeyboardInterrupt):
            services.run_import(import_id=lead_import.pk, chunk_rows=30, on_progress=interrupt)

    def lose(_: LeadImport) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock_all()")
        with thread(take_over):
            pass

    with pytest.raises(services.ImportBusy):
        services.run_import(import_id=lead_import.pk, chunk_rows=10, on_progress=lose)
    lead_import.refresh_from_db()
    assert (lead_import.state, lead_import.rows_done, counts(lead_import)) == ("running", 40, (40, 0, 0))
    done = services.run_import(import_id=lead_import.pk)
    assert (done.state, counts(done)) == ("finished", (100, 0, 0))


@pytest.mark.django_db(transaction=True)
def test_two_files_of_one_owner_with_the_same_people_in_opposite_order() -> None:
    owner = make_user()
    lines = people(4000).splitlines(keepends=True)
    first, second = create("".join(lines), owner=owner), create("".join(reversed(lines)), owner=owner)
    start = threading.Barrier(2)

    def work(lead_import: LeadImport) -> Callable[[], None]:
        def main() -> None:
            start.wait(PATIENCE_SECONDS)
            services.run_import(import_id=lead_import.pk)

        return main

    with thread(work(first)), thread(work(second)):
        pass
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == ("finished", "finished")
    assert first.accepted + second.accepted == first.merged + second.merged == 4000


# -- Killed ------------------------------------------------------------------------------------------------------------

_CHILD = """
import sys, django
django.setup()
from leads import services
def report(now):
    print(now.rows_done, flush=True)
    if {stop_between}:
        sys.stdin.read()
services.run_import(import_id={import_id}, chunk_rows=100, on_progress=report)
"""


@contextmanager
def child(*, import_id: int, stop_between: bool, media: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs the import on this test's database; killed at the end with SIGKILL."""
    url, question, query = os.environ["DATABASE_URL"].partition("?")
    database = connection.settings_dict["NAME"]
    environment = {
        **os.environ,
        "DATABASE_URL": f"{url.rpartition('/')[0]}/{database}{question}{query}",
        "FLOTILLA_MEDIA_ROOT": str(media),
        "PYTHONPATH": os.pathsep.join([str(configured.BASE_DIR), os.environ.get("PYTHONPATH", "")]),
    }
    code = _CHILD.format(import_id=import_id, stop_between=stop_between)
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.django_db(transaction=True)
def test_killed_between_chunks_it_goes_on_with_the_next_row(tmp_path: Path) -> None:
    lead_import = create(people(350) + "Bad,1,,,,,\n" + people(10))
    with child(import_id=lead_import.pk, stop_between=True, media=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "100\n"
        assert services.idle_imports(now=timezone.now()) == []
    wait_until(lambda: storing.worked_on() == set())
    lead_import.refresh_from_db()
    assert (lead_import.state, lead_import.rows_done, counts(lead_import)) == ("running", 100, (100, 0, 0))
    assert services.idle_imports(now=timezone.now()) == [lead_import.pk]
    seen: list[int] = []
    done = services.run_import(
        import_id=lead_import.pk, chunk_rows=100, on_progress=lambda now: seen.append(now.rows_done)
    )
    assert seen == [200, 300, 361]
    assert (done.state, counts(done), Lead.objects.count()) == ("finished", (350, 10, 1), 350)
    assert LeadImportProblem.objects.get().row_number == 352


@pytest.mark.django_db(transaction=True)
def test_killed_inside_a_chunk_that_chunk_counts_once(tmp_path: Path) -> None:
    lead_import = create(people(250))
    with connection.cursor() as cursor:
        # The child's first chunk waits here, in the middle of its transaction.
        cursor.execute("SELECT pg_advisory_lock(hashtext(%s), %s)", ["flotilla.leads.owner", lead_import.owner_id])
        with child(import_id=lead_import.pk, stop_between=False, media=tmp_path) as process:
            wait_until(lambda: _waiters() == 1)
            assert process.poll() is None
        cursor.execute("SELECT pg_advisory_unlock_all()")
    wait_until(lambda: storing.worked_on() == set())
    lead_import.refresh_from_db()
    assert (lead_import.rows_done, Lead.objects.count()) == (0, 0)
    done = services.run_import(import_id=lead_import.pk, chunk_rows=100)
    assert (done.state, counts(done), Lead.objects.count()) == ("finished", (250, 0, 0), 250)


def _waiters() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return int(cursor.fetchone()[0])


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
