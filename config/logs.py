"""Logs: one event a line on stderr, with what is known about the request or task that it belongs to."""

from __future__ import annotations

from typing import Any

import structlog


def log_to_stderr(*, level: str, json: bool) -> dict[str, Any]:
    """Set structlog up; returns Django's LOGGING. ``json``: lines for programs, else for people."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "events": {
                "()": "structlog.stdlib.ProcessorFormatter",
                "foreign_pre_chain": shared,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    structlog.processors.JSONRenderer()
                    if json
                    else structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
                ],
            }
        },
        "filters": {"hook_keys": {"()": "config.hook_logs.KeysHidden"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "events"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            "celery.beat": {"level": "WARNING"},
            "django.request": {"filters": ["hook_keys"]},
        },
    }
