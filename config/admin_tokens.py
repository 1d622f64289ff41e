"""API tokens in the admin: made and shown once, listed with what they open and when they last did, revoked."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.views import ChangeList
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from config.api.tokens import issue, most_days
from config.scopes import MEANINGS, SCOPES
from config.token_models import ApiToken
from devices.access import Role, role_of
from devices.admin_base import PageList
from devices.admin_pages import Question, ask, confirmed, list_url, page
from devices.admin_text import moment_column


class TokenForm(forms.Form):
    """Whose token, what it is for and what it may open."""

    user = forms.ModelChoiceField(User.objects.none(), widget=UnfoldAdminSelectWidget)
    name = forms.CharField(
        max_length=100, help_text="What it is for, as “web shop”.", widget=UnfoldAdminTextInputWidget
    )
    scopes = forms.MultipleChoiceField(
        label="May",
        choices=[(scope, f"{scope}: {MEANINGS[scope]}") for scope in SCOPES],
        help_text="Never more than its user may. To write in an area includes reading there.",
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    expires_in_days = forms.IntegerField(min_value=1, label="Expires in days", widget=UnfoldAdminIntegerFieldWidget)

    def __init__(self, *args: Any, people: QuerySet[User], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["user"].queryset = people  # type: ignore[attr-defined]

    def clean_expires_in_days(self) -> int:
        """At most what the installation allows."""
        days: int = self.cleaned_data["expires_in_days"]
        if days > most_days():
            raise forms.ValidationError(f"At most {most_days()} days (FLOTILLA_TOKEN_DAYS).")
        return days


@admin.register(ApiToken)
class TokenAdmin(ModelAdmin):
    """Tokens for the API: stored as hashes, shown once."""

    list_display = ("title", "begins", "user", "opens", "made", "ends", "used", "state_label")
    list_display_links = None
    list_select_related = ("user",)
    search_fields = ("name", "user__username", "token_key")
    search_help_text = "Its name, its user, or how the token begins"
    empty_hint = "A token lets a program use the API as its user. It is shown once, when it is made."
    ordering = ("-created",)
    actions = ("revoke_tokens",)
    show_full_result_count = False

    class Media:
        css = {"all": ["flotilla/admin.css"]}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The list that other pages have: it does not call an empty one the result of a search."""
        return PageList

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Everybody with a role may use the API, within that role."""
        return role_of(request.user) is not None

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The same."""
        return role_of(request.user) is not None

    def has_add_permission(self, request: HttpRequest) -> bool:
        """The same."""
        return role_of(request.user) is not None

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """There is nothing to change about a token."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Revoking is an action of the list."""
        return False

    def has_revoke_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever sees a token may revoke it."""
        return role_of(request.user) is not None

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        """One's own; admins see all."""
        found: QuerySet[ApiToken] = super().get_queryset(request).seen_by(request.user)
        return found

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Make a token and show it, in the answer itself: it is stored nowhere, not even in a message for later."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        people = User.objects.filter(is_active=True).order_by("username")
        if not request.user.is_superuser:
            # A superuser's token would make its bearer one.
            people = people.filter(is_superuser=False) | people.filter(username=request.user.get_username())
        if role_of(request.user) is not Role.ADMIN:
            people = people.filter(username=request.user.get_username())
        initial = {"user": request.user.pk, "expires_in_days": most_days()}
        form = TokenForm(request.POST or None, initial=initial, people=people)
        token = ""
        if form.is_valid():
            given = form.cleaned_data
            token, row = issue(
                user=given["user"],
                name=given["name"],
                scopes=tuple(given["scopes"]),
                days=given["expires_in_days"],
            )
            self.log_addition(request, row, "API token made.")
        return page(
            request,
            model_admin=self,
            template="admin/token.html",
            title="New API token",
            context={"form": form, "token": token, "back": list_url(ApiToken)},
        )

    @admin.action(description="Revoke the chosen tokens", permissions=["revoke"])
    def revoke_tokens(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> HttpResponse | None:
        """They stop working at once."""
        if not confirmed(request):
            chosen = list(queryset.values_list("digest", "token_key", "name", "user__username"))
            question = Question(
                title=f"Revoke {len(chosen):,} API tokens?",
                text="Programs that use them are refused from now on.",
                button="Revoke",
                back=list_url(ApiToken),
                facts=tuple((f"{key[:8]}…", f"{name} ({user})") for _digest, key, name, user in chosen),
                hidden=(("action", "revoke_tokens"), *(("_selected_action", digest) for digest, *_rest in chosen)),
                danger=True,
            )
            return ask(request, model_admin=self, question=question)
        number, _kinds = queryset.delete()
        self.message_user(request, f"{number:,} tokens revoked.", messages.SUCCESS)
        return None

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Ours only."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    made = moment_column("created", "Made")
    ends = moment_column("expiry", "Expires")
    used = moment_column("last_used_at", "Last used")

    @display(description="Name", ordering="name")
    def title(self, token: ApiToken) -> str:
        """What it is for; a token of a script may have none."""
        return token.name or "–"

    @display(description="Begins with")
    def begins(self, token: ApiToken) -> str:
        """Enough to tell it by."""
        return f"{token.token_key[:8]}…"

    @display(description="May")
    def opens(self, token: ApiToken) -> str:
        """Its scopes."""
        return ", ".join(token.scopes)

    @display(description="State", label={"valid": "success", "expired": "danger"})
    def state_label(self, token: ApiToken) -> tuple[str, str]:
        """Whether it still opens anything."""
        expired = token.expiry is not None and token.expiry < timezone.now()
        return ("expired", "Expired") if expired else ("valid", "Valid")
