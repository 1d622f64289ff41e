"""Whom a campaign speaks to: a frozen filter over one owner's leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from django.db.models import Count, Q, QuerySet

from leads.models import Lead


@dataclass(frozen=True, slots=True)
class Audience:
    """A filter over leads. Empty fields do not filter; several tags mean any of them, and tags match exactly."""

    owner_id: int
    status: str = ""
    niches: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    device_id: int | None = None

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
        return found

    def reachable(self) -> QuerySet[Lead]:
        """Those we may write to: consent is recorded and they have not opted out."""
        return self.leads().filter(consent_at__isnull=False, opted_out_at__isnull=True)

    def left_out(self) -> dict[str, int]:
        """How many match but may not be written to, by reason (only reasons that occur)."""
        counts = self.leads().aggregate(
            opted_out=Count("id", filter=Q(opted_out_at__isnull=False)),
            no_consent=Count("id", filter=Q(opted_out_at__isnull=True, consent_at__isnull=True)),
        )
        return {reason: number for reason, number in counts.items() if number}

    def to_json(self) -> dict[str, Any]:
        """A form for a JSON column; :meth:`from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The audience that :meth:`to_json` wrote."""
        return cls(**{**data, "niches": tuple(data["niches"]), "triggers": tuple(data["triggers"])})
