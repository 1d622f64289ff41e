"""The lives of a campaign and of a run, as data.

::

    campaign:  draft ──launch──> scheduled ──pause──> paused ──resume──> scheduled
                 └──────────────────┴───── cancel ──────┴──> cancelled

    run:  pending ──trigger──> triggered ──finish──> finished
             │  ├── no lead, cancelled ──────────────────┘ │
             │  ├── no device ──> failed <──fail── triggered <──reopen── (a failed message is tried again)
             └──miss──> missed ──revive──> pending

A **campaign** is a *draft* until somebody launches it. *Scheduled* ones are watched by the tick and stay so for good:
of a one-off that has run there is simply nothing left to watch. *Paused* ones make no run, and those that go on send
nothing. *Cancelled* is final; cloning makes another.

A **run** is *pending* from the moment its occurrence is written down until the tick, or whoever launched it, triggers
it. *Triggered* means that its messages are being made or sent; the tick finishes it when its batches have ended, and
fails it when one of them failed. *Missed* is an occurrence that nobody was there for within
``FLOTILLA_MISSED_AFTER_MINUTES``; only a clock that was set back makes one pending again. A *finished* run goes back
to triggered when failed messages of it are tried again, or leads that were left over are assigned.

Every move is one conditional UPDATE on the old state; whoever updates no row has lost the race and does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import models


class CampaignState(models.TextChoices):
    """``scheduled`` campaigns are watched by the tick; the others wait for a person."""

    DRAFT = "draft", "Draft"
    SCHEDULED = "scheduled", "Scheduled"
    PAUSED = "paused", "Paused"
    CANCELLED = "cancelled", "Cancelled"


class RunState(models.TextChoices):
    """pending → triggered → finished | failed; an occurrence that nobody was there for is missed."""

    PENDING = "pending", "Pending"
    TRIGGERED = "triggered", "Triggered"
    FINISHED = "finished", "Finished"
    FAILED = "failed", "Failed"
    MISSED = "missed", "Missed"


LIVE = (RunState.PENDING, RunState.TRIGGERED)
"""Runs with something ahead of them."""


@dataclass(frozen=True, slots=True)
class Move:
    """``event`` moves a row from ``source`` to ``target``."""

    event: str
    source: str
    target: str


C, R = CampaignState, RunState

CAMPAIGN_MOVES: tuple[Move, ...] = (
    Move("launch", C.DRAFT, C.SCHEDULED),
    Move("pause", C.SCHEDULED, C.PAUSED),
    Move("resume", C.PAUSED, C.SCHEDULED),
    Move("cancel", C.DRAFT, C.CANCELLED),
    Move("cancel", C.SCHEDULED, C.CANCELLED),
    Move("cancel", C.PAUSED, C.CANCELLED),
)

RUN_MOVES: tuple[Move, ...] = (
    Move("trigger", R.PENDING, R.TRIGGERED),
    Move("trigger", R.PENDING, R.FINISHED),
    Move("trigger", R.PENDING, R.FAILED),
    Move("miss", R.PENDING, R.MISSED),
    Move("revive", R.MISSED, R.PENDING),
    Move("cancel", R.PENDING, R.FINISHED),
    Move("finish", R.TRIGGERED, R.FINISHED),
    Move("fail", R.PENDING, R.FAILED),
    Move("fail", R.TRIGGERED, R.FAILED),
    Move("reopen", R.FINISHED, R.TRIGGERED),
)


def sources(moves: tuple[Move, ...], event: str) -> tuple[str, ...]:
    """States from which ``event`` may start. Raises KeyError for an unknown event."""
    found = tuple(dict.fromkeys(move.source for move in moves if move.event == event))
    if not found:
        raise KeyError(event)
    return found
