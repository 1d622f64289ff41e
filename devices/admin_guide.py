"""Long forms in steps: one form and one POST, shown part by part with a bar that says where something is missing.

The page is complete without a script: all steps stand below each other. ``flotilla/guide.js`` shows one at a time, and
opens the step of a field that was refused. What is missing beyond the form's own rules (nobody to write to, no device
that could) is asked from the admin's ``guide_check`` address while somebody types.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.admin.utils import flatten_fieldsets
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.safestring import SafeString

STEP = "guide_step"
"""The field, and the part of an address, that says which step somebody was at."""


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a form: which fieldsets (by title) and which inlines (by prefix) stand in it, and why."""

    key: str
    title: str
    hint: str
    fieldsets: tuple[str | None, ...] = ()
    inlines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """A step on the page. ``errors``: how many of its fields were refused."""

    step: Step
    fieldsets: tuple[Any, ...]
    formsets: tuple[Any, ...]
    errors: int


class GuideMixin:
    """Of a ModelAdmin whose ``guide`` cuts its form into steps; the last of them may be there only to look back."""

    guide: tuple[Step, ...] = ()
    guide_done = ""
    """Words on the button that saves and goes on to :meth:`guide_next`; empty where there is none."""
    change_form_template = "admin/guided_form.html"

    @property
    def media(self) -> forms.Media:
        """With the script that shows one step at a time."""
        own = forms.Media(js=["flotilla/guide.js"], css={"all": ["flotilla/screens.css", "flotilla/guide.css"]})
        return super().media + own  # type: ignore[misc]

    def guide_aside(self, obj: Any) -> SafeString | str:
        """What stays in view beside all steps."""
        return ""

    def guide_check(self, obj: Any) -> dict[str, Any]:
        """What the last step shows, as context of ``admin/guide_check.html``; ``url`` where it is asked anew."""
        return {}

    def guide_next(self, obj: Any) -> str:
        """The address after the last step."""
        raise NotImplementedError

    def guide_step_of(self, request: HttpRequest, obj: Any) -> dict[str, str]:
        """Fields and prefixes of inlines, each with the key of its step. What no step names is in the first."""
        found: dict[str, str] = {prefix: step.key for step in self.guide for prefix in step.inlines}
        for title, options in self.get_fieldsets(request, obj):  # type: ignore[attr-defined]
            key = next((step.key for step in self.guide if title in step.fieldsets), self.guide[0].key)
            found |= dict.fromkeys(flatten_fieldsets([(title, options)]), key)
        return found

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        """The form with its steps. Who may only look gets them below each other, without what leads to saving."""
        self_: Any = self
        changes = self_.has_add_permission(request) if obj is None else self_.has_change_permission(request, obj)
        context |= {
            "guide": tuple(self._shown(context)),
            "guide_changes": changes,
            "guide_aside": self.guide_aside(obj),
            "guide_check": self.guide_check(obj) if changes else None,
            "guide_done": self.guide_done,
            "guide_at": self._asked(request),
        }
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)  # type: ignore[misc]

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Back to the step that was saved at, or on to what follows the last."""
        return self._onwards(request, obj, super().response_add(request, obj, post_url_continue))  # type: ignore[misc]

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        """The same."""
        return self._onwards(request, obj, super().response_change(request, obj))  # type: ignore[misc]

    def _onwards(self, request: HttpRequest, obj: Any, answer: HttpResponse) -> HttpResponse:
        if "_guide_next" in request.POST and self.guide_done:
            return HttpResponseRedirect(self.guide_next(obj))
        step = self._asked(request)
        if "_continue" in request.POST and step and isinstance(answer, HttpResponseRedirect):
            sign = "&" if "?" in answer.url else "?"
            return HttpResponseRedirect(f"{answer.url}{sign}{STEP}={step}")
        return answer

    def _asked(self, request: HttpRequest) -> str:
        """The step that somebody was at, if there is one of that name."""
        asked = request.POST.get(STEP) or request.GET.get(STEP, "")
        return asked if any(step.key == asked for step in self.guide) else ""

    def _shown(self, context: dict[str, Any]) -> Iterable[Shown]:
        fieldsets, formsets = list(context["adminform"]), list(context["inline_admin_formsets"])
        wrong = context["adminform"].form.errors
        placed = {title for step in self.guide for title in step.fieldsets}
        known = {prefix for step in self.guide for prefix in step.inlines}
        for number, step in enumerate(self.guide):
            mine = tuple(
                each for each in fieldsets
                if each.name in step.fieldsets or (number == 0 and each.name not in placed)
            )  # fmt: skip
            rows = tuple(
                each for each in formsets
                if each.formset.prefix in step.inlines or (number == 0 and each.formset.prefix not in known)
            )  # fmt: skip
            names = flatten_fieldsets([(each.name, {"fields": each.fields}) for each in mine])
            errors = sum(name in wrong for name in names)
            errors += sum(each.formset.total_error_count() for each in rows)
            yield Shown(step, mine, rows, errors)
