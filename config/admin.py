"""Users, roles and the home page's own address in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Count, QuerySet
from django.http import HttpRequest, JsonResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from unfold.admin import ModelAdmin
from unfold.components import BaseComponent, register_component
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from config import (
    admin_audit,  # noqa: F401 - registers the audit trail
    admin_deleting,  # noqa: F401 - gives devices and leads the pages that delete them
    admin_devices,  # noqa: F401 - gives devices the page that sends a test, and says who serves them
    admin_health,
    admin_queues,
    admin_second_factor,
    admin_tokens,  # noqa: F401 - registers the API tokens
    admin_workers,
)
from config.admin_enrol import enrol_leads
from config.admin_merge import merge_view
from config.dashboard import overview
from devices.access import Role
from devices.admin_base import RoleMixin
from devices.admin_pages import fragment
from leads.models import Lead

ROLE_WORDS = {
    Role.ADMIN: "Sees and changes everything, and manages users.",
    Role.STAFF: "Sees and changes what they own; looks at devices shared with them and at what hangs on those.",
    Role.TEAM: "Looks at devices shared with them and at what hangs on those.",
    Role.OPS: "Looks after workers and queues; sees no leads and no messages.",
}

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(RoleMixin, DjangoUserAdmin, ModelAdmin):
    """People who log in. Their role is a group; Django's own permissions play no part."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "roles", "is_active", "last_login")
    list_filter = (("groups", RelatedDropdownFilter), "is_active")
    filter_horizontal = ()
    search_help_text = "Name or e-mail address"
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Access", {"fields": ("is_active", "is_staff", "groups", "is_superuser")}),
        ("Times", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "password1", "password2", "groups", "is_staff")}),)
    readonly_fields = ("last_login", "date_joined")

    class Media:
        css = {"all": ["flotilla/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        """With their roles."""
        return super().get_queryset(request).prefetch_related("groups")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Only a superuser makes superusers."""
        if request.user.is_superuser:
            return super().get_fieldsets(request, obj)
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name != "is_superuser"]})
            for title, options in super().get_fieldsets(request, obj)
        ]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """People who are added here should be able to log in here."""
        return {"is_staff": True, **super().get_changeform_initial_data(request)}

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Roles as boxes to tick."""
        if db_field.name == "groups":
            roles = Group.objects.filter(name__in=list(Role)).order_by("name")
            return forms.ModelMultipleChoiceField(
                roles,
                required=False,
                label="Roles",
                help_text="With several, the most powerful counts. Without any, a person sees nothing.",
                widget=forms.CheckboxSelectMultiple(attrs={"class": "fl-choices"}),
            )
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody but a superuser changes a superuser: a new password would be a way to become one."""
        if isinstance(obj, User) and obj.is_superuser and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Users stay, since their rows and the history of who did what need them; they can be made inactive."""
        return False

    @display(description="Roles", label=True)
    def roles(self, user: User) -> list[str] | str:
        """The groups that mean something here."""
        names = [group.name for group in user.groups.all() if group.name in set(Role)]
        return [*(["superuser"] if user.is_superuser else []), *names] or "none"


@admin.register(Group)
class GroupAdmin(RoleMixin, ModelAdmin):
    """The four roles, to read: what each may do is in the code, who has it is on the user's page."""

    read_only = True
    list_display = ("name", "may", "members")
    list_display_links = None
    search_fields = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        """The four, with how many people have them."""
        return super().get_queryset(request).filter(name__in=list(Role)).annotate(member_count=Count("user"))

    @display(description="May do")
    def may(self, group: Group) -> str:
        """In a sentence."""
        return ROLE_WORDS[Role(group.name)]

    @display(description="People")
    def members(self, group: Any) -> int:
        """How many have it."""
        return int(group.member_count)


@register_component
class Refusal(BaseComponent):
    """The frame of an error page: the admin with its sidebar for whoever is signed in, the log-in's for all others.

    Django renders its error pages without an admin's context, and unfold's frames have no colours without it.
    """

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """What the frame needs, beside what the page says."""
        inside = admin.site.has_permission(self.request)
        return {
            **admin.site.each_context(self.request),
            **kwargs,
            "inside": inside,
            "frame": "admin/base_site.html" if inside else "unfold/layouts/unauthenticated.html",
        }


def dashboard_view(request: HttpRequest) -> JsonResponse:
    """The home page's cards, fetched again every ten seconds."""
    cards = overview(user=request.user, now=timezone.now())
    return fragment(template="admin/dashboard_cards.html", context={"cards": cards})


def _urls() -> list[URLPattern]:
    return [
        path("overview/", admin.site.admin_view(dashboard_view), name="overview"),
        *admin_health.urls(),
        *admin_queues.urls(),
        *admin_workers.urls(),
        *admin_second_factor.urls(),
        path("merge-leads/<int:first>/<int:second>/", admin.site.admin_view(merge_view), name="merge_leads"),
    ]


def _context(context: dict[str, Any], request: HttpRequest) -> dict[str, Any]:
    """The home page's figures: worked out when a template reads them, which only that page's does."""
    return {**context, "cards": SimpleLazyObject(lambda: overview(user=request.user, now=timezone.now()))}


leads = admin.site.get_model_admin(Lead)
leads.actions = [*(leads.actions or []), enrol_leads]

# unfold's site asks itself for further addresses and context.
admin.site.extra_urls = _urls  # type: ignore[attr-defined]
admin.site.extra_context = _context  # type: ignore[attr-defined]
