"""The admin's log-in: tries are counted, a second factor is asked for, and who owes one comes no further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.forms import AuthenticationForm
from unfold.widgets import UnfoldAdminTextInputWidget

from config import second_factor
from config.api.problems import Problem
from config.audit import address_of, refuse_log_in
from config.knocking import CounterAway, TooManyTries, knock

OWED = "This account needs an authenticator app. Log in to the admin and set one up."
_OPEN = ("login", "logout", "second_factor", "password_change", "password_change_done", "jsi18n")


class LoginForm(AuthenticationForm):
    """Name, password, and the code of those who have an authenticator app.

    The code is asked for on the same page, of everybody: whether an account has one is only told to whoever knows its
    password.
    """

    code = forms.CharField(
        label="Code",
        required=False,
        max_length=20,
        help_text="Of your authenticator app, or a recovery code, if you have set one up.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "one-time-code", "autocapitalize": "none"}),
    )

    def clean(self) -> dict[str, Any]:
        """Raises ValidationError in words that say how to go on."""
        try:
            knock(
                name=self.cleaned_data.get("username") or "",
                address=(address_of(self.request) or "") if self.request is not None else "",
            )
        except (TooManyTries, CounterAway) as problem:
            raise ValidationError(str(problem), code="throttled") from None
        cleaned: dict[str, Any] = super().clean()
        user = self.get_user()
        if isinstance(user, User) and second_factor.is_on(user):
            self._second_step(user, cleaned.get("code") or "")
        return cleaned

    def _second_step(self, user: User, code: str) -> None:
        if not code:
            self.user_cache = None
            raise ValidationError("Enter the code of your authenticator app as well.", code="second_factor_required")
        if not second_factor.accept(user=user, code=code, now=timezone.now()):
            self.user_cache = None
            refuse_log_in(self.request, user)
            raise ValidationError("The code is not right, or was used before. Wait for the next one.", code="bad_code")


class SecondFactorMiddleware:
    """Admins who owe a second factor get to its page and nowhere else, where the installation wants one of them.

    Tokens are not looked at: they are made by whoever has logged in, and the log-in by password asks for itself.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        in_api = request.path.startswith("/api/")
        # the path first: static files, webhooks and probes are not to cost a look into the session
        if not (in_api or request.path.startswith("/admin/")) or not second_factor.owed(request.user):
            return self.get_response(request)
        if in_api:
            return Problem("second_factor_owed", OWED).response()
        if request.path in {reverse(f"admin:{name}") for name in _OPEN}:
            return self.get_response(request)
        return HttpResponseRedirect(reverse("admin:second_factor"))
