"""A campaign's form in five steps, of which the last says what a launch of what is typed would come to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, JsonResponse
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from campaigns import services
from campaigns.admin_words import outlook, problems_of
from campaigns.checks import OF_CONTENT
from campaigns.models import Campaign, Variant
from campaigns.services import Problem
from campaigns.states import CampaignState
from devices.admin_base import OwnedForm
from devices.admin_guide import GuideMixin, Step
from devices.admin_pages import visible_or_404

STEPS = (
    Step("who", "Who", "What to call the campaign, and whom it speaks to.", (None, "Audience")),
    Step("what", "What", "What everybody gets, or what each part of them gets.", ("Content",), ("variants",)),
    Step("when", "When", "At once, at a time, or again and again.", ("Schedule",)),
    Step("pace", "How fast", "Which devices send it, in which rhythm, and when it stops by itself.",
         ("Routing and pacing",)),
    Step("check", "Check", "What a launch would do. Saving sends nothing: the launch asks once more."),
)  # fmt: skip
MAY_WAIT = frozenset({"text", "media", "template"})
"""What a draft may still lack."""
OF_NO_ACCOUNT = OF_CONTENT | {"name"}
"""Fields whose problems leave it known whom a launch would reach, and when."""
BEFORE = {
    "before": "Save it, then press Launch: what stands in the way is named, and what will happen is shown, before"
    " anything is sent."
}


class CampaignForm(OwnedForm):
    """A draft is stored at any step: what it will say may come later. The launch takes nothing that is not complete."""

    class Meta:
        labels = {
            "triggers": "Trigger tags",
            "lead_device": "Leads of the device",
            "content_type": "Kind",
            "on_missing": "Where a value is missing",
            "delay_min_seconds": "Shortest pause, in seconds",
            "delay_max_seconds": "Longest pause, in seconds",
            "expires_after_days": "Give up after, in days",
            "pause_at_percent": "Stop at, in percent failed",
            "pause_window_minutes": "Of the last, in minutes",
            "pause_min_calls": "And at least, in calls",
            "scheduled_at": "At",
            "catch_up": "What was missed",
        }
        help_texts = {
            "delay_min_seconds": "Between two messages of one device. A device's own rhythm may be slower.",
            "expires_after_days": "What is not sent by then expires.",
            "status": "Empty: prospects and customers. People who opted out are in none.",
        }

    def _post_clean(self) -> None:
        unreadable = set(self.errors)
        super()._post_clean()  # type: ignore[misc]
        if self.instance.state == CampaignState.DRAFT:
            for name in (MAY_WAIT & self.errors.keys()) - unreadable:
                if not getattr(self.instance, name):
                    del self.errors[name]


class CampaignGuide(GuideMixin):
    """Of :class:`campaigns.admin.CampaignAdmin`."""

    guide = STEPS
    guide_done = "Save and go to the launch"

    def get_urls(self: Any) -> list[URLPattern]:
        """Of campaigns that exist and of those that are being written."""
        view = self.admin_site.admin_view(require_POST(self.check_view))
        return [
            path("check/", view, name="campaigns_campaign_check_new"),
            path("<int:object_id>/check/", view, name="campaigns_campaign_check"),
            *super().get_urls(),  # type: ignore[misc]
        ]

    def guide_aside(self: Any, obj: Any) -> SafeString:
        """The message on a phone."""
        preview: SafeString = self.message_preview(obj or Campaign())
        return preview

    def guide_check(self, obj: Any) -> dict[str, Any]:
        """Filled in by the page's own script."""
        name = "admin:campaigns_campaign_check"
        return {**BEFORE, "url": reverse(name, args=[obj.pk]) if obj else reverse(f"{name}_new")}

    def guide_next(self, obj: Any) -> str:
        """The question that the launch asks."""
        return reverse("admin:campaigns_campaign_launch_campaign", args=[obj.pk])

    def check_view(self: Any, request: HttpRequest, object_id: int | None = None) -> JsonResponse:
        """``{"html", "steps", "ready"}``: what a launch of the form as it stands would come to. Nothing is saved."""
        stored = visible_or_404(self, request, str(object_id)) if object_id is not None else None
        if not (self.has_change_permission(request, stored) if stored else self.has_add_permission(request)):
            raise PermissionDenied
        form = self.get_form(request, stored, change=stored is not None)(request.POST, instance=stored)
        campaign: Campaign = form.instance
        found = [Problem(name, "invalid", text) for name, texts in form.errors.items() for text in texts]
        variants, wrong = self._typed_variants(request, campaign)
        found += wrong
        named = {problem.field for problem in found}
        now = timezone.now()
        if campaign.owner_id is not None:
            checked = services.check(campaign=campaign, now=now, variants=variants)
            found += [problem for problem in checked if problem.field not in named]
        steps = self.guide_step_of(request, stored)
        check: dict[str, Any] = {
            **BEFORE,
            "stops": "Before it can be launched",
            "ready": "Ready to be launched",
            "problems": [
                {"text": text, "step": steps.get(problem.field, ""), "field": problem.field}
                for problem, text in zip(found, problems_of(services.CampaignNotReady(found)), strict=True)
            ],
        }
        if campaign.owner_id is not None and {problem.field for problem in found} <= OF_NO_ACCOUNT:
            seen = outlook(campaign, variants=variants, seen=services.preview(campaign, now=now), now=now)
            check |= {"facts": seen.facts, "warnings": seen.warnings}
        return JsonResponse(
            {
                "html": render_to_string("admin/guide_check.html", {"check": check}),
                "steps": _states(steps, found),
                "ready": not found,
            }
        )

    def _typed_variants(self: Any, request: HttpRequest, campaign: Campaign) -> tuple[list[Variant], list[Problem]]:
        """The variants as they are typed, and what is wrong with them."""
        variants, wrong = [], []
        for made, inline in self.get_formsets_with_inlines(request, campaign if campaign.pk else None):
            prefix = made.get_default_prefix()
            rows = made(data=request.POST, instance=campaign, prefix=prefix, queryset=inline.get_queryset(request))
            for form in rows.forms:
                fits = form.is_valid()
                if rows._should_delete_form(form) or not (form.has_changed() or form.instance.pk):  # noqa: SLF001
                    continue
                if fits:
                    variants.append(form.instance)
                    continue
                texts = (str(text) for each in form.errors.values() for text in each)
                wrong += [Problem(prefix, "invalid", f"{form.instance}: {text}") for text in texts]
        return variants, wrong


def _states(steps: dict[str, str], found: Iterable[Problem]) -> dict[str, str]:
    """Which steps lack something. What belongs to no field is the last one's, which is as ready as all of it."""
    lacking = {steps.get(problem.field, STEPS[-1].key) for problem in found}
    if lacking:
        lacking.add(STEPS[-1].key)
    return {step.key: "todo" if step.key in lacking else "ready" for step in STEPS}
