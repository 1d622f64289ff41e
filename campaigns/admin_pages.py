"""Looking at a campaign in the admin: what its leads would read, how many they are, and the calendar of runs."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from campaigns import calendar, services, trying
from campaigns.admin_words import left_out_words
from campaigns.models import Campaign
from devices.access import AnyUser, Role, role_of
from devices.admin_pages import change_url, confirmed, list_url, page, visible_or_404
from devices.models import Device, Pool
from leads.cells import tags_of
from leads.models import Lead, LeadStatus, Segment
from messaging.services import SendRefused

DAYS_BEFORE, DAYS_AHEAD = 7, 27
LEADS_OFFERED = 50


class TryForm(forms.Form):
    """Whom to show it as, and a number to send it to."""

    lead = forms.ChoiceField(required=False, label="As this lead would read it", widget=UnfoldAdminSelectWidget)
    phone = forms.CharField(
        required=False, max_length=40, label="Send a test to this number", widget=UnfoldAdminTextInputWidget
    )
    variant = forms.ChoiceField(required=False, label="Variant to test", widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, campaign: Campaign, chosen: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        found = Lead.objects.filter(owner=campaign.owner_id).order_by("pk")
        offered = dict(found.values_list("pk", "name")[:LEADS_OFFERED])
        if chosen.isascii() and chosen.isdigit() and len(chosen) < 19:
            offered |= dict(found.filter(pk=chosen).values_list("pk", "name"))
        lead = cast("forms.ChoiceField", self.fields["lead"])
        lead.choices = [
            ("", "The first that would be reached"),
            *((str(k), name or f"#{k}") for k, name in offered.items()),
        ]
        variant = cast("forms.ChoiceField", self.fields["variant"])
        names = list(campaign.variants.values_list("name", flat=True))
        variant.choices = [("", "The campaign's own text"), *((name, name) for name in names)]
        if not names:
            del self.fields["variant"]


class AudienceForm(forms.Form):
    """What of a campaign's form decides whom it reaches; whatever else is posted is left alone."""

    status = forms.ChoiceField(required=False, choices=[("", ""), *LeadStatus.choices])
    niches = forms.CharField(required=False)
    triggers = forms.CharField(required=False)
    segment = forms.ModelChoiceField(queryset=Segment.objects.none(), required=False)
    lead_device = forms.ModelChoiceField(queryset=Device.objects.none(), required=False)
    pool = forms.ModelChoiceField(queryset=Pool.objects.none(), required=False)
    routing = forms.CharField(required=False)
    limit_per_device = forms.IntegerField(required=False, min_value=1)

    def __init__(self, *args: Any, user: AnyUser, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, model in (("segment", Segment), ("lead_device", Device), ("pool", Pool)):
            field = cast("forms.ModelChoiceField[Any]", self.fields[name])
            field.queryset = model.objects.changeable_by(user)

    def asked(self, owner_id: int) -> Campaign:
        """The campaign that these would make, as far as its audience goes. Never stored."""
        given = self.cleaned_data
        return Campaign(
            owner_id=owner_id,
            status=given["status"],
            niches=list(tags_of(given["niches"])),
            triggers=list(tags_of(given["triggers"])),
            segment=given["segment"],
            lead_device=given["lead_device"],
            pool=given["pool"],
            routing=given["routing"] or "own",
            limit_per_device=given["limit_per_device"],
        )


class LookMixin:
    """Pages and actions of :class:`campaigns.admin.CampaignAdmin`."""

    def get_urls(self: Any) -> list[URLPattern]:
        """Ours before Django's catch-all."""
        view = self.admin_site.admin_view
        return [
            path("count/", view(require_POST(self.count_view)), name="campaigns_campaign_count"),
            path("calendar/", view(self.calendar_view), name="campaigns_campaign_calendar"),
            *super().get_urls(),  # type: ignore[misc]
        ]

    @display(description="Reaches now")
    def live_count(self, campaign: Campaign) -> SafeString:
        """Filled in by the page's own script, and again whenever the form changes. A stored row's owner is no field."""
        whose = f"?owner={campaign.owner_id}" if campaign.pk else ""
        address = reverse("admin:campaigns_campaign_count")
        return format_html('<output data-count="{}{}" aria-live="polite">–</output>', address, whose)

    def count_view(self: Any, request: HttpRequest) -> JsonResponse:
        """``{"text"}``: whom what is typed would reach. Nothing is saved."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = AudienceForm(request.POST, user=request.user)
        if not form.is_valid():
            words = " ".join(
                f"{name.replace('_', ' ')}: {' '.join(map(str, texts))}" for name, texts in form.errors.items()
            )
            return JsonResponse({"text": words})
        chosen = request.POST.get("owner") or request.GET.get("owner", "")
        admin = role_of(request.user) is Role.ADMIN and chosen.isascii() and chosen.isdigit() and len(chosen) < 10
        seen = services.preview(form.asked(int(chosen) if admin else request.user.pk or 0))
        return JsonResponse({"text": count_words(seen)})

    @action(description="Preview and test", icon="visibility", permissions=["launch"])
    def preview_campaign(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """What a lead would read; on POST, one message to a number."""
        campaign = visible_or_404(self, request, object_id)
        chosen = request.POST.get("lead", request.GET.get("lead", ""))
        form = TryForm(
            request.POST if confirmed(request) else None, campaign=campaign, chosen=chosen, initial={"lead": chosen}
        )
        tests = form.is_valid() and form.cleaned_data["phone"]
        if tests and (answer := self._test(request, campaign, form)) is not None:
            return cast("HttpResponse", answer)
        lead = None
        if chosen.isascii() and chosen.isdigit() and len(chosen) < 19:
            lead = Lead.objects.changeable_by(request.user).filter(owner=campaign.owner_id, pk=chosen).first()
        context = {
            "campaign": campaign,
            "original": campaign,
            "form": form,
            "shown": trying.show(campaign=campaign, lead=lead, now=timezone.now()),
            "reader": lead or trying.some_lead(campaign, now=timezone.now()) or trying.SAMPLE,
            "back": change_url(campaign),
        }
        title = f"Preview of “{campaign}”"
        return page(request, model_admin=self, template="admin/campaigns/preview.html", title=title, context=context)

    def _test(self: Any, request: HttpRequest, campaign: Campaign, form: TryForm) -> HttpResponse | None:
        given = form.cleaned_data
        variant = campaign.variants.filter(name=given["variant"]).first() if given.get("variant") else None
        try:
            message = trying.send_test(campaign=campaign, phone=given["phone"], variant=variant, now=timezone.now())
        except SendRefused as refused:
            form.add_error("phone", ValidationError(refused.text))
            return None
        self.log_change(request, campaign, f"Test sent to lead {message.lead_id}.")
        self.message_user(request, f"A test is on its way through {message.device}.", messages.SUCCESS)
        return HttpResponseRedirect(change_url(message))

    @action(description="Calendar", icon="calendar_month", url_path="open-calendar")
    def open_calendar(self, request: HttpRequest) -> HttpResponse:
        """To the page of runs by day."""
        return HttpResponseRedirect(reverse("admin:campaigns_campaign_calendar"))

    def calendar_view(self: Any, request: HttpRequest) -> HttpResponse:
        """Five weeks of runs, from a week before the given day (today)."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        zone, now = timezone.get_current_timezone(), timezone.now()
        today = timezone.localdate(now)
        try:
            day = date.fromisoformat(request.GET.get("day", ""))
            first, last = day - timedelta(days=DAYS_BEFORE), day + timedelta(days=DAYS_AHEAD)
        except (ValueError, OverflowError):
            day, first, last = today, today - timedelta(days=DAYS_BEFORE), today + timedelta(days=DAYS_AHEAD)
        found = calendar.entries(user=request.user, first=first, last=last, zone=cast("Any", zone), now=now)
        context = {
            "days": calendar.by_day(found, first=first, last=last, zone=cast("Any", zone)),
            "today": today,
            "earlier": (day - timedelta(days=28)).isoformat(),
            "later": (day + timedelta(days=28)).isoformat(),
            "zone": str(zone),
            "back": list_url(Campaign),
        }
        return page(
            request,
            model_admin=self,
            template="admin/campaigns/calendar.html",
            title="Calendar of runs",
            context=context,
        )


def count_words(seen: services.Preview) -> str:
    """“12 of 15 leads through 2 connected devices (left out: 3 opted out)”."""
    left_out = f" (left out: {left_out_words(seen.left_out)})" if seen.left_out else ""
    rest = f"; {seen.unassigned:,} beyond the limit per device" if seen.unassigned else ""
    failing = f"; {seen.excluded:,} devices are failing and sit it out" if seen.excluded else ""
    devices = "1 connected device" if seen.devices == 1 else f"{seen.devices:,} connected devices"
    return f"{seen.eligible:,} of {seen.total:,} leads through {devices}{left_out}{rest}{failing}"
