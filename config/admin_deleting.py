"""The admin's pages that delete a device, a lead or a file: they say what goes along before, and what went after."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget

from config import deleting
from devices.admin_pages import Question, ask, change_url, confirmed, list_url, page, visible_or_404
from devices.admin_text import many
from devices.models import Device
from leads.models import Lead
from messaging.media.models import MediaFile
from messaging.removing import RemovalRefused


class DeviceDeletionForm(forms.Form):
    """What becomes of the leads, and how many messages the person has been told of."""

    leads = forms.ChoiceField(
        choices=[("keep", "They stay, without a device"), ("delete", "They are deleted as well")],
        label="Leads of this device",
        initial="keep",
        widget=UnfoldAdminSelectWidget,
    )
    expect = forms.IntegerField(widget=forms.HiddenInput)


class DeviceDeletion:
    """Mixed into whatever admin devices have."""

    def delete_view(self: Any, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Ask, with counts; on yes, delete everything in one transaction."""
        device: Device = visible_or_404(self, request, object_id)
        if not self.has_delete_permission(request, device):
            raise PermissionDenied
        told = deleting.device_holds(device)
        form = DeviceDeletionForm(request.POST if confirmed(request) else None, initial={"expect": told.messages})
        if form.is_valid():
            try:
                gone = deleting.delete_device(
                    device=device,
                    expect=form.cleaned_data["expect"],
                    with_leads=form.cleaned_data["leads"] == "delete",
                    by=cast("User", request.user),
                    now=timezone.now(),
                )
            except RemovalRefused as refused:
                self.message_user(request, refused.text, messages.ERROR)
                return redirect(request.get_full_path())
            replies = "1 reply" if gone.replies == 1 else f"{gone.replies:,} replies"
            text = f"{device} is deleted, with {many(gone.messages, 'message')} and {replies}."
            self.message_user(request, text, messages.SUCCESS)
            return redirect(list_url(Device))
        context = {
            "form": form,
            "form_media": form.media,
            "facts": (
                ("Leads", f"{told.leads:,}"),
                ("Messages that are deleted", f"{told.messages:,}"),
                ("Of these, not sent yet", f"{told.waiting:,}"),
                ("Replies that are deleted", f"{told.replies:,}"),
            ),
            "warnings": ("Reports lose what this device has sent. To keep it, pause the device instead.",)
            if told.messages
            else (),
            "hidden": (("confirmed", "yes"),),
            "button": "Delete for good",
            "danger": True,
            "back": change_url(device),
            "original": device,
        }
        template = "admin/leads/bulk_form.html"
        return page(request, model_admin=self, template=template, title=f"Delete {device}?", context=context)


class LeadDeletion:
    """Mixed into whatever admin leads have."""

    def delete_view(self: Any, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Ask, with counts; on yes, delete."""
        lead: Lead = visible_or_404(self, request, object_id)
        if not self.has_delete_permission(request, lead):
            raise PermissionDenied
        if not confirmed(request):
            told = deleting.lead_holds(lead)
            question = Question(
                title=f"Delete {lead}?",
                text="The lead goes with its history and its places in sequences. Messages and replies stay, without"
                " it. That somebody opted out is kept. To remove a person's traces everywhere, erase them instead.",
                button="Delete for good",
                back=change_url(lead),
                facts=(
                    ("Number", lead.phone),
                    ("Messages that stay", f"{told.messages:,}"),
                    ("Of these, not sent yet", f"{told.waiting:,}"),
                    ("Replies that stay", f"{told.replies:,}"),
                    ("Places in sequences", f"{told.enrolments:,}"),
                    ("Entries of consent and changes", f"{told.consent + told.changes:,}"),
                ),
                danger=True,
            )
            return ask(request, model_admin=self, question=question, obj=lead)
        self.log_deletions(request, [lead])
        deleting.delete_lead(lead=lead, now=timezone.now())
        self.message_user(request, f"{lead} is deleted.", messages.SUCCESS)
        return redirect(list_url(Lead))


class MediaDeletion:
    """Mixed into whatever admin files have."""

    def delete_view(self: Any, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Ask; on yes, delete, unless it is still to be sent."""
        media: MediaFile = visible_or_404(self, request, object_id)
        if not self.has_delete_permission(request, media):
            raise PermissionDenied
        if not confirmed(request):
            question = Question(
                title=f"Delete {media}?",
                text="What was sent with it stays sent. It cannot go while a campaign, a step of a sequence or a"
                " waiting message names it; a failed message that is retried later fails again without it.",
                button="Delete for good",
                back=change_url(media),
                danger=True,
            )
            return ask(request, model_admin=self, question=question, obj=media)
        try:
            deleting.delete_media(media=media, by=cast("User", request.user))
        except RemovalRefused as refused:
            self.message_user(request, refused.text, messages.ERROR)
            return redirect(change_url(media))
        self.message_user(request, f"{media} is deleted.", messages.SUCCESS)
        return redirect(list_url(MediaFile))


def _with(deletion: type, model: type[Any]) -> None:
    """Give ``model``'s admin, whichever app has the last word on it, this page."""
    registered = type(admin.site.get_model_admin(model))
    admin.site.unregister(model)
    admin.site.register(model, type(registered.__name__, (deletion, registered), {"__module__": __name__}))


_with(DeviceDeletion, Device)
_with(LeadDeletion, Lead)
_with(MediaDeletion, MediaFile)
