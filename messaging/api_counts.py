"""How far messages are, as every answer of the API says it."""

from __future__ import annotations

from rest_framework import serializers

from messaging.services import Counts


class CountsSerializer(serializers.Serializer[Counts]):
    """How many messages are where, from maintained counters."""

    total = serializers.IntegerField()
    pending = serializers.IntegerField()
    queued = serializers.IntegerField()
    sent = serializers.IntegerField(help_text="Delivered and read ones included.")
    delivered = serializers.IntegerField()
    read = serializers.IntegerField()
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()
    expired = serializers.IntegerField()
    unknown = serializers.IntegerField()
    presumed = serializers.IntegerField(help_text="Of the unknown ones: those that count as sent by now.")
