"""Whom a campaign speaks to: a frozen filter over one owner's leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from django.db.models import Count, Q, QuerySet

from leads.consent import waiver_for
from leads.models import Lead
from leads.rules import Rules, parse
from leads.segments import matching


@dataclass(frozen=True, slots=True)
class Audience:
    """A filter over leads. Empty fields do not filter; several tags mean any of them, and tags match exactly."""

    owner_id: int
    status: str = ""
    niches: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    device_id: int | None = None
    rules: Rules = field(default_factory=Rules)
    """What a segment asks besides; settled, so that every chunk of a run asks for the same."""

    def leads(self) -> QuerySet[Lead]:
        """Everybody who matches, whether we may write to them or not."""
        found = Lead.objects.filter(owner_id=self.owner_id)
        if self.status:
            found = found.filter(status=self.status)
        if self.niches:
            found = found.filter(niches__overlap=list(self.niches))
        if self.triggers:
            found = found.filter(triggers__overlap=list(self.triggers))
        if self.device_id is not None:
            found = found.filter(device_id=self.device_id)
        return found.filter(matching(self.rules))

    def reachable(self) -> QuerySet[Lead]:
        """Those we may write to: they agreed (unless an admin's waiver says otherwise) and nothing speaks against it.

        Whoever is held for review is left out rather than kept waiting, so that a run ends without them.
        """
        found = self.leads().filter(opted_out_at__isnull=True, review_at__isnull=True)
        return found if waiver_for(self.owner_id) else found.filter(consent_at__isnull=False)

    def without_consent(self) -> int:
        """How many would be written to because of a waiver alone."""
        return self.reachable().filter(consent_at__isnull=True).count()

    def left_out(self) -> dict[str, int]:
        """How many match but may not be written to, by reason (only reasons that occur)."""
        willing = Q(opted_out_at__isnull=True, review_at__isnull=True)
        counts = self.leads().aggregate(
            opted_out=Count("id", filter=Q(opted_out_at__isnull=False)),
            in_review=Count("id", filter=Q(opted_out_at__isnull=True, review_at__isnull=False)),
            no_consent=Count("id", filter=willing & Q(consent_at__isnull=True)),
        )
        if waiver_for(self.owner_id):
            del counts["no_consent"]
        return {reason: number for reason, number in counts.items() if number}

    def to_json(self) -> dict[str, Any]:
        """A form for a JSON column; :meth:`from_json` reads it back."""
        return {**asdict(replace(self, rules=Rules())), "rules": self.rules.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The audience that :meth:`to_json` wrote."""
        tags = {name: tuple(data[name]) for name in ("niches", "triggers")}
        return cls(**{**data, **tags, "rules": parse(data.get("rules", {}))})
