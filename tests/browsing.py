"""People at the admin's pages, for tests that need no real browser."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.test import Client


def signed_in(user: User) -> Client:
    """Their browser, after the log-in."""
    client = Client()
    client.force_login(user)
    return client
