"""Credentials encrypted at rest with a rotatable key.

``FIELD_KEYS`` holds one or more Fernet keys, newest first: the first encrypts, all decrypt. To rotate, put a new key in
front and run ``manage.py rotate_field_key``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models


class Secrets(dict[str, str]):
    """A mapping of credentials that never shows its values.

    ``unreadable`` holds the ciphertext of credentials that no configured key decrypts. They read as empty, so that a
    list of devices still opens, and are written back as they were, so that nothing is lost when the key returns.
    """

    def __init__(self, values: Mapping[str, str] | None = None, *, unreadable: str = "") -> None:
        super().__init__(values or {})
        self.unreadable = unreadable

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self))})"

    __str__ = __repr__


@lru_cache(maxsize=4)
def _cipher(keys: tuple[str, ...]) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except (ValueError, TypeError):
        raise ImproperlyConfigured(
            "FLOTILLA_FIELD_KEYS must be one or more Fernet keys separated by commas; make one with "
            "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
        ) from None


def encrypt(values: Mapping[str, str]) -> str:
    """Ciphertext of a credentials mapping, by the newest key."""
    return _cipher(tuple(settings.FIELD_KEYS)).encrypt(json.dumps(dict(values)).encode()).decode()


def decrypt(token: str) -> Secrets:
    """The credentials behind ``token``; ``unreadable`` is set if no key fits."""
    if not token:
        return Secrets()
    try:
        return Secrets(json.loads(_cipher(tuple(settings.FIELD_KEYS)).decrypt(token.encode())))
    except InvalidToken:
        return Secrets(unreadable=token)


if TYPE_CHECKING:
    _Text = models.TextField[Mapping[str, str], Secrets]
else:
    _Text = models.TextField


def renewed(token: str) -> str | None:
    """The same credentials by the newest key; None where they are by that one already. Raises InvalidToken."""
    newest, *_ = keys = tuple(settings.FIELD_KEYS)
    try:
        _cipher((newest,)).decrypt(token.encode())
    except InvalidToken:
        return _cipher(keys).rotate(token.encode()).decode()
    return None


class SecretsField(_Text):
    """A mapping of strings, encrypted in the database, :class:`Secrets` in Python."""

    if TYPE_CHECKING:
        _pyi_private_set_type: Mapping[str, str]  # type: ignore[assignment]  # how django-stubs learns a field's types
        _pyi_private_get_type: Secrets  # type: ignore[assignment]

    def from_db_value(self, value: str | None, *_: object) -> Secrets:
        return decrypt(value or "")

    def to_python(self, value: Any) -> Any:
        if value is None or isinstance(value, Secrets):
            return value
        if isinstance(value, Mapping):
            return Secrets({str(k): str(v) for k, v in value.items()})
        return Secrets(json.loads(value)) if value else Secrets()

    def get_prep_value(self, value: Any) -> str:
        if isinstance(value, Secrets) and value.unreadable and not value:
            return value.unreadable
        return encrypt(value) if value else ""

    def value_to_string(self, obj: models.Model) -> str:
        return encrypt(getattr(obj, self.attname) or {})
