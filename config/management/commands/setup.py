"""``manage.py setup``: keys, an admin and a first device; by flags, or by questions where there is a terminal."""

from __future__ import annotations

import getpass
import json
import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from config.installing import SetupProblem, environment_text, make_admin, make_device, write_environment
from devices.gateways import registry

NEXT = """Made {path} with fresh keys. Keep a copy where the backups are not.
Next: put it where the programs find it (deploy/README.md), run “manage.py migrate” with it, then
“manage.py setup --admin NAME”, and “manage.py doctor”."""
NOTHING = "Say what to set up: --env-file with --host, --admin, --device with --gateway (manage.py help setup)."


class Command(BaseCommand):
    help = "Make the keys of an installation, somebody who may log in, a first device."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        keys = parser.add_argument_group("keys: a file of variables, mode 0600, never overwritten")
        keys.add_argument("--env-file", type=Path, help="the file to write")
        keys.add_argument("--host", default="", help="the name under which it will be reached")
        keys.add_argument("--database-url", default="", help="your PostgreSQL; without, that of deploy/compose.yaml")
        keys.add_argument("--redis-url", default="", help="your Valkey; without, that of deploy/compose.yaml")
        admin = parser.add_argument_group("an admin: the password is asked for, or in FLOTILLA_ADMIN_PASSWORD")
        admin.add_argument("--admin", default="", metavar="NAME")
        admin.add_argument("--email", default="")
        device = parser.add_argument_group("a device: credentials are asked for, or in a file")
        device.add_argument("--device", default="", metavar="NAME")
        device.add_argument("--gateway", default="", help=", ".join(sorted(registry.kinds())))
        device.add_argument("--base-url", default="")
        device.add_argument("--owner", default="", help="whose it is; without, the admin of --admin, else “admin”")
        device.add_argument("--credentials-file", type=Path, help='JSON, as {"token": "…"}; "-" reads standard input')

    def handle(self, *_args: Any, **options: Any) -> None:
        if not (options["env_file"] or options["admin"] or options["device"]):
            if not sys.stdin.isatty():
                raise CommandError(NOTHING)
            self._ask(options)
        try:
            if options["env_file"]:
                self._keys(options)
            if options["admin"]:
                self._admin(options)
            if options["device"]:
                self._device(options)
        except SetupProblem as problem:
            raise CommandError(str(problem)) from None
        except DatabaseError as problem:
            raise CommandError(
                f"The database does not answer as it should ({type(problem).__name__}): "
                "are its variables set, and was “manage.py migrate” run?"
            ) from None

    def _ask(self, options: dict[str, Any]) -> None:
        """What is wanted, in the order in which it is needed. An empty answer leaves a step out."""
        if path := input("File for new keys (empty: they exist already): ").strip():
            options["env_file"] = Path(path)
            options["host"] = input("Name under which it will be reached: ").strip()
            options["database_url"] = input("Address of PostgreSQL (empty: that of compose.yaml): ").strip()
            options["redis_url"] = input("Address of Valkey (empty: that of compose.yaml): ").strip()
            return  # what follows needs the database, and this process does not have the new variables
        options["admin"] = input("Name of the admin (empty: nobody new): ").strip()
        options["device"] = input("Name of the first device (empty: none): ").strip()
        if options["device"]:
            options["gateway"] = input(f"Its gateway ({', '.join(sorted(registry.kinds()))}): ").strip()
            options["base_url"] = input("The gateway's address (empty: its usual one): ").strip()

    def _keys(self, options: dict[str, Any]) -> None:
        text = environment_text(
            host=options["host"], database_url=options["database_url"], redis_url=options["redis_url"]
        )
        write_environment(options["env_file"], text)
        self.stdout.write(NEXT.format(path=options["env_file"]))

    def _admin(self, options: dict[str, Any]) -> None:
        password = os.environ.get("FLOTILLA_ADMIN_PASSWORD", "")
        if not password and sys.stdin.isatty():
            password = getpass.getpass(f"Password of {options['admin']}: ")
            if getpass.getpass("Again: ") != password:
                raise SetupProblem("The passwords differ; nobody was made.")
        if not password:
            raise SetupProblem("FLOTILLA_ADMIN_PASSWORD is not set, and there is no terminal to ask at.")
        make_admin(name=options["admin"], email=options["email"], password=password)
        self.stdout.write(f"Made the admin “{options['admin']}”.")

    def _device(self, options: dict[str, Any]) -> None:
        if options["gateway"] not in registry.kinds():
            raise SetupProblem(f"--gateway must be one of {', '.join(sorted(registry.kinds()))}.")
        device = make_device(
            owner=options["owner"] or options["admin"] or "admin",
            name=options["device"],
            gateway=options["gateway"],
            base_url=options["base_url"],
            credentials=_credentials(options["gateway"], options["credentials_file"]),
        )
        self.stdout.write(f"Made the device “{device.name}” ({device.get_state_display()}).")


def _credentials(gateway: str, path: Path | None) -> dict[str, str]:
    """From the file, or asked for without echo. Raises SetupProblem, quoting nothing of the file."""
    if path is None:
        if registry.driver_for(gateway).transport != "http" or not sys.stdin.isatty():
            return {}
        return {f.name: getpass.getpass(f"{f.label}: ") for f in registry.http_driver_for(gateway).credential_fields}
    try:
        found = json.loads(sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise SetupProblem(f"--credentials-file cannot be read ({type(problem).__name__}).") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise SetupProblem('--credentials-file must hold one object of texts, as {"token": "…"}.')
    return found
