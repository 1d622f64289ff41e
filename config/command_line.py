"""``manage.py``: what people change with it is in the audit trail, under the name that they have on the machine."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from django.core.management import execute_from_command_line

from config.acting import on_the_machine

AUDITED: Final = frozenset(
    {
        "changepassword", "create_token", "createsuperuser", "first_admin", "halt", "import_leads",
        "resume", "second_factor", "setup",
    }
)  # fmt: skip
"""Commands by which somebody acts. ``import_legacy`` names a user of ours itself; programs, trials and what puts
figures right are nobody's doing, a restore brings back what was done, and demo data leave no trace."""


def run(argv: Sequence[str]) -> None:
    """Run the command that ``argv`` names, as Django does."""
    command = argv[1] if len(argv) > 1 else ""
    with _audited(command) if command in AUDITED else nullcontext():
        execute_from_command_line(list(argv))


def _audited(command: str) -> AbstractContextManager[None]:
    return on_the_machine(action=f"manage.py {command} by {_somebody()} on {socket.gethostname()}")


def _somebody() -> str:
    """As the machine knows them; a container may run under a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
