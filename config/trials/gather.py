"""Reading what a trial left behind: rows, the simulator's ledger, its log of sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from config.demo.verdict import judge as verdict_of
from config.trials.judge import Call, Evidence, Silence, Stay
from messaging.models import Attempt, Message
from messaging.states import State


def gather(
    *,
    batch_id: int,
    entries: Sequence[Mapping[str, Any]],
    stays: Sequence[Mapping[str, Any]],
    silences: Sequence[Silence],
    gaps: Mapping[str, float],
    lease_seconds: float,
    strays: Sequence[str] = (),
) -> Evidence:
    """Everything about one batch, with what the simulator has seen."""
    return Evidence(
        verdict=verdict_of(batch_id=batch_id, entries=entries),
        stays=[
            Stay(
                session=stay["session"],
                peer=stay["peer"],
                began_at=stay["began_at"],
                heard_at=stay["heard_at"],
                ended_at=stay["ended_at"],
                replaced=stay["replaced"],
            )
            for stay in stays
        ],
        silences=silences,
        calls=_calls(batch_id=batch_id, entries=entries),
        gaps=gaps,
        lease_seconds=lease_seconds,
        strays=strays,
    )


def _calls(*, batch_id: int, entries: Sequence[Mapping[str, Any]]) -> list[Call]:
    """Attempts of the batch with the moment when the gateway first heard of each."""
    arrived: dict[tuple[int, int], tuple[float, str]] = {}
    for entry in entries:
        if entry["message"] is not None:
            arrived.setdefault((entry["message"], entry["attempt"]), (entry["at"], entry["device"]))
    unknown = set(Message.objects.filter(batch_id=batch_id, state=State.UNKNOWN).values_list("pk", flat=True))
    found = []
    rows = Attempt.objects.filter(message__batch_id=batch_id).order_by("pk")
    for message, number, started, outcome, name in rows.values_list(
        "message_id", "number", "started_at", "outcome", "device__name"
    ):
        at, device = arrived.get((message, number), (None, name))
        doubtful = message in unknown and outcome in {"unknown", ""}
        found.append(Call(device, message, started.timestamp(), at, unknown=doubtful))
    return found
