"""Campaigns and their runs in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from campaigns import planning, services
from campaigns.admin_guide import CampaignForm, CampaignGuide
from campaigns.admin_operating import OperateMixin, shut_actions
from campaigns.admin_pages import LookMixin
from campaigns.admin_runs import RunAdmin
from campaigns.admin_words import (
    LAUNCHED,
    campaign_words,
    launch_many_question,
    launch_question,
    launched,
    problems_of,
    state_words,
)
from campaigns.models import Campaign, CampaignState, Run, Schedule, Variant
from campaigns.running import progress_of
from campaigns.tasks import trigger
from devices.access import may_change
from devices.admin_base import OwnedAdmin, OwnedInline
from devices.admin_pages import ask, back_to, change_url, confirmed, list_url, visible_or_404
from devices.admin_text import label
from messaging.admin_preview import PreviewMixin
from messaging.admin_progress import bar

__all__ = ["CampaignAdmin", "RunAdmin"]


class StateFilter(DropdownFilter):
    """By state, in the words of the list."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The stored states, and launched."""
        return [*((state.value, str(state.label)) for state in CampaignState), ("launched", LAUNCHED)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Campaign]) -> QuerySet[Campaign]:
        """Campaigns in it."""
        state, gone = self.value(), launched(now=timezone.now())
        if state == "launched":
            return queryset.filter(gone)
        if state == CampaignState.SCHEDULED:
            return queryset.filter(~gone, state=state)
        return queryset.filter(state=state) if state in CampaignState.values else queryset


class VariantInline(OwnedInline):
    """Texts to try, each on its share of the audience."""

    model = Variant
    fields = ("name", "share", "text")
    verbose_name_plural = "variants (A/B): leave empty to send one text to everybody"


@admin.register(Campaign)
class CampaignAdmin(CampaignGuide, PreviewMixin, LookMixin, OperateMixin, OwnedAdmin):
    """What to send, to whom, and when."""

    class Media:
        js = ("flotilla/segment.js",)

    form = CampaignForm
    inlines = (VariantInline,)

    list_display = ("name", "state_label", "schedule", "last_run", "progress", "created_at")
    list_filter = (StateFilter, ("schedule", ChoicesDropdownFilter))
    search_fields = ("name",)
    search_help_text = "Name of the campaign"
    empty_hint = "A campaign says one thing to many leads: now, at a time, or by a schedule."
    autocomplete_fields = ("lead_device", "segment", "pool")
    readonly_fields = ("state_label", "launched_at", "schedule_words", "live_count")
    actions = ("launch_campaigns",)
    actions_list = ("open_calendar",)
    actions_detail = (
        *("launch_campaign", "preview_campaign", "pause_campaign", "resume_campaign"),
        *("clone_campaign", "cancel_campaign"),
    )
    fieldsets = (
        (None, {"fields": ["owner", "name", "state_label", "launched_at"]}),
        (
            "Audience",
            {
                "fields": ["segment", "status", "niches", "triggers", "lead_device", "live_count"],
                "description": "Leads who agreed to hear from you and have not opted out. Separate tags with commas.",
            },
        ),
        ("Content", {"fields": ["content_type", "text", "media", "template", ("greeting", "on_missing")]}),
        ("Schedule", {"fields": ["schedule", "scheduled_at", "cron", "time_zone", "catch_up", "schedule_words"]}),
        (
            "Routing and pacing",
            {
                "fields": [
                    *("routing", "pool", "limit_per_device", ("delay_min_seconds", "delay_max_seconds")),
                    *("expires_after_days", ("pause_at_percent", "pause_window_minutes", "pause_min_calls")),
                ]
            },
        ),
    )
    conditional_fields = {
        # On a page that can only be read there is nothing to choose from, and everything is shown.
        "pool": "typeof routing === 'undefined' || routing == 'pooled'",
        "limit_per_device": "typeof routing === 'undefined' || routing == 'pooled'",
        "media": "typeof content_type === 'undefined' || !['text', 'template'].includes(content_type)",
        "template": "typeof content_type === 'undefined' || content_type == 'template'",
        "catch_up": "typeof schedule === 'undefined' || schedule != 'now'",
        "scheduled_at": "typeof schedule === 'undefined' || schedule == 'at'",
        "cron": "typeof schedule === 'undefined' || schedule == 'cron'",
        "time_zone": "typeof schedule === 'undefined' || schedule != 'now'",
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[Campaign]:
        """With what the list and the page show."""
        return super().get_queryset(request).select_related("owner")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[tuple[str | None, dict[str, Any]]]:
        """A campaign has no state before it exists. Where nothing can be chosen, what was not chosen is left out."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None:
            hidden = {"state_label", "launched_at", "schedule_words"}
        elif not self.has_change_permission(request, obj):
            hidden = {"live_count", *(name for name in self.conditional_fields if not getattr(obj, name))}
        else:
            return fieldsets
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name not in hidden]})
            for title, options in fieldsets
        ]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A one-off that was launched is what it was: cloning makes another."""
        gone = isinstance(obj, Campaign) and obj.launched_at is not None and obj.schedule != Schedule.CRON
        return super().has_change_permission(request, obj) and not gone

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only drafts: what was sent keeps its history."""
        sent = isinstance(obj, Campaign) and obj.runs.exists()
        return super().has_delete_permission(request, obj) and not sent

    def has_launch_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Launching and cloning change no row that was locked."""
        return may_change(request.user)

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[Any]:
        """No launching what was launched, no resuming what goes on."""
        found = super().get_actions_detail(request, object_id)
        if not str(object_id).isdecimal() or (campaign := Campaign.objects.filter(pk=object_id).first()) is None:
            return found
        shut = set(shut_actions(campaign))
        return [action for action in found if not any(action.action_name.endswith(f"_{name}") for name in shut)]

    def attach(self, request: HttpRequest, rows: list[Campaign]) -> None:
        """The last run of every campaign on this page, and how far its batch is: three queries."""
        runs = (
            Run.objects.filter(campaign__in=[campaign.pk for campaign in rows])
            .order_by("campaign_id", "-id")
            .distinct("campaign_id")
            .select_related("batch")
            .defer("batch__content", "audience", "left_out")
        )
        last = {run.campaign_id: run for run in runs}
        counts = progress_of(last.values())
        for campaign in rows:
            run = last.get(campaign.pk)
            campaign.last = run  # type: ignore[attr-defined]
            campaign.counts = counts[run.pk] if run and run.batch_id else None  # type: ignore[attr-defined]

    @display(description="State", ordering="state")
    def state_label(self, campaign: Any) -> SafeString:
        """The state, coloured. A list has looked up the last run; a page has not."""
        run = campaign.last if hasattr(campaign, "last") else campaign.runs.order_by("-id").first()
        words, colour = campaign_words(campaign, run=run, now=timezone.now())
        return label(words, colour=colour)

    @display(description="Last run")
    def last_run(self, campaign: Any) -> SafeString | str:
        """Its state, as a link to it."""
        run: Run | None = campaign.last
        if run is None:
            return "–"
        return format_html('<a class="fl-link" href="{}">{}</a>', change_url(run), state_words(run))

    @display(description="Progress")
    def progress(self, campaign: Any) -> SafeString | str:
        """How far the last run is."""
        return bar(campaign.counts) if campaign.counts is not None else "–"

    @display(description="In words")
    def schedule_words(self, campaign: Campaign) -> str:
        """The schedule, and what comes next."""
        return planning.words(campaign, now=timezone.now())

    @action(description="Launch", icon="rocket_launch", permissions=["launch"], variant=ActionVariant.PRIMARY)
    def launch_campaign(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what will happen; on yes, launch and open the run."""
        campaign = visible_or_404(self, request, object_id)
        if not confirmed(request):
            return ask(request, model_admin=self, obj=campaign, question=launch_question(campaign))
        run = self._launch(request, campaign)
        return back_to(run) if run is not None else back_to(campaign)

    @admin.action(description="Launch the chosen campaigns", permissions=["launch"])
    def launch_campaigns(self, request: HttpRequest, queryset: QuerySet[Campaign]) -> HttpResponse | None:
        """The same for several."""
        campaigns = list(queryset.order_by("pk")[:100])
        if not confirmed(request):
            question = launch_many_question(campaigns, back=list_url(Campaign))
            return ask(request, model_admin=self, question=question)
        for campaign in campaigns:
            self._launch(request, campaign)
        return None

    def _launch(self, request: HttpRequest, campaign: Campaign) -> Run | None:
        """Launch one campaign and say what came of it; the worker is called after the commit."""
        now = timezone.now()
        try:
            with transaction.atomic():
                started = services.start(campaign=campaign, now=now)
                run = started.run
                if started.created:
                    self.log_change(request, campaign, "Launched.")
                if run is not None and started.created and run.planned_at <= now:
                    transaction.on_commit(lambda: trigger.delay(run_id=run.pk), robust=True)
        except services.CampaignNotReady as problem:
            for text in problems_of(problem):
                self.message_user(request, f"“{campaign}” was not launched. {text}", messages.ERROR)
            return None
        if not started.created:
            what = "this is its run" if run is not None else "it runs by its schedule"
            self.message_user(request, f"“{campaign}” had been launched already; {what}.", messages.INFO)
        elif run is None or run.planned_at > now:
            words = planning.words(campaign, now=now)
            self.message_user(request, f"“{campaign}” is scheduled: {words}.", messages.SUCCESS)
        else:
            self.message_user(request, f"“{campaign}” was launched.", messages.SUCCESS)
        return run
