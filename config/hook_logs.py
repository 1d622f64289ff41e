"""Secret addresses in logs (webhooks, status links): Django writes down the path of each request that it refuses."""

from __future__ import annotations

import logging
import re

_KEY = re.compile(r"(/hooks/[^/?\s]+/|/status/)[^/?\s]+")


class KeysHidden(logging.Filter):
    """Rewrites what Django's request logger is about to say; lets everything through."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Blank out the last part of such addresses."""
        if isinstance(record.args, tuple):
            record.args = tuple(_hidden(arg) for arg in record.args)
        record.msg = _hidden(record.msg)
        return True


def _hidden(value: object) -> object:
    return _KEY.sub(r"\1***", value) if isinstance(value, str) else value
