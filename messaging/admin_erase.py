"""The admin's page that erases a person; the button to it is on the lead's page."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone

from devices.access import may_change
from devices.admin_pages import Question, ask, change_url, confirmed, list_url
from leads.models import Lead, LeadImport
from messaging import erasing


class EraseViews:
    """A view of :class:`messaging.admin.MessageAdmin`."""

    def erase_view(self: Any, request: HttpRequest, object_id: int) -> HttpResponse:
        """Ask; on yes, erase."""
        if not may_change(request.user):
            raise PermissionDenied
        lead = get_object_or_404(Lead.objects.changeable_by(request.user), pk=object_id)
        if not confirmed(request):
            files = LeadImport.objects.filter(owner_id=lead.owner_id).exclude(file="")
            drafts = files.filter(state=LeadImport.State.DRAFT).exists()
            question = Question(
                title=f"Erase {lead}?",
                text="Their details, their consent history and the texts sent to them are removed for good. The"
                " messages stay in the counts. The number stays suppressed, as a hash, also if it is imported again."
                " Rows that an import rejected are emptied where they hold the number or the name.",
                button="Erase for good",
                back=change_url(lead),
                facts=(
                    ("Number", lead.phone),
                    ("Messages", f"{lead.messages.count():,}"),
                    ("Uploaded files that are removed", f"{files.count():,}"),
                ),
                warnings=("A draft whose file is removed has to be uploaded again.",) if drafts else (),
                danger=True,
            )
            return ask(request, model_admin=self, question=question)
        done = erasing.erase(lead=lead, by=cast("User", request.user), now=timezone.now())
        text = f"Erased. {done.messages:,} messages were stripped, {done.cancelled:,} of them cancelled."
        text += f" {done.files:,} uploaded files were removed, {done.rows:,} rejected rows emptied."
        if done.files_later:
            text += f" {done.files_later:,} more files go as soon as their import has ended."
        self.message_user(request, text, messages.SUCCESS)
        return redirect(list_url(Lead))
