"""``manage.py create_token USERNAME``: an API token for somebody, printed once."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.api.tokens import make_token
from devices.access import role_of


class Command(BaseCommand):
    """Prints the token alone on stdout, so that a script can take it."""

    help = "Make an API token for a user and print it. It is stored hashed and cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        """One user name."""
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Raises CommandError in words when there is no such active user."""
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user “{options['username']}”.")
        if not user.is_active:
            raise CommandError(f"“{user.username}” is not active, so a token would not work.")
        if role_of(user) is None:
            self.stderr.write(
                f"Note: “{user.username}” is in none of the groups admin, staff, team, ops and will see nothing."
            )
        token, expires_at = make_token(user=user)
        self.stdout.write(token)
        self.stderr.write(f"Expires at {expires_at:%Y-%m-%d %H:%M} UTC." if expires_at else "It does not expire.")
