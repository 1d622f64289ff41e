"""The admin's page that makes two leads one; the way to it is an action of the list of leads."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget

from config import merging
from devices.access import may_change
from devices.admin_pages import change_url, list_url, page
from leads.changes import Channel
from leads.merging import MergeRefused
from leads.models import Lead, LeadStatus


class MergeForm(forms.Form):
    """Who stays."""

    survivor = forms.ChoiceField(label="Who stays, with their number", widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, pair: list[Lead], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(str(lead.pk), f"{lead.name or '–'} {lead.phone}") for lead in pair]
        cast("forms.ChoiceField", self.fields["survivor"]).choices = choices


def merge_view(request: HttpRequest, first: int, second: int) -> HttpResponse:
    """What would become of them; on yes, merge."""
    if not may_change(request.user):
        raise PermissionDenied
    mine = Lead.objects.changeable_by(request.user)
    pair = [get_object_or_404(mine, pk=first), get_object_or_404(mine, pk=second)]
    model_admin: Any = admin.site.get_model_admin(Lead)
    form = MergeForm(request.POST if request.method == "POST" else None, pair=pair)
    try:
        told = merging.outlook(survivor=pair[0], other=pair[1])
        if form.is_valid():
            survivor, other = pair if form.cleaned_data["survivor"] == str(first) else pair[::-1]
            merging.merge(
                survivor=survivor,
                other=other,
                by=cast("User", request.user),
                channel=Channel.ADMIN,
                now=timezone.now(),
            )
            model_admin.message_user(request, f"Merged into {survivor}.", messages.SUCCESS)
            return redirect(change_url(survivor))
    except MergeRefused as refused:
        model_admin.message_user(request, refused.text, messages.ERROR)
        return redirect(list_url(Lead))
    columns = told.columns
    over = f"{told.messages:,} messages, {told.replies:,} replies, {told.enrolments:,} enrolments"
    facts = (
        *((f"Lead {lead.pk}", f"{lead.name or '–'}, {lead.phone}") for lead in pair),
        ("Together: name", columns["name"] or "–"),
        ("Status", LeadStatus(columns["status"]).label),
        ("Tags", ", ".join([*columns["niches"], *columns["triggers"]]) or "–"),
        ("Opted out", "Yes, both numbers" if columns["opted_out_at"] else "No"),
        ("Consent", columns["consent_source"] or "–"),
        (f"What comes over if {pair[0].pk} stays", over),
    )  # fmt: skip
    context = {
        "form": form,
        "facts": facts,
        "button": "Merge for good",
        "back": list_url(Lead),
        "hidden": (),
        "danger": True,
    }
    return page(
        request,
        model_admin=model_admin,
        template="admin/leads/bulk_form.html",
        title="Merge two leads",
        context={**context, "form_media": form.media},
    )
