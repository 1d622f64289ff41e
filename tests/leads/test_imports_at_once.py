"""More than one worker at imports: one each, one owner at a time, and going on after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.db import connection
from django.utils import timezone

from leads import services, storing
from leads.models import Lead, LeadImport, LeadImportProblem
from tests.factories import make_user
from tests.leads.importing import PATIENCE_SECONDS, counts, create, held_import, people, thread, wait_until

# -- More than one at work ---------------------------------------------------------------------------------------------


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
