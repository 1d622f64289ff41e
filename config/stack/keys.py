"""Secrets of one checkout, made once and kept in ``secrets.json`` (mode 0600) below the local root.

They carry the names of the environment variables that they stand in for. A server in production sets those variables
and never comes here.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from config.stack.errors import StackError
from config.stack.places import local_root, make_root
from config.stack.private_files import create_once, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _fernet_key() -> str:
    """32 random bytes in URL-safe base64: what a Fernet key is (the Fernet specification)."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


_MAKERS: dict[str, Callable[[], str]] = {
    "FLOTILLA_SECRET_KEY": lambda: secrets.token_urlsafe(50),
    "FLOTILLA_FIELD_KEYS": _fernet_key,
    "FLOTILLA_SUPPRESSION_KEYS": lambda: secrets.token_urlsafe(32),
    "FLOTILLA_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(12),
    "FLOTILLA_FLOWER_PASSWORD": lambda: secrets.token_urlsafe(12),
    "FLOTILLA_WEBHOOK_SECRETS": lambda: f"simulator={secrets.token_urlsafe(32)}",
    "SIMULATOR_CONTROL_TOKEN": lambda: secrets.token_urlsafe(32),
}


def new_keys() -> dict[str, str]:
    """A fresh set, by the names of the variables; kept nowhere."""
    return {name: make() for name, make in _MAKERS.items()}


def local_secrets(root: Path | None = None) -> Mapping[str, str]:
    """The secrets below ``root`` (by default the local root), made on first use. Two at once agree on one set."""
    return _secrets(root or local_root())


@lru_cache(maxsize=8)
def _secrets(root: Path) -> Mapping[str, str]:
    make_root(root)
    path = root / "secrets.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = create_once(path, json.dumps(new_keys(), indent=2))
    except OSError as error:
        raise StackError(f"{path} cannot be read: {error.strerror}.") from None
    found = _parse(path, text)
    missing = {name: make() for name, make in _MAKERS.items() if name not in found}
    if missing:  # written by an older version
        found |= missing
        write_private(path, json.dumps(found, indent=2))
    return MappingProxyType(found)


def _parse(path: Path, text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise StackError(f"{path} does not hold secrets any more; remove it to have new ones made.")
    return found
