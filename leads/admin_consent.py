"""What the admin does about refusals, reviews and waivers of consent. Nothing of it is typed into a lead's form."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from devices.access import Role, may_change, role_of
from devices.admin_base import OwnedAdmin
from devices.admin_pages import Question, ask, back_to, change_url, confirmed, list_url, page, visible_or_404
from devices.admin_text import NOTHING, exact
from leads import consent, optout
from leads.models import ConsentEvent, ConsentWaiver, Lead

ADMIN = ConsentEvent.Channel.ADMIN
MOST = 1000
"""Leads per list action: each is a transaction of its own."""


class OptInForm(forms.Form):
    """What makes it consent."""

    source = forms.CharField(
        max_length=optout.REPLY_LENGTH,
        label="Consent",
        help_text="Where and how they agreed again. Without it there is nothing to show to anybody who asks.",
        widget=UnfoldAdminTextInputWidget,
    )


class ConsentMixin:
    """Buttons and list actions of :class:`leads.admin.LeadAdmin`."""

    def has_decide_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may change leads."""
        return may_change(request.user)

    def consent_actions(self, request: HttpRequest, object_id: str) -> set[str]:
        """Names of the buttons that make sense for this lead as it is."""
        lead = Lead.objects.changeable_by(request.user).filter(pk=object_id).first()
        if lead is None:
            return set()
        if lead.opted_out_at is not None:
            return {"opt_in", "erase"}
        if lead.review_at is not None:
            return {"opt_out", "dismiss_review", "erase"}
        return {"opt_out", "erase"}

    @display(description="History")
    def consent_history(self, lead: Lead) -> SafeString:
        """Where, when and how they agreed and refused, newest first."""
        if not lead.pk:
            return NOTHING
        lines = (
            (
                exact(entry.happened_at),
                entry.kind.label,
                " · ".join(filter(None, (entry.channel.label, entry.by))),
                entry.source,
            )
            for entry in consent.history(lead)
        )
        joined = format_html_join("", '<li>{} <b>{}</b> ({}) <bdi dir="auto">{}</bdi></li>', lines)
        return format_html("<ul>{}</ul>", joined) if joined else NOTHING

    @action(description="Opt out", icon="block", permissions=["decide"])
    def opt_out(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """They refuse; on yes nothing is claimed for them any more."""
        lead: Lead = visible_or_404(self, request, object_id)
        if not confirmed(request):
            question = Question(
                title=f"Opt {lead} out?",
                text="Nothing is sent to this number from now on, also when the lead is deleted or imported again.",
                button="Opt out",
                back=change_url(lead),
                facts=_facts(lead),
                danger=True,
            )
            return ask(request, model_admin=self, obj=lead, question=question)
        optout.opt_out(lead=lead, channel=ADMIN, now=timezone.now(), by=_user(request), source="By hand")
        _say(self, request, f"{lead} is opted out.")
        return back_to(lead)

    @action(description="Opt in again", icon="how_to_reg", permissions=["decide"])
    def opt_in(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """They agree again: asks where and how."""
        lead: Lead = visible_or_404(self, request, object_id)
        form = OptInForm(request.POST or None)
        if form.is_valid():
            optout.opt_in(
                lead=lead, channel=ADMIN, source=form.cleaned_data["source"], now=timezone.now(), by=_user(request)
            )
            _say(self, request, f"{lead} may be written to again.")
            return back_to(lead)
        return page(
            request,
            model_admin=self,
            template="admin/leads/opt_in_form.html",
            title=f"Opt {lead} in again",
            context={"form": form, "back": change_url(lead), "form_media": form.media, "original": lead},
        )

    @action(description="No refusal", icon="task_alt", permissions=["decide"])
    def dismiss_review(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A person has read it: go on."""
        lead: Lead = visible_or_404(self, request, object_id)
        if not confirmed(request):
            question = Question(
                title=f"Go on writing to {lead}?",
                text="What they wrote was no refusal. Messages that wait for this go on within minutes.",
                button="Go on",
                back=change_url(lead),
                facts=_facts(lead),
            )
            return ask(request, model_admin=self, obj=lead, question=question)
        optout.dismiss_review(lead=lead, channel=ADMIN, now=timezone.now(), by=_user(request))
        _say(self, request, f"{lead} may be written to.")
        return back_to(lead)

    @action(description="Erase", icon="person_remove", permissions=["decide"])
    def erase(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """To the page that asks: messages are stripped too, so it is theirs."""
        return redirect("admin:messaging_erase_lead", object_id=visible_or_404(self, request, object_id).pk)

    @admin.action(description="Opt the chosen leads out", permissions=["decide"])
    def opt_out_leads(self, request: HttpRequest, queryset: QuerySet[Lead]) -> HttpResponse | None:
        """The same for several; also what accepts reviews."""
        return self._decide(request, queryset, name="opt_out_leads", title="Opt {} leads out?", button="Opt out")

    @admin.action(description="Review: the chosen leads did not refuse", permissions=["decide"])
    def dismiss_reviews(self, request: HttpRequest, queryset: QuerySet[Lead]) -> HttpResponse | None:
        """The same for several."""
        held = queryset.filter(review_at__isnull=False)
        return self._decide(request, held, name="dismiss_reviews", title="Go on with {} leads?", button="Go on")

    def _decide(
        self, request: HttpRequest, queryset: QuerySet[Lead], *, name: str, title: str, button: str
    ) -> HttpResponse | None:
        leads = list(queryset.order_by("pk")[:MOST])
        if not confirmed(request):
            question = Question(
                title=title.format(f"{len(leads):,}"),
                text=f"At most {MOST:,} at a time."
                if len(leads) == MOST
                else "One by one; it can be read in each history.",
                button=button if leads else "",
                back=list_url(Lead),
                facts=tuple((str(lead), said) for lead in leads[:50] if (said := _said(lead))),
                hidden=(("action", name), *(("_selected_action", str(lead.pk)) for lead in leads)),
                danger=name == "opt_out_leads",
            )
            return ask(request, model_admin=self, question=question)
        now, by = timezone.now(), _user(request)
        for lead in leads:
            if name == "opt_out_leads":
                optout.opt_out(lead=lead, channel=ADMIN, now=now, by=by, source="By hand")
            else:
                optout.dismiss_review(lead=lead, channel=ADMIN, now=now, by=by)
        _say(self, request, f"{len(leads):,} leads: done.")
        return None


def _facts(lead: Lead) -> tuple[tuple[str, Any], ...]:
    said = _said(lead)
    return (
        ("Number", lead.phone),
        ("Consent", lead.consent_source or "None on record"),
        *((("They wrote", said),) if said else ()),
    )


def _said(lead: Lead) -> str:
    """What made it a case for review."""
    if lead.review_at is None:
        return ""
    held = lead.consent_events.filter(kind=ConsentEvent.Kind.HELD).order_by("-id").first()
    return held.source if held else ""


def _user(request: HttpRequest) -> User:
    return cast("User", request.user)


def _say(model_admin: Any, request: HttpRequest, text: str) -> None:
    model_admin.message_user(request, text, messages.SUCCESS)


# -- Waivers -----------------------------------------------------------------------------------------------------------


class WaiverForm(forms.ModelForm):
    """For whose leads, and on what ground."""

    class Meta:
        model = ConsentWaiver
        fields = ["owner", "reason"]

    def clean(self) -> dict[str, Any]:
        """One in force for the same leads at a time."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        in_force = ConsentWaiver.objects.filter(owner=cleaned.get("owner"), ended_at__isnull=True)
        if in_force.exists():
            raise ValidationError("There is one in force for these leads: end it first.", code="in_force")
        return cleaned


@admin.register(ConsentWaiver)
class WaiverAdmin(OwnedAdmin):
    """Decisions that bulk sends may do without recorded consent. Rows are made and ended, never edited or deleted."""

    form = WaiverForm  # type: ignore[assignment]
    list_display = ("reason", "scope", "state_label", "made_by", "made_at", "ended_by", "ended_at")
    list_select_related = ("owner", "made_by", "ended_by")
    search_fields = ("reason",)
    search_help_text = "Words of the reason"
    empty_hint = (
        "Bulk goes to leads who agreed to hear from you. Where that is recorded elsewhere, an admin decides so here, "
        "with a reason, and ends it again."
    )
    fieldsets = ((None, {"fields": ["owner", "reason"]}),)
    actions_detail = ("end_waiver",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Admins decide."""
        return role_of(request.user) is Role.ADMIN

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What was decided, and why, stays as it was."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The same."""
        return False

    def has_end_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may begin may end."""
        return role_of(request.user) is Role.ADMIN

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Only new ones come here."""
        made = consent.waive(owner=obj.owner, reason=obj.reason, by=_user(request), now=timezone.now())
        obj.pk = made.pk

    @display(description="Whose leads")
    def scope(self, waiver: ConsentWaiver) -> str:
        """One person's, or everybody's."""
        return str(waiver.owner) if waiver.owner else "Everybody's"

    @display(description="State", label={"in_force": "warning", "ended": "default"})
    def state_label(self, waiver: ConsentWaiver) -> tuple[str, str]:
        """Whether it still counts."""
        return ("ended", "Ended") if waiver.ended_at else ("in_force", "In force")

    @action(description="End it", icon="event_busy", permissions=["end"])
    def end_waiver(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """From now on consent is needed again."""
        waiver: ConsentWaiver = visible_or_404(self, request, object_id)
        if not confirmed(request):
            question = Question(
                title="End this waiver?",
                text="Campaigns launched from now on leave out leads without recorded consent again.",
                button="End it" if waiver.ended_at is None else "",
                back=change_url(waiver),
                facts=(("Reason", waiver.reason), ("Made by", str(waiver.made_by))),
            )
            return ask(request, model_admin=self, obj=waiver, question=question)
        consent.end_waiver(waiver=waiver, by=_user(request), now=timezone.now())
        return back_to(waiver)
