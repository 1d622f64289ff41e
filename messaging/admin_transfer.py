"""Giving leads to other devices from the admin's list of leads."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import Count, F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget

from devices.admin_pages import confirmed
from devices.models import Device, Pool
from leads.admin_bulk import counted, form_page, one_owner, so_many
from leads.changes import Channel
from leads.models import Lead
from messaging import transferring


class TransferForm(forms.Form):
    """Where to, and what becomes of what waits."""

    device = forms.ChoiceField(widget=UnfoldAdminSelectWidget, label="To")
    waiting = forms.ChoiceField(
        choices=[("move", "Move along"), ("stay", "Stay with the old device")],
        initial="move",
        label="Messages that wait at the lead's own device",
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, *args: Any, devices: QuerySet[Device], pools: QuerySet[Pool], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        single = [(f"device {pk}", name) for pk, name in devices.order_by("name").values_list("pk", "name")]
        several = [(f"pool {pk}", f"{name}, by turns") for pk, name in pools.order_by("name").values_list("pk", "name")]
        cast("forms.ChoiceField", self.fields["device"]).choices = [("Devices", single), ("Pools", several)]

    def chosen(self) -> list[Device]:
        """The devices."""
        kind, _, pk = self.cleaned_data["device"].partition(" ")
        devices = Device.objects.defer("credentials").order_by("pk")
        return list(devices.filter(pk=pk) if kind == "device" else devices.filter(pool=pk, owner=F("pool__owner")))


class TransferMixin:
    """A list action of :class:`messaging.admin_replies.LeadWithReplies`."""

    @admin.action(description="Transfer the chosen leads to another device", permissions=["change"])
    def transfer_leads(self: Any, request: HttpRequest, queryset: QuerySet[Lead]) -> HttpResponse | None:
        """A form with counts; on yes, transfer."""
        number = counted(self, request, queryset)
        if number is None:
            return None
        owners = queryset.order_by().values("owner")
        devices = Device.objects.changeable_by(request.user).filter(owner__in=owners)
        pools = Pool.objects.changeable_by(request.user).filter(owner__in=owners)
        pools = pools.annotate(size=Count("devices")).filter(size__gt=0)
        form = TransferForm(request.POST if confirmed(request) else None, devices=devices, pools=pools)
        if form.is_valid() and one_owner(form, queryset, form.chosen()[0].pk):
            done = transferring.transfer(
                leads=queryset,
                devices=form.chosen(),
                move_messages=form.cleaned_data["waiting"] == "move",
                channel=Channel.ADMIN,
                by=cast("User", request.user),
                now=timezone.now(),
            )
            text = f"{so_many(done.leads)} moved to another device, and {done.messages:,} waiting messages with them."
            self.message_user(request, text, messages.SUCCESS)
            return None
        told = transferring.outlook(leads=queryset, devices=[])
        facts = (
            ("Leads", f"{number:,}"),
            ("Waiting messages that can move along", f"{told.messages:,}"),
            ("Messages that stay (on their way, in doubt, or of a pool)", f"{told.stay:,}"),
        )
        return form_page(
            self, request, form=form, action="transfer_leads", title=f"Transfer {so_many(number)}",
            button=f"Transfer {so_many(number)}", facts=facts,
        )  # fmt: skip
