"""Pausing, resuming, cancelling and cloning campaigns in the admin. Each asks first, with what will happen."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action
from unfold.enums import ActionVariant

from campaigns import running, services
from campaigns.models import Campaign, Schedule
from campaigns.states import LIVE, CampaignState
from devices.admin_pages import Question, ask, back_to, change_url, confirmed, visible_or_404

DONE = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}
TEXTS = {
    "pause": "No run is made, and those that go on send nothing more, until it is resumed.",
    "resume": "Sending goes on with exactly what is left. Runs that were due meanwhile are gone.",
    "cancel": "No run is made any more, and everything that has not been sent is cancelled. This cannot be undone.",
}


class OperateMixin:
    """Actions of :class:`campaigns.admin.CampaignAdmin`'s pages."""

    @action(description="Pause", icon="pause", permissions=["launch"])
    def pause_campaign(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Nothing more is made or sent."""
        return self._operate(request, object_id, "pause")

    @action(description="Resume", icon="play_arrow", permissions=["launch"])
    def resume_campaign(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go on."""
        return self._operate(request, object_id, "resume")

    @action(description="Cancel", icon="cancel", permissions=["launch"], variant=ActionVariant.DANGER)
    def cancel_campaign(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """For good."""
        return self._operate(request, object_id, "cancel")

    @action(description="Clone", icon="content_copy", permissions=["launch"])
    def clone_campaign(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """A new draft with the same content, audience and pacing: the way to run a one-off again."""
        campaign = visible_or_404(self, request, object_id)
        if not confirmed(request):
            return ask(request, model_admin=self, obj=campaign, question=clone_question(campaign))
        clone = services.clone(campaign=campaign)
        self.log_addition(request, clone, f"Cloned from campaign {campaign.pk}.")
        self.message_user(request, f"“{clone}” is a draft of its own.", messages.SUCCESS)
        return back_to(clone)

    def _operate(self: Any, request: HttpRequest, object_id: str, what: str) -> HttpResponse:
        campaign = visible_or_404(self, request, object_id)
        if not confirmed(request):
            return ask(request, model_admin=self, obj=campaign, question=question_about(what, campaign))
        match what:
            case "pause":
                changed = services.pause_campaign(campaign)
            case "resume":
                changed = services.resume_campaign(campaign, now=timezone.now())
            case _:
                changed = services.cancel_campaign(campaign, now=timezone.now())
        if changed:
            self.log_change(request, campaign, f"{DONE[what].capitalize()}.")
            self.message_user(request, f"“{campaign}” is {DONE[what]}.", messages.SUCCESS)
        else:
            text = f"“{campaign}” was not {DONE[what]}: it is not in a state for that."
            self.message_user(request, text, messages.WARNING)
        return back_to(campaign)


def shut_actions(campaign: Campaign) -> list[str]:
    """Names of the actions that do not apply to the campaign as it is."""
    state = campaign.state
    launched = campaign.runs.exists() if campaign.schedule != Schedule.CRON else state != CampaignState.DRAFT
    live = campaign.schedule == Schedule.CRON or campaign.runs.filter(state__in=LIVE).exists()
    shut = []
    if launched or state != CampaignState.DRAFT:
        shut.append("launch_campaign")
    if state != CampaignState.SCHEDULED or not live:
        shut.append("pause_campaign")
    if state != CampaignState.PAUSED:
        shut.append("resume_campaign")
    if state == CampaignState.CANCELLED or (launched and not live):
        shut.append("cancel_campaign")
    return shut


def question_about(what: str, campaign: Campaign) -> Question:
    """Pause, resume or cancel: what it means, with numbers."""
    runs = list(campaign.runs.filter(state__in=LIVE))
    counts = running.total_of(running.progress_of(runs).values())
    return Question(
        title=f"{what.capitalize()} “{campaign}”?",
        text=TEXTS[what],
        button={"pause": "Pause", "resume": "Resume", "cancel": "Cancel it for good"}[what],
        back=change_url(campaign),
        facts=(
            ("Runs that go on", f"{len(runs):,}"),
            ("Not sent yet", f"{counts.pending + counts.queued:,}"),
            ("Sent", f"{counts.sent:,}"),
        ),
        danger=what == "cancel",
    )


def clone_question(campaign: Campaign) -> Question:
    """A copy, and what it is."""
    return Question(
        title=f"Clone “{campaign}”?",
        text="Makes a new draft with the same content, audience, routing and schedule. Nothing is sent.",
        button="Clone",
        back=change_url(campaign),
    )
