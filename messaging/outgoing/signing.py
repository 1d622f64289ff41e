"""Who says it: HMAC-SHA256 over the moment and the body.

``X-Flotilla-Timestamp`` holds seconds since 1970, ``X-Flotilla-Signature`` one or, while a secret is changed, two of
``sha256=<hex HMAC of "timestamp.body">``, separated by commas: whoever knows either secret finds one that fits. It is
what :mod:`leads.sources` asks of those who post leads to us.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from datetime import datetime

TIMESTAMP, SIGNATURE = "X-Flotilla-Timestamp", "X-Flotilla-Signature"


def headers_for(*, body: bytes, secrets: Iterable[str], now: datetime) -> dict[str, str]:
    """The two headers that sign ``body``."""
    stamp = str(int(now.timestamp()))
    signed = f"{stamp}.".encode() + body
    by = [f"sha256={hmac.new(secret.encode(), signed, 'sha256').hexdigest()}" for secret in secrets]
    return {TIMESTAMP: stamp, SIGNATURE: ",".join(by)}
