"""A kombu transport for very many queues on Redis, of which each worker waits on only a few.

A message with the header ``x-bell`` goes into its ordinary list (``device.17``), and in the same script the queue gets
a *token* in the ready set of that bell. Workers consume bells (``celery worker -Q devices.http.0``): BRPOP waits on the
bell lists, whose entries are worthless, and a second script takes ready messages in round-robin order, registers them
as unacknowledged and moves the tokens. The cost of a message does not depend on the number of queues. Only scripts move
tokens, so a consumer may die at any moment: a message is in its list or in kombu's unacked hash, never in neither.

Messages without the header are untouched: routing, fanout, remote control and monitors see stock Redis.
Needs one Redis or Valkey (>= 6.2), with or without Sentinels, without cluster mode, and no ``global_keyprefix``.
"""

from kombu.connection import resolve_aliases

from messaging.transport.names import BELL_HEADER, TAKEN_HEADER, device_queue, device_route
from messaging.transport.repair import Repaired, repair
from messaging.transport.sentinel import SentinelTransport
from messaging.transport.transport import Transport

__all__ = [
    "BELL_HEADER",
    "TAKEN_HEADER",
    "Repaired",
    "SentinelTransport",
    "Transport",
    "device_queue",
    "device_route",
    "repair",
]

# How addresses begin where they are shown: Flower takes it for the kind of broker, and would know no other word.
resolve_aliases["messaging.transport:Transport"] = "redis"
resolve_aliases["messaging.transport:SentinelTransport"] = "sentinel"
