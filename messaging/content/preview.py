"""What one lead would get, before anybody gets it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from leads.models import Lead
from leads.quiet import zone_of
from messaging.content.prepare import Prepared, prepare_parsed, variables_of
from messaging.content.problems import TemplateProblem, ValueMissing
from messaging.content.shape import Content
from messaging.content.wording import wording


@dataclass(frozen=True, slots=True)
class Preview:
    """``prepared`` is what would be sent; else ``problem`` says why this lead would get nothing.

    ``held``: the message would wait for the value that is missing. What choices come to differs per message:
    ``varies``.
    """

    prepared: Prepared | None
    problem: str = ""
    held: bool = False
    varies: bool = False


def preview(content: Content, *, lead: Lead | None, now: datetime, seed: int = 0) -> Preview:
    """What ``lead`` would get at ``now``; None: somebody of whom nothing is known. ``seed`` decides choices."""
    lead = lead or Lead(phone="", name="")
    zone = zone_of(phone=lead.phone, stated=lead.time_zone, otherwise=settings.FLOTILLA_LEAD_TIME_ZONE)
    variables = variables_of(
        name=lead.name,
        phone=lead.phone,
        status=lead.status,
        niches=lead.niches,
        triggers=lead.triggers,
        custom=lead.custom,
    )
    varies = any(wording(source).spins for _, source in content.texts())
    try:
        prepared = prepare_parsed(
            content, variables=variables, seed=seed, local_time=lambda: now.astimezone(zone).time()
        )
    except ValueMissing as problem:
        return Preview(None, f"{problem} The message is held until the lead has one.", held=True, varies=varies)
    except TemplateProblem as problem:
        return Preview(None, str(problem), varies=varies)
    return Preview(prepared, varies=varies)
