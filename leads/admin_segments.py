"""Segments in the admin: one field per rule, and a count that follows what is typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from devices.access import Role, role_of
from devices.admin_base import OwnedAdmin, OwnedForm
from devices.admin_pages import list_url, visible_or_404
from devices.models import Device
from leads import segments
from leads.admin_bulk import so_many
from leads.cells import tags_cell, tags_of
from leads.models import Lead, LeadStatus, Segment
from leads.rules import NAMES, Rules, RulesRefused, parse

TAGS = tuple(f"{tags}_{how}" for tags in ("niches", "triggers") for how in ("any", "all", "none"))
YES_NO = ("consent", "opted_out", "in_review", "has_device", "reached")
MOMENTS = ("created_from", "created_before", "sent_since", "not_sent_since", "replied_since")
NAMED = ("custom_set", "custom_unset")
OFFERED_MOST = 200
WHEN = "A day as 2026-01-31, or how many days ago as 30."
_DAYS = re.compile(r"[0-9]{1,5}")


def _text(label: str, help_text: str = "") -> Any:
    return forms.CharField(required=False, label=label, help_text=help_text, widget=UnfoldAdminTextInputWidget)


def _choice(label: str, *choices: tuple[str, str]) -> Any:
    return forms.ChoiceField(
        required=False, label=label, choices=[("", "Any"), *choices], widget=UnfoldAdminSelectWidget
    )


def _yes_no(label: str) -> Any:
    return _choice(label, ("yes", "Yes"), ("no", "No"))


class RulesForm(forms.Form):
    """Every rule as a field; ``cleaned_rules`` is what they come to."""

    user: AbstractBaseUser | AnonymousUser
    cleaned_rules: Rules

    status = _choice("Status", *LeadStatus.choices)
    niches_any = _text("Any of these niches", "Exact tags, separated by commas.")
    niches_all = _text("All of these niches")
    niches_none = _text("None of these niches")
    triggers_any = _text("Any of these triggers")
    triggers_all = _text("All of these triggers")
    triggers_none = _text("None of these triggers")
    custom = forms.CharField(
        required=False,
        label="Own fields",
        help_text="One a line, as: city = Ipoh",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
    )
    custom_set = _text("Own fields that are filled in", "Names, separated by commas.")
    custom_unset = _text("Own fields that are empty", "Names, separated by commas.")
    consent = _yes_no("Consent recorded")
    opted_out = _yes_no("Opted out")
    in_review = _yes_no("Held for review")
    device = forms.ModelChoiceField(queryset=Device.objects.none(), required=False, label="Device")
    has_device = _yes_no("Has a device")
    created_from = _text("Added since", WHEN)
    created_before = _text("Added before", WHEN)
    reached = _yes_no("Any message accepted so far")
    sent_since = _text("A message accepted since", WHEN)
    not_sent_since = _text("No message accepted since", WHEN)
    replied_since = _text("Wrote to us since", WHEN)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        device: Any = self.fields.get("device")
        if device is not None:  # not there on a page that can only be read
            device.widget = AutocompleteSelect(Lead._meta.get_field("device"), admin.site)  # noqa: SLF001
            device.queryset = Device.objects.changeable_by(self.user).defer("credentials")
        stored = getattr(getattr(self, "instance", None), "rules", {})
        self.initial = {**_shown(stored), **self.initial}

    def clean(self) -> dict[str, Any]:
        """What is wrong with a rule is said at its field."""
        cleaned = super().clean() or self.cleaned_data
        self.cleaned_rules = Rules()
        try:
            self.cleaned_rules = parse(dict(_rules_in(cleaned)))
        except RulesRefused as refused:
            for problem in refused.problems:
                self.add_error(problem.field if problem.field in self.fields else None, problem.text)
        except forms.ValidationError as problem:
            self.add_error("custom", problem)
        return cleaned


def _rules_in(cleaned: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Rules as JSON from what was typed."""
    for name in NAMES:
        value = cleaned.get(name)
        if value in {None, ""}:
            continue
        if name in TAGS or name in NAMED:
            yield name, list(tags_of(value))
        elif name in YES_NO:
            yield name, value == "yes"
        elif name in MOMENTS:
            yield name, {"days_ago": int(value)} if _DAYS.fullmatch(value) else value
        elif name == "custom":
            yield name, dict(_own_in(value))
        else:
            yield name, value.pk if name == "device" else value


def _own_in(text: str) -> Iterator[tuple[str, str]]:
    for line in filter(None, map(str.strip, text.splitlines())):
        name, sign, value = (part.strip() for part in line.partition("="))
        if not (name and sign and value):
            raise forms.ValidationError(f"“{line[:60]}” is no such line; write it as: city = Ipoh")
        yield name, value


def _shown(rules: dict[str, Any]) -> dict[str, Any]:
    """Stored rules as what would be typed for them."""
    found = dict(rules)
    for name, value in rules.items():
        if name in TAGS or name in NAMED:
            found[name] = tags_cell(value)
        elif name in YES_NO:
            found[name] = "yes" if value else "no"
        elif name in MOMENTS and isinstance(value, dict):
            found[name] = str(value["days_ago"])
        elif name == "custom":
            found[name] = "\n".join(f"{own} = {wanted}" for own, wanted in value.items())
    return found


class SegmentForm(RulesForm, OwnedForm):
    """A segment: its name, and its rules."""

    user: AbstractBaseUser

    def clean(self) -> dict[str, Any]:
        """The rules go into their column."""
        cleaned = super().clean()
        self.instance.rules = self.cleaned_rules.to_json()
        return cleaned

    def changed_columns(self) -> set[str]:
        """Any field but the name is a rule."""
        rules = {"rules"} if set(self.changed_data) & set(NAMES) else set()
        return super().changed_columns() | rules


@admin.register(Segment)
class SegmentAdmin(OwnedAdmin):
    """Filters over leads under a name."""

    form = SegmentForm
    list_display = ("name", "asks", "leads_link", "updated_at")
    search_fields = ("name",)
    search_help_text = "Name of the segment"
    empty_hint = "A segment is a filter over your leads under a name; it is always up to date."
    readonly_fields = ("live_count",)
    fieldsets = (
        (None, {"fields": ["owner", "name", "live_count"], "description": "A lead is in if every rule below holds."}),
        ("People", {"fields": ["status", "device", "has_device", ("created_from", "created_before")]}),
        ("Tags", {"fields": TAGS}),
        ("Own fields", {"fields": ["custom", NAMED]}),
        ("Consent", {"fields": ["consent", "opted_out", "in_review"]}),
        ("Sent and heard", {"fields": ["reached", ("sent_since", "not_sent_since"), "replied_since"]}),
    )

    class Media:
        js = ("flotilla/segment.js",)

    def get_urls(self) -> list[URLPattern]:
        """The count before Django's catch-all."""
        view = self.admin_site.admin_view(require_POST(self.count_view))
        return [path("count/", view, name="leads_segment_count"), *super().get_urls()]

    def count_view(self, request: HttpRequest) -> JsonResponse:
        """``{"text"}``: how many leads what is typed comes to, or what is wrong with it. Nothing is saved."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = type("Asked", (RulesForm,), {"user": request.user})(request.POST)
        if not form.is_valid():
            return JsonResponse({"text": " ".join(text for texts in form.errors.values() for text in texts)})
        number = segments.count(owner_id=self._owner_id(request), rules=form.cleaned_rules, now=timezone.now())
        return JsonResponse({"text": so_many(number)})

    def _owner_id(self, request: HttpRequest) -> int:
        """Whose leads are meant: the segment's owner's, the one an admin has chosen, else one's own."""
        if saved := request.POST.get("segment"):
            return visible_or_404(self, request, saved).owner_id
        chosen = request.POST.get("owner", "")
        if role_of(request.user) is Role.ADMIN and chosen.isascii() and chosen.isdigit() and len(chosen) < 10:
            return int(chosen)
        return request.user.pk or 0

    @display(description="Matches now")
    def live_count(self, segment: Segment) -> SafeString:
        """Filled in by the page's own script, and again whenever a rule changes."""
        return format_html(
            '<output data-count="{}" data-segment="{}" aria-live="polite">–</output>',
            reverse("admin:leads_segment_count"),
            segment.pk or "",
        )

    @display(description="Asks")
    def asks(self, segment: Segment) -> str:
        """The names of its rules."""
        return ", ".join(name.replace("_", " ") for name in segment.rules) or "Nothing: everybody"

    @display(description="Leads")
    def leads_link(self, segment: Segment) -> SafeString:
        """To the list of them; counting here would ask for every segment on the page."""
        return format_html('<a class="fl-link" href="{}">Show</a>', list_url(Lead, f"segment={segment.pk}"))


class InSegmentFilter(DropdownFilter):
    """Leads of one of the segments that the person may see."""

    title = "segment"
    parameter_name = "segment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The newest; one that was asked for by its address is among them."""
        found = Segment.objects.visible_to(request.user).values_list("pk", "name")
        chosen = _number(request.GET.get(self.parameter_name))
        offered = dict([*found[:OFFERED_MOST], *found.filter(pk=chosen)])
        return [(str(pk), name) for pk, name in offered.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Lead]) -> QuerySet[Lead]:
        """Those who match now; nobody for a segment that is not there."""
        if not self.value():
            return queryset
        segment = Segment.objects.visible_to(request.user).filter(pk=_number(self.value())).first()
        return segments.narrowed(queryset, segment=segment, now=timezone.now()) if segment else queryset.none()


def _number(text: str | None) -> int:
    """An id as it stands in an address; 0, which no row has, where it is none."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else 0
