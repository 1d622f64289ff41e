"""Attachments in the admin: upload one or name an address, and see what became of it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from devices.admin_base import OwnedAdmin, OwnedForm
from messaging.admin_preview import preview_of
from messaging.media import store
from messaging.media.models import MediaFile, MediaKind
from messaging.media.problems import MediaRefused
from messaging.media.signing import path_for


class NewMediaForm(OwnedForm):
    """A file or an address. What is wrong with it is said at its field; sound ones are stored at once."""

    file = forms.FileField(required=False, widget=UnfoldAdminFileFieldWidget)
    url = forms.CharField(
        required=False, max_length=2048, label="Or its address", widget=UnfoldAdminTextInputWidget,
        help_text="On the public Internet. It is fetched once, now, and kept.",
    )  # fmt: skip
    kind = forms.ChoiceField(
        required=False, choices=[("", "What it is"), *MediaKind.choices], label="Send it as",
        widget=UnfoldAdminSelectWidget, help_text="Pictures are made small; as a document they stay as they are.",
    )  # fmt: skip

    class Meta:
        model = MediaFile
        fields: list[str] = []

    def clean(self) -> dict[str, Any]:
        """Store it, and let the form be about the row that came of it."""
        cleaned = super().clean()
        upload, url, kind = cleaned.get("file"), cleaned.get("url", ""), cleaned.get("kind", "")
        if bool(upload) == bool(url):
            if not self.errors:
                self.add_error("file", "Choose a file, or give an address.")
            return cleaned
        try:
            if upload:
                if upload.size > settings.FLOTILLA_MEDIA_MAX_BYTES:
                    raise store.too_large()
                found = store.keep(owner=self.user, data=upload.read(), name=upload.name, kind=kind)  # type: ignore[arg-type]
            else:
                found = store.keep_url(owner=self.user, url=url.strip(), kind=kind)  # type: ignore[arg-type]
        except MediaRefused as problem:
            self.add_error("file" if upload else "url", problem.text)
        else:
            self.instance = found
        return cleaned


@admin.register(MediaFile)
class MediaFileAdmin(OwnedAdmin):
    """Files that messages carry."""

    form = NewMediaForm

    class Media:
        css = {"all": ("flotilla/preview.css",)}

    list_display = ("name", "kind", "mime_type", "size", "created_at")
    list_filter = (("kind", ChoicesDropdownFilter),)
    search_fields = ("name",)
    search_help_text = "Name of the file"
    readonly_fields = ("look", "name", "mime_type", "size", "pixels", "created_at")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[tuple[str | None, dict[str, Any]]]:
        """What to give; afterwards, what it became."""
        fields = ["file", "url", "kind"] if obj is None else ["look", "name", "kind", "mime_type", "size", "pixels"]
        return [(None, {"fields": fields if obj is None else [*fields, "created_at"]})]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Batches name it, so it stays what it is."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form has stored it."""

    def get_urls(self) -> list[URLPattern]:
        """The preview of messages, before Django's catch-all."""
        view = self.admin_site.admin_view(require_POST(self.preview_view))
        return [path("preview/", view, name="messaging_preview"), *super().get_urls()]

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """What is typed, as a lead would see it: a part of a page. Nothing is saved."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        return preview_of(request)

    @display(description="Size", ordering="size_bytes")
    def size(self, media: MediaFile) -> str:
        """In words."""
        return filesizeformat(media.size_bytes)

    @display(description="Pixels")
    def pixels(self, media: MediaFile) -> str:
        """Width and height of a picture."""
        return f"{media.width} × {media.height}" if media.width else "–"

    @display(description="File")
    def look(self, media: MediaFile) -> SafeString:
        """The picture itself, or a link."""
        url = path_for(media_id=media.pk, now=timezone.now())
        if media.kind == MediaKind.IMAGE:
            return format_html('<img class="fl-picture" src="{}" alt="{}">', url, media.name)
        return format_html('<a class="fl-link" href="{}">{}</a>', url, media.name)
