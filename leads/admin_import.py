"""The import's pages: hand in a file, watch it being read, download the rows that could not be taken."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

import phonenumbers
from django import forms
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from devices.access import may_change
from devices.admin_pages import back_to, fragment, list_url, page, visible_or_404
from devices.models import Device
from leads import services
from leads.imports import ImportRefused
from leads.models import LeadImport, LeadImportProblem
from leads.tasks import run_import

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What spreadsheets take for the beginning of a formula (OWASP, "CSV Injection"), full-width forms included."""


def regions() -> list[tuple[str, str]]:
    """(code, "MY · +60") for every country that has phone numbers, the installation's own first."""
    found = [
        (code, f"{code} · +{phonenumbers.country_code_for_region(code)}")
        for code in sorted(phonenumbers.SUPPORTED_REGIONS)
    ]
    return sorted(found, key=lambda choice: choice[0] != settings.FLOTILLA_DEFAULT_REGION)


class ImportForm(forms.Form):
    """A file of leads and what is known about all of them."""

    file = forms.FileField(
        label="CSV file",
        help_text="One lead a row, the first row names the columns: name, phone, niche, target_status, trigger.",
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": ".csv,.txt,text/csv,text/plain"}),
    )
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
        response = StreamingHttpResponse(_problem_lines(lead_import), content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="import-{lead_import.pk}-problems.csv"'
        return response


def _create(request: HttpRequest, form: ImportForm) -> LeadImport | None:
    """The import, on its way to a worker; None with the reason on the form when it is refused."""
    given = form.cleaned_data
    try:
        with transaction.atomic():
            lead_import = services.create_import(
                owner=cast("User", request.user),
                file=given["file"],
                filename=given["file"].name,
                region=given["region"],
                consent_source=given["consent_source"],
                device=given["device"],
            )
            # Without a broker the import is not lost: the next tick finds it.
            transaction.on_commit(lambda: run_import.delay(import_id=lead_import.pk), robust=True)
    except ImportRefused as problem:
        form.add_error(problem.field if problem.field in form.fields else None, problem.text)
        return None
    return lead_import


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
    }


class _Echo:
    """A file for :mod:`csv` that hands each line back."""

    def write(self, line: str) -> str:
        return line


def _problem_lines(lead_import: LeadImport) -> Iterator[str]:
    """The CSV, line by line: the problem first, then the row as it came, by the columns of the first problem row.

    Columns come from every row, because rows with surplus cells carry more; that is one pass over keys, kept small by
    the number of columns and not of rows.
    """
    problems = LeadImportProblem.objects.filter(lead_import=lead_import).order_by("row_number")
    columns = _columns(problems.values_list("values", flat=True).iterator(chunk_size=2000))
    writer = csv.writer(_Echo())
    yield "\ufeff" + writer.writerow(["row", "problem", "field", *map(neutral, columns)])
    for problem in problems.iterator(chunk_size=2000):
        values: Mapping[str, Any] = problem.values if isinstance(problem.values, dict) else {}
        cells = [problem.message, problem.field, *(values.get(column, "") for column in columns)]
        yield writer.writerow([problem.row_number, *map(neutral, cells)])


def _columns(rows: Iterator[Any]) -> list[str]:
    """Every key that occurs, in order of appearance."""
    seen: dict[str, None] = {}
    for values in rows:
        if isinstance(values, dict):
            seen.update(dict.fromkeys(values))
    return list(seen)


def neutral(value: Any) -> str:
    """``value`` as text that no spreadsheet takes for a formula."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) else text
