"""Pages of the admin beyond lists and forms: "are you sure?", and fragments that a page fetches again and again.

Nothing is ever changed by a GET: an action's link opens its confirmation, whose form posts back to the same address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse

from devices.access import may_change_row

CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked before something happens.

    ``facts`` are (label, value) pairs that help to decide, ``warnings`` whole sentences, ``hidden`` form fields that
    come back with the answer, ``field`` a text to fill in, as (name, label). Without ``button`` there is nothing to
    agree to, only to read.
    """

    title: str
    text: str
    button: str
    back: str
    facts: tuple[tuple[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    hidden: tuple[tuple[str, str], ...] = ()
    field: tuple[str, str] | None = None
    danger: bool = False


def confirmed(request: HttpRequest) -> bool:
    """Whether this request is the answer to a question."""
    return request.method == "POST" and request.POST.get(CONFIRMED) == "yes"


def ask(request: HttpRequest, *, model_admin: Any, question: Question, obj: Any = None) -> TemplateResponse:
    """The page that asks, for those who may answer. Raises PermissionDenied."""
    if obj is not None and not may_change_row(request.user, obj):
        raise PermissionDenied
    return page(
        request,
        model_admin=model_admin,
        template="admin/confirm.html",
        title=question.title,
        context={"question": question, "original": obj},
    )


def page(
    request: HttpRequest, *, model_admin: Any, template: str, title: str, context: Mapping[str, Any]
) -> TemplateResponse:
    """A page of our own inside the admin's frame."""
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(
        request,
        template,
        {
            **model_admin.admin_site.each_context(request),
            "opts": model_admin.opts,
            "title": title,
            "media": model_admin.media,
            **context,
        },
    )


def fragment(*, template: str, context: Mapping[str, Any], done: bool = False) -> JsonResponse:
    """``{"html", "done"}`` for ``flotilla/poll.js``: the part of the page to replace, and whether to stop asking."""
    return JsonResponse({"html": render_to_string(template, dict(context)), "done": done})


def visible_or_404(model_admin: Any, request: HttpRequest, object_id: str) -> Any:
    """The row behind an address, if the person may see it. Raises Http404."""
    return get_object_or_404(model_admin.get_queryset(request), pk=model_admin.opts.pk.to_python(_unquoted(object_id)))


def change_url(obj: Any) -> str:
    """Address of a row's page."""
    meta = obj._meta  # noqa: SLF001 - Django's documented model API
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[obj.pk])


def list_url(model: Any, query: str = "") -> str:
    """Address of a model's list."""
    meta = model._meta  # noqa: SLF001
    url = reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")
    return f"{url}?{query}" if query else url


def back_to(obj: Any) -> HttpResponseRedirect:
    """To a row's page."""
    return HttpResponseRedirect(change_url(obj))


def _unquoted(object_id: str) -> str | None:
    """A key as it stands in an address; None (which no row has) where it is no number."""
    return object_id if object_id.isascii() and object_id.isdigit() and len(object_id) < 19 else None
