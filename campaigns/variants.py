"""A/B: which lead gets which variant. The same lead gets the same one in every run of a campaign.

A lead's bucket, 0 to 9999, is the beginning of the MD5 of “campaign:lead”; a variant is a range of buckets. So nothing
is stored per lead, the split does not depend on the order in which leads came, and two campaigns split differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from django.db.models import Func, IntegerField, QuerySet, Value

from leads.models import Lead

BUCKETS = 10_000


def bucket_of(*, campaign_id: int, lead_id: int) -> int:
    """0 to 9999, always the same for the same two."""
    digest = hashlib.md5(f"{campaign_id}:{lead_id}".encode(), usedforsecurity=False).hexdigest()
    return int(digest[:7], 16) % BUCKETS


def ranges(shares: Sequence[int]) -> list[tuple[int, int]]:
    """Buckets of each share in percent, as (lower, upper): upper is not in it. Shares make 100."""
    ends = [BUCKETS * total // 100 for total in accumulate(shares)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def split_limit(limit: int, *, shares: Sequence[int]) -> list[int]:
    """``limit`` divided by shares in percent: whole numbers that make ``limit``, the largest remainders rounded up."""
    exact = [limit * share / 100 for share in shares]
    parts = [int(part) for part in exact]
    order = sorted(range(len(shares)), key=lambda n: exact[n] - parts[n], reverse=True)
    for index in order[: limit - sum(parts)]:
        parts[index] += 1
    return parts


class _Bucket(Func):
    """:func:`bucket_of` in SQL. Seven hexadecimal digits fit an integer without its sign."""

    template = f"mod(('x' || substr(md5(%(expressions)s), 1, 7))::bit(28)::int, {BUCKETS})"
    arg_joiner = " || ':' || "
    output_field = IntegerField()


def within(leads: QuerySet[Lead], *, campaign_id: int, lower: int, upper: int) -> QuerySet[Lead]:
    """Those of ``leads`` whose bucket is at least ``lower`` and below ``upper``."""
    bucket: Any = _Bucket(Value(str(campaign_id)), "pk")
    return leads.alias(bucket=bucket).filter(bucket__gte=lower, bucket__lt=upper)
