"""The table of gateways: README holds what the drivers say, and every driver says something about everything."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from django.core.management import call_command

from devices.gateways import registry, table

README = Path(__file__).resolve().parents[3] / "README.md"


def test_readme_holds_the_table_that_the_drivers_make() -> None:
    text = README.read_text()
    assert text.count(table.START) == text.count(table.END) == 1
    held = text.partition(table.START)[2].partition(table.END)[0].strip()
    assert held == table.markdown(registry.drivers()), "run: .venv/bin/python manage.py gateways --markdown"


def test_the_command_prints_it() -> None:
    printed = StringIO()
    call_command("gateways", markdown=True, stdout=printed)
    assert printed.getvalue().strip() == table.markdown(registry.drivers())
    printed = StringIO()
    call_command("gateways", stdout=printed)
    for driver in registry.drivers():
        assert driver.label in printed.getvalue()
        assert driver.kind in printed.getvalue()


def test_every_cell_says_something() -> None:
    for row in table.rows(registry.drivers()):
        assert len(row) == len(table.HEADINGS)
        assert all(cell and "|" not in cell and "\n" not in cell for cell in row), row


def test_only_gateways_with_proof_are_said_to_drop_repeats() -> None:
    for driver in registry.drivers():
        row = dict(zip(table.HEADINGS, table.rows([driver])[0], strict=True))
        again = row["a crash after the bytes left ends as"].startswith("sent again")
        assert again == (driver.id_semantics == "dedups")
        assert not again or driver.id_proof
