"""Imports for tests: made, run, and held in the middle."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.models import User
from django.db import connections

from leads import services
from leads.models import LeadImport
from tests.factories import make_user

HEADER = "name,phone,niche,target_status,trigger,notes,city\n"
PATIENCE_SECONDS = 30


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
