"""How e-mail leaves: one URL in the environment, translated into Django's settings. Pure.

``smtp://user:password@host:25`` (plain), ``smtp+starttls://…:587``, ``smtps://…:465``; nothing set: to standard
output of the process that sends. ``FLOTILLA_EMAIL_PASSWORD_FILE`` may name a file that holds the password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

URL: Final = "FLOTILLA_EMAIL_URL"
PASSWORD_FILE: Final = "FLOTILLA_EMAIL_PASSWORD_FILE"  # noqa: S105 - a variable's name
PORTS: Final[Mapping[str, int]] = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


class MailProblem(Exception):  # noqa: N818 - reads as a fact
    """The environment names no way out for e-mail that can be used. Says which variable, never the password."""


@dataclass(frozen=True, slots=True)
class Mail:
    """What Django's EMAIL_* settings are to be."""

    backend: str = "django.core.mail.backends.console.EmailBackend"
    host: str = "localhost"
    port: int = 25
    user: str = ""
    password: str = field(default="", repr=False)
    starttls: bool = False
    tls: bool = False


def mail_from(environment: Mapping[str, str]) -> Mail:
    """The way out that this environment names. Raises MailProblem."""
    url = environment.get(URL, "")
    if not url:
        return Mail()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise MailProblem(f"{URL} cannot be read; write it as smtp://user:password@host:port.") from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise MailProblem(f"{URL} must begin with {', '.join(f'{scheme}://' for scheme in PORTS)} and name a host.")
    return Mail(
        backend="django.core.mail.backends.smtp.EmailBackend",
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        user=unquote(parts.username or ""),
        password=_password(environment) or unquote(parts.password or ""),
        starttls=parts.scheme == "smtp+starttls",
        tls=parts.scheme == "smtps",
    )


def _password(environment: Mapping[str, str]) -> str:
    name = environment.get(PASSWORD_FILE, "")
    if not name:
        return ""
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise MailProblem(f"{PASSWORD_FILE}: {name} cannot be read ({type(problem).__name__}).") from None
