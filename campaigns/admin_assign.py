"""Giving a run's unassigned leads to devices, in the admin."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action
from unfold.widgets import UnfoldAdminSelectWidget

from campaigns import routing
from campaigns.models import Run, Unassigned
from devices.admin_pages import back_to, change_url, confirmed, page, visible_or_404
from devices.models import Device, Pool

SHOWN = 100


class AssignForm(forms.Form):
    """Where to."""

    device = forms.ChoiceField(widget=UnfoldAdminSelectWidget, label="To")

    def __init__(self, *args: Any, owner_id: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        devices = Device.objects.filter(owner_id=owner_id).able().order_by("name")
        pools = Pool.objects.filter(owner_id=owner_id).order_by("name")
        single = [(f"device {pk}", name) for pk, name in devices.values_list("pk", "name")]
        several = [(f"pool {pk}", f"{name}, by turns") for pk, name in pools.values_list("pk", "name")]
        cast("forms.ChoiceField", self.fields["device"]).choices = [("Devices", single), ("Pools", several)]

    def chosen(self) -> list[Device]:
        """The connected devices."""
        kind, _, pk = self.cleaned_data["device"].partition(" ")
        able = Device.objects.able().defer("credentials").order_by("pk")
        return list(able.filter(pk=pk) if kind == "device" else able.filter(pool=pk))


class AssignMixin:
    """An action of :class:`campaigns.admin_runs.RunAdmin`'s page."""

    @action(description="Unassigned leads", icon="person_add", permissions=["operate"])
    def assign_run(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """The leads that no device took, and where to give them."""
        run: Run = visible_or_404(self, request, object_id)
        form = AssignForm(request.POST if confirmed(request) else None, owner_id=run.campaign.owner_id)
        if form.is_valid():
            try:
                made = routing.assign(run=run, devices=form.chosen())
            except routing.NotTransferable as refused:
                form.add_error("device", ValidationError(refused.text))
            else:
                self.log_change(request, run, f"{made:,} unassigned leads given to {form.cleaned_data['device']}.")
                self.message_user(request, f"{made:,} unassigned leads have a message now.", messages.SUCCESS)
                return back_to(run)
        found = Unassigned.objects.filter(run=run).select_related("lead").order_by("lead_id")
        context = {
            "run": run,
            "original": run,
            "form": form,
            "leads": [each.lead for each in found[:SHOWN]],
            "shown": SHOWN,
            "back": change_url(run),
        }
        title = f"Unassigned leads of “{run}”"
        return page(request, model_admin=self, template="admin/campaigns/assign.html", title=title, context=context)
