"""``manage.py first_admin``: somebody who can log in, on an installation that has nobody yet."""

from __future__ import annotations

import os
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from devices.access import Role

NAME = "admin"


class Command(BaseCommand):
    help = f"Make the superuser “{NAME}” with the password in FLOTILLA_ADMIN_PASSWORD, if there is no superuser yet."
    requires_system_checks = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        if User.objects.filter(is_superuser=True).exists():
            self.stdout.write("There is a superuser already.")
            return
        password = os.environ.get("FLOTILLA_ADMIN_PASSWORD", "")
        if not password:
            raise CommandError("FLOTILLA_ADMIN_PASSWORD is not set: it becomes the password of the first admin.")
        with transaction.atomic():
            user = User.objects.create_superuser(username=NAME, email=f"{NAME}@localhost", password=password)
            user.groups.add(Group.objects.get(name=Role.ADMIN))
        self.stdout.write(f"Made the superuser “{NAME}”.")
