"""What ``manage.py check`` says of messaging's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from devices.gateways import registry


@register
def gateways_are_known(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's
    """A gateway that is spelled wrong would silently have no policy, and no webhook."""
    found: list[CheckMessage] = []
    for name in ("FLOTILLA_UNKNOWN_POLICY", "FLOTILLA_WEBHOOK_SECRETS"):
        wrong = sorted(set(getattr(settings, name)) - registry.kinds() - {""})
        if wrong:
            known = ", ".join(sorted(registry.kinds()))
            text = f"{name} names {', '.join(wrong)}; the gateways are {known}."
            found.append(Error(text, hint="Correct the name.", id="flotilla.E001"))
    return found
