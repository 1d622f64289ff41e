"""What every page of the admin shares: who sees and changes which rows, forms that save only what was changed, and
lists that cost the same however many rows there are.

Permissions follow roles (:mod:`devices.access`), never Django's model permissions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import unfold.paginator
from django import forms
from django.contrib.admin import AdminSite, ShowFacets
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import FieldDoesNotExist
from django.core.paginator import Paginator
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.functional import cached_property
from unfold.admin import ModelAdmin, StackedInline, TabularInline
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.views import ChangeList
from unfold.widgets import UnfoldAdminTextInputWidget

from devices.access import Access, Role, may_change, may_change_row, role_of
from devices.admin_text import DIRECTIONS, plain_column
from devices.models import Device

READING = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_PAGES = 1000
"""An OFFSET reads every row before it, so nobody pages deeper than this: filters go further."""


class AtLeast(int):
    """A number of rows that was not counted to its end; says so wherever it is written."""

    def __str__(self) -> str:
        return f"{int(self):,}+"


class BoundedPaginator(Paginator):
    """Counts up to a bound and no further: a page costs the same however many rows follow, and says “10,000+” then.

    The rows behind the bound have no page either. Filters reach them, and a segment's own page counts to the end.
    """

    bound = 10_000

    @cached_property
    def count(self) -> int:
        """Rows, or :class:`AtLeast` ``bound`` where there are more."""
        if not isinstance(self.object_list, QuerySet):
            return len(self.object_list)
        found = self.object_list.order_by()[: self.bound + 1].count()
        return AtLeast(self.bound) if found > self.bound else found


class InfinitePaginator(unfold.paginator.InfinitePaginator):
    """Never counts: previous and next, for tables where COUNT(*) reads millions of rows.

    Named like the one it extends: unfold's templates go by the name.
    """

    @cached_property
    def count(self) -> int:
        """As many rows as the deepest page allowed would show; nobody looks at this number."""
        return self.per_page * MAX_PAGES


class PageList(ChangeList):
    """A list that lets its admin look up what the rows of one page need, in one go (``attach``).

    Without search and filters all rows are the result, which is said where unfold would show both numbers.
    """

    result_list: Any

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """Where no column may be sorted by (``sortable_by = ()``), not by an address made by hand either."""
        if self.model_admin.sortable_by is not None and not self.model_admin.sortable_by:
            return list(self.model_admin.get_ordering(request) or self.lookup_opts.ordering)
        return list(super().get_ordering(request, queryset))

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not (self.query or self.has_active_filters) or isinstance(self.result_count, AtLeast):
            self.full_result_count = self.result_count
        attach = getattr(self.model_admin, "attach", None)
        if attach is not None:
            rows: list[Any] = list(self.result_list)
            self.result_list = rows
            attach(request, rows)


class OwnedForm(forms.ModelForm):
    """A form that fills in the owner for people who may not choose one, and keeps related rows within one owner.

    ``user`` is set by the admin. ``changed_columns`` names what :meth:`OwnedAdmin.save_model` writes.
    """

    user: AbstractBaseUser

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if _has_owner(self._meta.model) and "owner" not in self.fields and self.instance.pk is None:
            self.instance.owner = self.user
        for name in DIRECTIONS.keys() & self.fields.keys():
            self.fields[name].widget.attrs.setdefault("dir", DIRECTIONS[name])

    def _get_validation_exclusions(self) -> set[str]:
        """Names are unique per owner, so that constraint is checked also where the owner is not on the form."""
        return {name for name in super()._get_validation_exclusions() if name != "owner"}  # type: ignore[misc]

    def clean(self) -> dict[str, Any]:
        """Everything named here must belong to the same person as the row itself."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if _has_owner(self._meta.model):
            owner = cleaned.get("owner") or getattr(self.instance, "owner", None)
            for name, value in list(cleaned.items()):
                if _has_owner(type(value)) and owner is not None and value.owner_id != owner.pk:
                    self.add_error(name, f"“{value}” belongs to {value.owner}; choose one that belongs to {owner}.")
        return cleaned

    def changed_columns(self) -> set[str]:
        """Names of the model's fields that this form changed."""
        return {name for name in self.changed_data if _model_field(self._meta.model, name) is not None}


class RoleMixin:
    """Permissions from the role; which rows, from ``visible_to``."""

    model: Any
    read_only = False

    def access(self) -> Access | None:
        """Where the model keeps its owner and device; None for models that belong to nobody."""
        return getattr(self.model, "access", None)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """An app is shown to those who may see something in it."""
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Admin and staff; team where rows hang on a device; nobody else."""
        access = self.access()
        match role_of(request.user):
            case Role.ADMIN:
                return True
            case Role.STAFF:
                return access is not None
            case Role.TEAM:
                return access is not None and access.device is not None
            case _:
                return False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may change rows may add their own."""
        return not self.read_only and may_change(request.user) and self.has_view_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Rows of their own, to those who may change anything. An inline is asked about the row it stands in."""
        may = may_change(request.user) if obj is None else may_change_row(request.user, obj)
        return not self.read_only and may and self.has_view_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The same."""
        may = may_change(request.user) if obj is None else may_change_row(request.user, obj)
        return not self.read_only and may and self.has_view_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Only what the person may see; where they act on rows, one or many, only what they may change."""
        found = super().get_queryset(request)  # type: ignore[misc]
        if self.access() is None:
            return found
        return found.visible_to(request.user) if request.method in READING else found.changeable_by(request.user)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Choices are rows that the person may change: what is shared with them is not theirs to use."""
        related = db_field.remote_field.model
        if "queryset" not in kwargs and getattr(related, "access", None) is not None:
            choices = related._default_manager.changeable_by(request.user)  # noqa: SLF001 - Django's own idiom
            kwargs["queryset"] = choices.defer("credentials") if related is Device else choices
        return super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]


def _told_once(shown: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A field that is shown, worked out once for each row that was loaded: unfold's page asks for it six times."""

    @wraps(shown)
    def told(row: Any) -> Any:
        known = row.__dict__.setdefault("_told", {}) if row is not None else {}
        if shown.__name__ not in known:
            known[shown.__name__] = shown(row)
        return known[shown.__name__]

    return told


class OwnedAdmin(RoleMixin, ModelAdmin):
    """Base of all our admins."""

    form = OwnedForm
    formfield_overrides = {
        ArrayField: {"widget": UnfoldAdminTextInputWidget},
        models.URLField: {"form_class": partial(forms.URLField, assume_scheme="https")},
    }
    empty_hint = ""
    """What to do first, where a list has no rows."""
    list_per_page = 50
    show_full_result_count = False
    show_facets = ShowFacets.NEVER  # a COUNT per choice of every filter
    paginator: type[Paginator] = BoundedPaginator
    list_filter_submit = True
    warn_unsaved_form = True
    attach: Callable[[HttpRequest, list[Any]], None] | None = None

    class Media:
        css = {"all": ["flotilla/admin.css"]}

    def __init__(self, model: type[models.Model], admin_site: AdminSite) -> None:
        super().__init__(model, admin_site)
        for name in self.readonly_fields:
            if callable(found := getattr(self, str(name), None)):
                setattr(self, str(name), _told_once(found))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Our list, which can look things up per page."""
        return PageList

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Where not all rows were counted, the page says so: templates would write the number like any other."""
        answer = super().changelist_view(request, extra_context)
        shown = getattr(answer, "context_data", {}).get("cl")
        if shown is not None and isinstance(shown.result_count, AtLeast):
            shown.result_count = shown.full_result_count = str(shown.result_count)
        return answer

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Without Django's bulk delete: it loads every row that hangs on the chosen ones into memory."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """No buttons on a row that is only theirs to look at."""
        shown: list[Any] = super().get_actions_detail(request, object_id)
        if not shown or role_of(request.user) is not Role.STAFF or not str(object_id).isdecimal():
            return shown
        row = self.get_queryset(request).filter(pk=object_id).first()
        return shown if row is None or may_change_row(request.user, row) else []

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """The form, told who is asking."""
        form = super().get_form(request, obj, change=change, **kwargs)
        form.user = request.user
        return form

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Admins choose an owner; most of the time it is themselves."""
        mine = {"owner": request.user.pk} if self._shows_owner(request) else {}
        return {**mine, **super().get_changeform_initial_data(request)}

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[tuple[str | None, dict[str, Any]]]:
        """Only admins see an owner: everybody else's rows are their own. Team members get no links to closed doors."""
        fieldsets = super().get_fieldsets(request, obj)
        match role_of(request.user):
            case Role.ADMIN:
                return fieldsets
            case Role.TEAM if obj is not None:
                shut = {
                    name: column for name in flatten_fieldsets(fieldsets) if (column := self._shut(request, obj, name))
                }
            case _:
                shut = {}
        return [(title, {**options, "fields": _fields(options["fields"], shut)}) for title, options in fieldsets]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        """The owner is chosen once: what hangs on a row would otherwise belong to somebody else."""
        fields = tuple(super().get_readonly_fields(request, obj))
        return (*fields, "owner") if obj is not None and _has_owner(self.model) else fields

    def get_list_display(self, request: HttpRequest) -> Sequence[Any]:
        """Admins see whose rows they are."""
        columns = tuple(super().get_list_display(request))
        return (*columns, "owner") if self._shows_owner(request) else columns

    def get_list_filter(self, request: HttpRequest) -> Sequence[Any]:
        """Admins may filter by owner."""
        filters = tuple(super().get_list_filter(request))
        return (*filters, ("owner", RelatedDropdownFilter)) if self._shows_owner(request) else filters

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Owners come along, for the column."""
        found = super().get_queryset(request)
        return found.select_related("owner") if self._shows_owner(request) else found

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Write only the columns that were changed on the form.

        Workers write to the same rows (pacing, opt-outs, counters) while somebody has the form open; saving all of it
        would put back what they have changed since.
        """
        if not change:
            super().save_model(request, obj, form, change)
            return
        columns = form.changed_columns()
        if columns:
            columns |= {f.name for f in obj._meta.concrete_fields if getattr(f, "auto_now", False)}  # noqa: SLF001
            obj.save(update_fields=sorted(columns))

    def _shut(self, request: HttpRequest, row: Any, name: str) -> Callable[[Any], Any] | None:
        """The related row ``name`` of ``row`` as plain text, if its page would not open; else None."""
        field = _model_field(self.model, name) if isinstance(name, str) else None
        if not isinstance(field, models.ForeignKey) or not self.admin_site.is_registered(field.related_model):
            return None
        related = self.admin_site.get_model_admin(field.related_model)
        opens = (
            related.has_view_permission(request)
            and related.get_queryset(request).filter(pk=getattr(row, field.attname)).exists()
        )
        return None if opens else plain_column(name, str(field.verbose_name))

    def _shows_owner(self, request: HttpRequest) -> bool:
        return _has_owner(self.model) and role_of(request.user) is Role.ADMIN


class ReadOnlyAdmin(OwnedAdmin):
    """Rows that only the system writes."""

    read_only = True


class OwnedInline(RoleMixin, TabularInline):
    """Rows shown inside the page of the row they belong to."""

    extra = 0


class OwnedStackedInline(RoleMixin, StackedInline):
    """The same, each row as a form of its own: for rows with many fields."""

    extra = 0


class ReadOnlyInline(OwnedInline):
    """Rows that only the system writes, shown inside another's page."""

    read_only = True
    can_delete = False


def _fields(names: Sequence[Any], instead: Mapping[str, Any]) -> list[Any]:
    """A fieldset's fields (some side by side in a tuple) without the owner, and with ``instead`` of some."""
    return [
        tuple(_fields(name, instead)) if isinstance(name, list | tuple) else instead.get(name, name)
        for name in names
        if name != "owner"
    ]


def _model_field(model: Any, name: str) -> models.Field[Any, Any] | None:
    try:
        return model._meta.get_field(name)  # noqa: SLF001 - Django's documented model API
    except FieldDoesNotExist:
        return None


def _has_owner(model: Any) -> bool:
    """Whether rows of ``model`` carry their owner themselves."""
    access = getattr(model, "access", None)
    return isinstance(access, Access) and access.owner == "owner"
