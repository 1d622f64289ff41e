"""Letting the chosen leads into a sequence, from the list of leads: up here, because leads know no sequences."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget

from devices.admin_pages import confirmed
from devices.admin_text import many
from leads.admin_bulk import counted, form_page
from leads.models import Lead
from sequences import entry
from sequences.models import EntrySource, Sequence, SequenceState

LEFT_OUT = {
    "opted_out": "opted out",
    "in_review": "are held for review",
    "no_consent": "have no recorded consent",
    "there_already": "are or were in it already",
    "other_owner": "belong to somebody else than the sequence",
}


class EnrolForm(forms.Form):
    """Which sequence."""

    sequence = forms.ModelChoiceField(
        Sequence.objects.none(),
        widget=UnfoldAdminSelectWidget,
        empty_label="Choose a sequence",
        help_text="Those who may not be written to, and those who are in it already, are left out.",
    )

    def __init__(self, *args: Any, sequences: QuerySet[Sequence], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["sequence"].queryset = sequences  # type: ignore[attr-defined]


@admin.action(description="Enrol the chosen leads in a sequence", permissions=["change"])
def enrol_leads(model_admin: Any, request: HttpRequest, queryset: QuerySet[Lead]) -> HttpResponse | None:
    """A choice of sequences; on yes, in they go."""
    number = counted(model_admin, request, queryset)
    if number is None:
        return None
    sequences = Sequence.objects.changeable_by(request.user).exclude(state=SequenceState.DRAFT).order_by("name")
    form = EnrolForm(request.POST if confirmed(request) else None, sequences=sequences)
    if form.is_valid():
        try:
            _enrol(model_admin, request, form.cleaned_data["sequence"], queryset, number)
        except entry.EntryRefused as refused:
            form.add_error("sequence", refused.text)
        else:
            return None
    return form_page(
        model_admin,
        request,
        form=form,
        action="enrol_leads",
        title=f"Enrol {many(number, 'lead')}",
        button="Enrol",
    )


def _enrol(model_admin: Any, request: HttpRequest, sequence: Sequence, leads: QuerySet[Lead], number: int) -> None:
    done = entry.enrol(sequence=sequence, leads=leads, source=EntrySource.HAND, now=timezone.now())
    strangers = number - len(done.enrolments) - sum(done.left_out.values())
    left_out = {**done.left_out, **({"other_owner": strangers} if strangers else {})}
    words = "; ".join(f"{n:,} {LEFT_OUT[reason]}" for reason, n in left_out.items())
    entered = many(len(done.enrolments), "lead")
    text = f"{entered} entered “{sequence}”." + (f" Left out: {words}." if words else "")
    model_admin.message_user(request, text, messages.SUCCESS if done.enrolments else messages.WARNING)
