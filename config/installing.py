"""The first steps of an installation: its keys in a file of their own, somebody who may log in, a first device."""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from config.stack.addresses import database_from_url, redis_from_url
from config.stack.errors import StackError
from config.stack.keys import new_keys
from devices.access import Role
from devices.gateways import registry
from devices.models import Device
from devices.secrets import Secrets

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.,:;=@%+/?&\[\]~!*-]*\Z")
"""What systemd, Compose, kubectl and a shell all read in the same way without quotes."""
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\Z"
)


class SetupProblem(Exception):  # noqa: N818 - reads as a fact
    """This step cannot be done. Names what to change, never a secret."""


def environment_text(*, host: str, database_url: str = "", redis_url: str = "") -> str:
    """A file of variables with fresh keys. Without addresses it names the servers of deploy/compose.yaml.

    Raises :class:`SetupProblem`.
    """
    if not _HOST.match(host):
        raise SetupProblem(
            f"--host must be one name like flotilla.example.org, without https:// or a port, not “{host}”."
        )
    if bool(database_url) != bool(redis_url):
        raise SetupProblem(
            "Give both --database-url and --redis-url, or neither for the servers of deploy/compose.yaml."
        )
    lines: dict[str, str] = {
        "FLOTILLA_ENV": "production",
        "FLOTILLA_HOSTS": host,
        "FLOTILLA_ORIGINS": f"https://{host}",
        "FLOTILLA_URL": f"https://{host}",
        "FLOTILLA_PROXIES": "1",  # the one that adds TLS
    }
    if database_url:
        _check_addresses(database_url, redis_url)
        lines |= {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    else:
        postgres, valkey = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        lines |= {
            "POSTGRES_PASSWORD": postgres,
            "VALKEY_PASSWORD": valkey,
            "DATABASE_URL": f"postgresql://flotilla:{postgres}@postgres:5432/flotilla",
            "REDIS_URL": f"redis://:{valkey}@valkey:6379/0",
        }
    keys = new_keys()
    for name in ("FLOTILLA_SECRET_KEY", "FLOTILLA_FIELD_KEYS", "FLOTILLA_SUPPRESSION_KEYS", "FLOTILLA_FLOWER_PASSWORD"):
        lines[name] = keys[name]
    basic = base64.b64encode(f"admin:{keys['FLOTILLA_FLOWER_PASSWORD']}".encode()).decode()
    lines["FLOTILLA_FLOWER_BASIC"] = basic  # what the proxy gives Flower for those whose role may look
    signing = sorted(kind for kind in registry.kinds() - {"simulator"} if _signs(kind))
    lines["FLOTILLA_WEBHOOK_SECRETS"] = ",".join(f"{kind}={secrets.token_urlsafe(32)}" for kind in signing)
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _signs(kind: str) -> bool:
    driver = registry.driver_for(kind)
    return driver.transport == "http" and registry.http_driver_for(kind).signs_webhooks


def _check_addresses(database_url: str, redis_url: str) -> None:
    try:
        database_from_url(database_url)
        redis_from_url(redis_url)
    except StackError as problem:
        raise SetupProblem(str(problem)) from None
    for flag, value in (("--database-url", database_url), ("--redis-url", redis_url)):
        if not _PLAIN.match(value):
            raise SetupProblem(f"{flag} holds a character that such files read differently: percent-encode it.")


def write_environment(path: Path, text: str) -> None:
    """Write the file, readable by its owner only; never over another. Raises :class:`SetupProblem`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SetupProblem(
            f"{path} exists, and its keys may be all that opens your data: move it away yourself, or name another file."
        ) from None
    except OSError as problem:
        raise SetupProblem(f"{path} cannot be written: {problem.strerror}.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask says
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def make_admin(*, name: str, email: str, password: str) -> User:
    """A superuser in the group admin. Raises :class:`SetupProblem`."""
    user = User(username=name, email=email)
    try:
        user.full_clean(exclude=["password"])
        validate_password(password, user)
    except ValidationError as problem:
        raise SetupProblem(f"No admin was made: {' '.join(problem.messages)}") from None
    with transaction.atomic():
        made = User.objects.create_superuser(username=name, email=email, password=password)
        made.groups.add(Group.objects.get(name=Role.ADMIN))
    return made


def make_device(*, owner: str, name: str, gateway: str, base_url: str, credentials: Mapping[str, str]) -> Device:
    """A device of ``owner``, checked as the admin checks it. Raises :class:`SetupProblem`."""
    user = User.objects.filter(username=owner).first()
    if user is None:
        raise SetupProblem(f"There is no user “{owner}”: make one with --admin, or name another with --owner.")
    device = Device(owner=user, name=name, gateway=gateway, base_url=base_url, credentials=Secrets(credentials))
    try:
        device.full_clean()
    except ValidationError as problem:
        told = " ".join(f"{field}: {' '.join(texts)}" for field, texts in problem.message_dict.items())
        raise SetupProblem(f"No device was made. {told}") from None
    device.save()
    return device
