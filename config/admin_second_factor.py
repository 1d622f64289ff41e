"""The page on which people set up their authenticator app, and take it off again."""

from __future__ import annotations

from typing import Any

import segno
from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import mark_safe
from django.views.decorators.cache import never_cache
from unfold.widgets import UnfoldAdminTextInputWidget

from config import second_factor
from config.audit import address_of
from config.knocking import CounterAway, TooManyTries, knock


class CodeForm(forms.Form):
    """A code of the app."""

    code = forms.CharField(
        max_length=20,
        help_text="The six digits that the app shows now.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "one-time-code", "autocapitalize": "none"}),
    )


@never_cache
def second_factor_view(request: HttpRequest) -> HttpResponse:
    """Shows the QR code, turns it on with a first code, and off with one that is right. Raises PermissionDenied."""
    user = request.user
    if not isinstance(user, User):
        raise PermissionDenied
    form = CodeForm(request.POST or None)
    is_on = second_factor.is_on(user)
    codes: list[str] = []
    if form.is_valid() and (told := _too_often(request, user)):
        form.add_error("code", told)
    elif form.is_valid():
        code, now = form.cleaned_data["code"], timezone.now()
        if is_on:
            done = second_factor.accept(user=user, code=code, now=now)
            is_on = not (done and second_factor.remove(user=user))
        else:
            codes = second_factor.confirm(user=user, code=code, now=now) or []
            done = is_on = bool(codes)
        if done:
            form = CodeForm()
        else:
            form.add_error("code", "The code is not right. Is the clock of the phone?")
    context = {"form": form, "is_on": is_on, "codes": codes, "owed": second_factor.owed(user)}
    return TemplateResponse(
        request,
        "admin/second_factor.html",
        {**admin.site.each_context(request), "title": "Second factor", **({} if is_on else _offer(user)), **context},
    )


def _too_often(request: HttpRequest, user: User) -> str:
    """Codes may be guessed here no faster than at the log-in."""
    try:
        knock(name=user.get_username(), address=address_of(request) or "")
    except (TooManyTries, CounterAway) as problem:
        return str(problem)
    return ""


def _offer(user: User) -> dict[str, Any]:
    """The seed to type, and to scan: drawn here, dark on white, since cameras want that."""
    seed = second_factor.begin(user=user)
    code = segno.make(second_factor.address(user=user, seed=seed), error="l", micro=False)
    drawn = code.svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True, svgclass="fl-qr")
    spaced = " ".join(seed[start : start + 4] for start in range(0, len(seed), 4))
    return {"seed": spaced, "picture": mark_safe(drawn)}  # noqa: S308 - drawn here, from modules


def urls() -> list[URLPattern]:
    """Below the admin's own address."""
    return [path("second-factor/", admin.site.admin_view(second_factor_view), name="second_factor")]
