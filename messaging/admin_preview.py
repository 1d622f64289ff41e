"""A message in a bubble, as a phone shows it, beside the form in which it is written; filled in while one types.

An admin whose form writes content mixes :class:`PreviewMixin` in and lists ``message_preview`` among its read-only
fields. The page's fields are found by their names: ``content_type`` (or ``type``), ``text``, ``media``, ``template``,
``greeting``, ``on_missing``.
"""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import display

from leads.models import Lead
from leads.phones import PhoneProblem, parse_phone
from messaging.content.preview import preview
from messaging.content.problems import ContentRefused
from messaging.content.shape import parse
from messaging.media.models import MediaFile
from messaging.media.signing import path_for


class PreviewMixin:
    """Of a ModelAdmin whose rows have a ``text``, or a ``content()`` that gives the whole of it."""

    @property
    def media(self) -> forms.Media:
        """With the script that asks."""
        own = forms.Media(js=["flotilla/preview.js"], css={"all": ["flotilla/preview.css"]})
        return super().media + own  # type: ignore[misc]

    @display(description="Preview")
    def message_preview(self, obj: Any) -> SafeString:
        """Filled in by the page's own script, and again whenever something is typed."""
        content = getattr(obj, "content", None)
        content = content() if callable(content) else content
        stored = content if isinstance(content, dict) else {"type": "text", "text": getattr(obj, "text", "")}
        context = {"url": reverse("admin:messaging_preview"), "stored": json.dumps(stored)}
        return render_to_string("admin/messaging/preview.html", context)


def preview_of(request: HttpRequest) -> HttpResponse:
    """The bubble for what a form holds now, or what is wrong with it."""
    context: dict[str, Any] = {}
    try:
        content = parse(_typed(request))
    except ContentRefused as refused:
        context["problems"] = [problem.text for problem in refused.problems]
        return render(request, "admin/messaging/preview_bubble.html", context)
    wanted = request.POST.get("preview_lead", "").strip()
    lead = _lead(request, wanted)
    found = preview(content, lead=lead, now=timezone.now(), seed=_number(request.POST.get("preview_seed", "")))
    context |= {"found": found, "lead": lead, "nobody": wanted and lead is None}
    if content.media is not None:
        media = MediaFile.objects.visible_to(request.user).filter(pk=content.media).first()
        context["media"] = media
        context["media_url"] = path_for(media_id=media.pk, now=timezone.now()) if media else ""
    return render(request, "admin/messaging/preview_bubble.html", context)


def _typed(request: HttpRequest) -> dict[str, Any]:
    """The content in a form's fields; on a page that can only be read, the stored one."""
    posted = request.POST
    if "text" not in posted:
        return _json(posted.get("preview_stored", ""))
    raw: dict[str, Any] = {"type": posted.get("content_type") or posted.get("type") or "text"}
    raw |= {"text": posted["text"].replace("\r\n", "\n")} if posted["text"] or raw["type"] == "text" else {}
    if posted.get("media"):
        raw["media"] = _number(posted["media"]) or None
    if posted.get("template"):
        raw["template"] = _json(posted["template"])
    return raw | {name: posted[name] for name in ("greeting", "on_missing") if posted.get(name)}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def _lead(request: HttpRequest, wanted: str) -> Lead | None:
    """The lead of this number, or the first whose name begins like that; unless one is named, the newest."""
    leads = Lead.objects.visible_to(request.user).order_by("-pk")
    if not wanted:
        return leads.first()
    try:
        return leads.filter(phone=parse_phone(wanted, region=settings.FLOTILLA_DEFAULT_REGION)).first()
    except PhoneProblem:
        return leads.filter(name__istartswith=wanted).first()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
