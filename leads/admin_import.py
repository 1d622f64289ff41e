"""The import's pages: hand in a file, say what its columns are, watch it being read, download what was not taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import phonenumbers
from django import forms
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from devices.access import may_change
from devices.admin_pages import back_to, fragment, list_url, page, visible_or_404
from devices.models import Device
from leads import drafts, services
from leads.api_fields import csv_response
from leads.columns import CUSTOM, FIELDS, SKIP, ImportRefused, own_keys
from leads.exports import problem_lines
from leads.imports import ColumnSeen, LeadFileProblem
from leads.models import LeadImport
from leads.tasks import run_import


def regions() -> list[tuple[str, str]]:
    """(code, "MY · +60") for every country that has phone numbers, the installation's own first."""
    found = [
        (code, f"{code} · +{phonenumbers.country_code_for_region(code)}")
        for code in sorted(phonenumbers.SUPPORTED_REGIONS)
    ]
    return sorted(found, key=lambda choice: choice[0] != settings.FLOTILLA_DEFAULT_REGION)


class SettingsForm(forms.Form):
    """What is known about all people of a file."""

    region = forms.ChoiceField(
        choices=regions,
        label="Country",
        help_text="Of numbers written without a country code.",
        widget=UnfoldAdminSelectWidget,
    )
    consent_source = forms.CharField(
        max_length=200,
        required=False,
        label="Consent",
        help_text="Where and how these people agreed to hear from you. Campaigns leave out leads without consent.",
        widget=UnfoldAdminTextInputWidget,
    )
    duplicates = forms.ChoiceField(
        choices=LeadImport.Duplicates.choices,
        initial=LeadImport.Duplicates.MERGE,
        required=False,
        help_text="What happens to people who are there already, or are in the file twice.",
        widget=UnfoldAdminSelectWidget,
    )
    device = forms.ModelChoiceField(
        queryset=Device.objects.none(),
        required=False,
        help_text="The device these leads belong to, if any.",
        empty_label="None",
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Leads and their device have one owner, whoever imports: an admin's imports are the admin's own.
        devices = Device.objects.filter(owner=user).defer("credentials")
        self.fields["device"].queryset = devices  # type: ignore[attr-defined]
        self.initial.setdefault("region", settings.FLOTILLA_DEFAULT_REGION)

    def clean_duplicates(self) -> str:
        """Merging, where nothing was chosen."""
        return self.cleaned_data["duplicates"] or LeadImport.Duplicates.MERGE


class ImportForm(SettingsForm):
    """A file, and what is known about it."""

    file = forms.FileField(
        label="File",
        help_text="CSV or .xlsx. One lead a row, the first row names the columns: name, phone, niche, target_status,"
        " trigger.",
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": ".csv,.txt,.xlsx,text/csv,text/plain"}),
    )
    field_order = ("file",)


class DraftForm(SettingsForm):
    """The settings of a draft again, and one choice for each column."""

    def __init__(self, *args: Any, columns: Sequence[ColumnSeen], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        keys = own_keys([column.title for column in columns])
        for column in columns:
            own = column.field if column.field.startswith(CUSTOM) else CUSTOM + keys[column.position]
            self.fields[f"column_{column.position}"] = forms.ChoiceField(
                label=column.title or f"Column {column.position + 1}",
                choices=[*FIELDS.items(), (own, f"Own field “{own.removeprefix(CUSTOM)}”"), (SKIP, "Leave out")],
                initial=column.field,
                required=False,
                help_text=" · ".join(sample[:40] for sample in column.samples),
                widget=UnfoldAdminSelectWidget,
            )

    def mapping(self) -> list[str]:
        """What was chosen for the columns, in their order."""
        count = sum(name.startswith("column_") for name in self.fields)
        return [self.cleaned_data[f"column_{position}"] or SKIP for position in range(count)]


class ImportViews:
    """Views of :class:`leads.admin.LeadImportAdmin`."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may change leads may import some."""
        return may_change(request.user)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Take a file; the work is done by a worker, after the commit."""
        if not may_change(request.user):
            raise PermissionDenied
        form = ImportForm(request.POST or None, request.FILES or None, user=request.user)
        lead_import = _create(request, form) if form.is_valid() else None
        if lead_import is not None:
            return back_to(lead_import)
        return page(
            request,
            model_admin=self,
            template="admin/leads/import_form.html",
            title="Import leads",
            context={"form": form, "back": list_url(LeadImport), "form_media": form.media},
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """How far an import is, and what came of it."""
        lead_import = visible_or_404(self, request, object_id)
        if lead_import.state == LeadImport.State.DRAFT:
            return redirect(_draft_url(lead_import))
        return page(
            request,
            model_admin=self,
            template="admin/leads/import_progress.html",
            title=f"Import of {lead_import}",
            context={
                **_state_of(lead_import),
                "poll_url": reverse("admin:leads_leadimport_progress", args=[lead_import.pk]),
                "original": lead_import,
            },
        )

    def progress_view(self, request: HttpRequest, object_id: int) -> JsonResponse:
        """The moving part of that page."""
        context = _state_of(visible_or_404(self, request, str(object_id)))
        return fragment(template="admin/leads/import_state.html", context=context, done=context["done"])

    def problems_view(self, request: HttpRequest, object_id: int) -> StreamingHttpResponse:
        """Rows that could not be taken, as a CSV to mend and hand in again."""
        lead_import = visible_or_404(self, request, str(object_id))
        return csv_response(problem_lines(lead_import), filename=f"import-{lead_import.pk}-problems.csv")

    def draft_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """What a file's columns are taken for and its first rows would become, until it is imported."""
        if not may_change(request.user):
            raise PermissionDenied
        lead_import = visible_or_404(self, request, str(object_id))
        if not drafts.may_confirm(lead_import):
            return back_to(lead_import)
        try:
            seen = drafts.preview(lead_import)
        except LeadFileProblem as problem:
            return _draft_page(request, self, lead_import, {"problem": problem.text})
        form = DraftForm(
            request.POST or None, user=lead_import.owner, columns=seen.columns, initial=_settings_of(lead_import)
        )
        if form.is_valid():
            try:
                if "look" not in request.POST:
                    return _confirmed(request, lead_import, form)
                seen = drafts.preview(
                    lead_import, mapping=form.mapping(), region=form.cleaned_data["region"],
                    duplicates=form.cleaned_data["duplicates"],
                )  # fmt: skip
            except ImportRefused as refusal:
                form.add_error(refusal.field if refusal.field in form.fields else None, refusal.text)
        return _draft_page(request, self, lead_import, {"form": form, "preview": seen, "problem": seen.problem})


def _create(request: HttpRequest, form: ImportForm) -> LeadImport | None:
    """The import, on its way to a worker or as a draft; None with the reason on the form when it is refused."""
    given = form.cleaned_data
    draft = "draft" in request.POST
    try:
        with transaction.atomic():
            lead_import = services.create_import(
                owner=cast("User", request.user), filename=given["file"].name, draft=draft, **given
            )
            if not draft:
                _hand_over(lead_import)
    except ImportRefused as problem:
        form.add_error(problem.field if problem.field in form.fields else None, problem.text)
        return None
    return lead_import


def _confirmed(request: HttpRequest, lead_import: LeadImport, form: DraftForm) -> HttpResponse:
    """To the page that shows how it goes. Raises ImportRefused."""
    given = {name: form.cleaned_data[name] for name in ("region", "consent_source", "duplicates", "device")}
    with transaction.atomic():
        drafts.confirm(lead_import=lead_import, mapping=form.mapping(), dry_run="dry_run" in request.POST, **given)
        _hand_over(lead_import)
    return back_to(lead_import)


def _hand_over(lead_import: LeadImport) -> None:
    """To a worker, after the commit. Without a broker the import is not lost: the next tick finds it."""
    transaction.on_commit(lambda: run_import.delay(import_id=lead_import.pk), robust=True)


def _draft_page(
    request: HttpRequest, model_admin: Any, lead_import: LeadImport, context: dict[str, Any]
) -> HttpResponse:
    return page(
        request,
        model_admin=model_admin,
        template="admin/leads/import_draft.html",
        title=f"Import of {lead_import}",
        context={**context, "back": list_url(LeadImport), "original": lead_import},
    )


def _settings_of(lead_import: LeadImport) -> dict[str, Any]:
    return {
        "region": lead_import.region,
        "consent_source": lead_import.consent_source,
        "duplicates": lead_import.duplicates,
        "device": lead_import.device_id,
    }


def _draft_url(lead_import: LeadImport) -> str:
    return reverse("admin:leads_leadimport_draft", args=[lead_import.pk])


def _state_of(lead_import: LeadImport) -> dict[str, Any]:
    """What the moving part shows."""
    done = lead_import.state in {LeadImport.State.FINISHED, LeadImport.State.FAILED}
    total = lead_import.rows_total
    percent = 100 if lead_import.state == LeadImport.State.FINISHED else 0
    if total and not done:
        percent = min(100, round(100 * lead_import.rows_done / total))
    return {
        "lead_import": lead_import,
        "done": done,
        "percent": percent,
        "problems": list(lead_import.problems.all()[:20]),
        "problems_url": reverse("admin:leads_leadimport_problems", args=[lead_import.pk]),
        "leads_url": reverse("admin:leads_lead_changelist"),
        "draft_url": _draft_url(lead_import) if drafts.may_confirm(lead_import) else "",
    }
