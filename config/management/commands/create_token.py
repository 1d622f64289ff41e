"""``manage.py create_token USERNAME``: an API token for somebody, printed once."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.api.tokens import make_token
from config.scopes import FULL, SCOPES
from devices.access import role_of


class Command(BaseCommand):
    """Prints the token alone on stdout, so that a script can take it."""

    help = "Make an API token for a user and print it. It is stored hashed and cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        """One user name, and what the token may open."""
        parser.add_argument("username")
        parser.add_argument("--name", default="create_token", help="what it is for")
        parser.add_argument(
            "--scope",
            action="append",
            choices=SCOPES,
            help="what it may open; may be given several times; without, all that its user may",
        )

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
        token, expires_at = make_token(user=user, name=options["name"][:100], scopes=tuple(options["scope"] or [FULL]))
        self.stdout.write(token)
        self.stderr.write(f"Expires at {expires_at:%Y-%m-%d %H:%M} UTC." if expires_at else "It does not expire.")
