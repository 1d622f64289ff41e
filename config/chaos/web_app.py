"""The web application as a chaos run serves it: it knows the forgetful gateway."""

from __future__ import annotations

from config.chaos import gateway
from config.wsgi import application

__all__ = ["application"]

gateway.known_here()
