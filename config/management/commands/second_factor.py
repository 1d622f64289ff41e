"""``manage.py second_factor USERNAME --off``: let somebody in again who has lost app and recovery codes."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config import second_factor


class Command(BaseCommand):
    """Says whether a person's log-in takes a code, and takes it off."""

    help = "Say whether somebody's log-in takes a code of an authenticator app; --off takes it off."

    def add_arguments(self, parser: CommandParser) -> None:
        """One user name."""
        parser.add_argument("username")
        parser.add_argument("--off", action="store_true", help="their log-in takes the password alone from now on")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Raises CommandError when there is no such user."""
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user “{options['username']}”.")
        if options["off"]:
            second_factor.remove(user=user)
        self.stdout.write(f"{user.username}: {'password and code' if second_factor.is_on(user) else 'password alone'}")
