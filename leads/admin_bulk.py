"""Editing many leads from the admin's list: a form, the number of leads, and yes."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from devices.admin_pages import CONFIRMED, confirmed, list_url, page
from devices.models import Device
from leads import bulk
from leads.cells import tags_of
from leads.changes import Channel
from leads.columns import KEY_LENGTH
from leads.models import Lead, LeadStatus

_TAGS = "Separate tags with commas."
NO_DEVICE = "none"


class _Tags(forms.CharField):
    """Tags with commas between them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, help_text=_TAGS, widget=UnfoldAdminTextInputWidget, **kwargs)

    def clean(self, value: Any) -> Any:
        """A tuple of tags."""
        tags = tags_of(super().clean(value))
        if any(len(tag) > 60 for tag in tags):
            raise forms.ValidationError("A tag has at most 60 characters.")
        return tags


class BulkForm(forms.Form):
    """What is to become of each lead. What is left empty stays."""

    status = forms.ChoiceField(
        choices=[("", "As it is"), *LeadStatus.choices], required=False, widget=UnfoldAdminSelectWidget
    )
    add_niches = _Tags()
    remove_niches = _Tags()
    add_triggers = _Tags()
    remove_triggers = _Tags()
    device = forms.ChoiceField(
        required=False, widget=UnfoldAdminSelectWidget, help_text="What waits stays with the old device: see transfer."
    )
    custom_name = forms.CharField(
        required=False, max_length=KEY_LENGTH, label="Own field", widget=UnfoldAdminTextInputWidget
    )
    custom_value = forms.CharField(
        label="What it becomes",
        required=False,
        max_length=1000,
        help_text="Empty removes the field.",
        widget=UnfoldAdminTextInputWidget,
    )

    def __init__(self, *args: Any, devices: QuerySet[Device], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(str(pk), name) for pk, name in devices.order_by("name").values_list("pk", "name")]
        field = cast("forms.ChoiceField", self.fields["device"])
        field.choices = [("", "As it is"), (NO_DEVICE, "None"), *choices]

    def clean_custom_name(self) -> str:
        """A name that a message can use."""
        name: str = self.cleaned_data["custom_name"].strip()
        if name and not name.isidentifier():
            raise forms.ValidationError("Use letters, digits and underscores, as order_no.")
        return name

    def clean(self) -> dict[str, Any]:
        """It must say something, and no tag twice."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        for kind in ("niches", "triggers"):
            if both := set(cleaned[f"add_{kind}"]) & set(cleaned[f"remove_{kind}"]):
                self.add_error(f"remove_{kind}", f"“{min(both)}” is added and removed: choose.")
        if not self.errors and self.edit().is_empty:
            raise forms.ValidationError("Say what is to change.")
        return cleaned

    def edit(self) -> bulk.Edit:
        """What was asked for."""
        given = self.cleaned_data
        device, name = given["device"], given["custom_name"]
        return bulk.Edit(
            status=given["status"],
            add_niches=given["add_niches"],
            remove_niches=given["remove_niches"],
            add_triggers=given["add_triggers"],
            remove_triggers=given["remove_triggers"],
            device_id=int(device) if device.isdigit() else None,
            without_device=device == NO_DEVICE,
            custom={name: given["custom_value"]} if name and given["custom_value"] else {},
            remove_custom=(name,) if name and not given["custom_value"] else (),
        )


class BulkMixin:
    """List actions of :class:`leads.admin.LeadAdmin`."""

    @admin.action(description="Edit the chosen leads", permissions=["change"])
    def edit_leads(self: Any, request: HttpRequest, queryset: QuerySet[Lead]) -> HttpResponse | None:
        """A form; on yes, one statement per thousand leads."""
        number = counted(self, request, queryset)
        if number is None:
            return None
        devices = Device.objects.changeable_by(request.user).filter(owner__in=queryset.order_by().values("owner"))
        form = BulkForm(request.POST if confirmed(request) else None, devices=devices)
        if form.is_valid() and one_owner(form, queryset, form.edit().device_id):
            user = cast("User", request.user)
            done = bulk.edit(leads=queryset, edit=form.edit(), channel=Channel.ADMIN, by=user, now=timezone.now())
            text = f"{done:,} of {so_many(number)} changed."
            self.message_user(request, text, messages.SUCCESS)
            return None
        return form_page(
            self,
            request,
            form=form,
            action="edit_leads",
            title=f"Edit {so_many(number)}",
            button=f"Change {so_many(number)}",
        )

    @admin.action(description="Merge the two chosen leads", permissions=["change"])
    def merge_leads(self: Any, request: HttpRequest, queryset: QuerySet[Lead]) -> HttpResponse | None:
        """To the page that asks: messages and sequences have a part in it, so it is not the leads'."""
        pair = list(queryset.order_by("pk").values_list("pk", flat=True)[:3])
        if len(pair) == 2:
            return redirect("admin:merge_leads", first=pair[0], second=pair[1])
        self.message_user(request, "Choose two leads that are the same person.", messages.ERROR)
        return None


def so_many(number: int) -> str:
    """“1 lead”, “2,000 leads”."""
    return f"{number:,} {'lead' if number == 1 else 'leads'}"


def counted(model_admin: Any, request: HttpRequest, queryset: QuerySet[Lead]) -> int | None:
    """How many were chosen; None, and a word to the person, where that is too many."""
    number = queryset.order_by()[: bulk.MOST + 1].count()
    if number <= bulk.MOST:
        return number
    text = f"More than {bulk.MOST:,} leads: filter the list and take fewer at a time."
    model_admin.message_user(request, text, messages.ERROR)
    return None


def one_owner(form: forms.Form, leads: QuerySet[Lead], device_id: int | None) -> bool:
    """Whether all leads have the device's owner; otherwise the form says so."""
    if device_id is None:
        return True
    owner = Device.objects.filter(pk=device_id).values("owner_id")
    if not leads.order_by().exclude(owner_id__in=owner).exists():
        return True
    form.add_error("device", "Some of these leads belong to somebody else than the device.")
    return False


def form_page(
    model_admin: Any,
    request: HttpRequest,
    *,
    form: forms.Form,
    action: str,
    title: str,
    button: str,
    facts: tuple[tuple[str, Any], ...] = (),
) -> HttpResponse:
    """The form, which posts the same choice back to the list with its filters."""
    across = request.POST.get("select_across", "0")
    hidden = [("action", action), ("select_across", across), (CONFIRMED, "yes")]
    hidden += [("_selected_action", pk) for pk in request.POST.getlist("_selected_action")]
    context = {
        "form": form,
        "hidden": hidden,
        "facts": facts,
        "button": button,
        "back": list_url(Lead),
        "form_media": form.media,
    }
    return page(request, model_admin=model_admin, template="admin/leads/bulk_form.html", title=title, context=context)
