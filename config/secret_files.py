"""Secrets from files, and what production refuses to start with. Pure.

``NAME_FILE`` names a file whose content stands for ``NAME``, for every secret that the environment may hold: what
Docker, Kubernetes and systemd mount for a process shows in no list of its environment.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

SECRETS: Final = (
    "DATABASE_URL",
    "FLOTILLA_DIRECT_DATABASE_URL",
    "REDIS_URL",
    "FLOTILLA_SECRET_KEY",
    "FLOTILLA_FIELD_KEYS",
    "FLOTILLA_SUPPRESSION_KEYS",
    "FLOTILLA_WEBHOOK_SECRETS",
    "FLOTILLA_METRICS_TOKEN",
    "FLOTILLA_FLOWER_PASSWORD",
    "FLOTILLA_ADMIN_PASSWORD",
    "FLOTILLA_EMAIL_URL",
)
_LEAST: Final[Mapping[str, int]] = {
    "FLOTILLA_SECRET_KEY": 50,  # Django's own measure
    "FLOTILLA_SUPPRESSION_KEYS": 20,
    "FLOTILLA_METRICS_TOKEN": 16,
    "FLOTILLA_FLOWER_PASSWORD": 12,
}
_PLACEHOLDERS: Final = (
    "change-me",
    "changeme",
    "change_me",
    "replace-me",
    "replaceme",
    "django-insecure",
    "your-secret",
)
_SIMPLE: Final = frozenset({"secret", "password", "admin", "flotilla", "postgres", "build", "test", "default"})


class SecretProblem(Exception):  # noqa: N818 - reads as a fact
    """A secret that cannot be read or may not be used. Names the variable and the remedy, never a value."""


def read_secret_files(environment: MutableMapping[str, str]) -> None:
    """Put what the files hold in place of their names, so that this process and its children see plain variables.

    Raises SecretProblem.
    """
    for name in SECRETS:
        path = environment.get(f"{name}_FILE", "")
        if not path:
            continue
        if environment.get(name):
            raise SecretProblem(f"{name} and {name}_FILE are both set: unset one of them.")
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise SecretProblem(f"{name}_FILE: {path} cannot be read ({type(problem).__name__}).") from None
        if not value or "\0" in value:
            raise SecretProblem(f"{name}_FILE: {path} is empty, or no text.")
        environment[name] = value
        del environment[f"{name}_FILE"]


def refuse_defaults(environment: Mapping[str, str]) -> None:
    """Raises SecretProblem, with all of it at once, where a server would start with what anybody may know."""
    found = [reason for name in SECRETS if (reason := _weakness(name, environment.get(name, "")))]
    keys = [
        environment.get(name, "")
        for name in ("FLOTILLA_SECRET_KEY", "FLOTILLA_FIELD_KEYS", "FLOTILLA_SUPPRESSION_KEYS")
    ]
    if len({key for key in keys if key}) < len([key for key in keys if key]):
        found.append("FLOTILLA_SECRET_KEY, FLOTILLA_FIELD_KEYS and FLOTILLA_SUPPRESSION_KEYS must differ.")
    hosts = {host.strip() for host in environment.get("FLOTILLA_HOSTS", "").split(",")} - {""}
    if "*" in hosts:
        found.append("FLOTILLA_HOSTS must name this server's own names, not “*”.")
    if found:
        raise SecretProblem(
            f"Production does not start with these: {' '.join(found)} (manage.py setup makes good ones.)"
        )


def _weakness(name: str, value: str) -> str:
    if not value:
        return ""  # settings.py says which may not be missing
    lowered = value.lower()
    if lowered in _SIMPLE or any(word in lowered for word in _PLACEHOLDERS):
        return f"{name} is a placeholder."
    if name == "FLOTILLA_SECRET_KEY" and len(set(value)) < 5:
        return f"{name} is the same letter over and over."
    least = _LEAST.get(name, 0)
    if any(len(part.strip()) < least for part in value.split(",")):
        return f"{name} is shorter than {least} characters."
    return ""
