"""STOP ALL in the admin: the history of halts, and the two questions."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from unfold.decorators import display

from devices.access import AnyUser, Role, role_of
from devices.admin_base import ReadOnlyAdmin
from devices.admin_pages import Question, ask, confirmed
from devices.admin_text import moment_column
from messaging import halting
from messaging.models import Halt


def may_halt(user: AnyUser) -> bool:
    """Admins and operators stop everything."""
    return role_of(user) in {Role.ADMIN, Role.OPS}


def may_resume(user: AnyUser) -> bool:
    """Only admins go on."""
    return role_of(user) is Role.ADMIN


@admin.register(Halt)
class HaltAdmin(ReadOnlyAdmin):
    """Every time that everything was stopped: who, when and why."""

    list_display = ("started", "started_by", "reason", "state_label", "ended", "ended_by")
    list_display_links = None
    list_select_related = ("started_by", "ended_by")
    ordering = ("-started_at",)
    search_fields = ("reason",)
    search_help_text = "Words of the reason"
    empty_hint = "Nothing was ever stopped. The button above stops every device within two seconds."
    list_before_template = "admin/messaging/halt_now.html"

    started = moment_column("started_at", "Stopped", in_full=True)
    ended = moment_column("ended_at", "Went on", in_full=True)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may stop everything."""
        return may_halt(request.user)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Halt]:
        """All of them: a halt is the whole installation's."""
        return Halt.objects.all()

    def get_urls(self) -> list[URLPattern]:
        """The two questions."""
        wrap = self.admin_site.admin_view
        return [
            path("stop/", wrap(self.stop_view), name="messaging_halt_stop"),
            path("resume/", wrap(self.resume_view), name="messaging_halt_resume"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, below how things stand."""
        context = {"halt": halting.current(), "may_resume": may_resume(request.user)}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @display(description="State", label={"force": "danger", "over": "default"})
    def state_label(self, halt: Halt) -> tuple[str, str]:
        """Whether it is in force."""
        return ("over", "Over") if halt.ended_at else ("force", "In force")

    def stop_view(self, request: HttpRequest) -> HttpResponse:
        """Stop everything."""
        if not may_halt(request.user):
            raise PermissionDenied
        if not confirmed(request):
            moving = halting.backlog()
            question = Question(
                title="Stop everything?",
                text="From this moment no message is released or sent, by any device, until somebody goes on. What is"
                " at a gateway right now ends as it ends. Nothing is lost; it survives restarts.",
                button="Stop everything",
                back=reverse("admin:messaging_halt_changelist"),
                facts=(
                    ("Messages that wait", f"{moving.messages:,}"),
                    ("Running batches", f"{moving.batches:,}"),
                    ("Devices with something to send", f"{moving.devices:,}"),
                ),
                field=("reason", "Why (optional, everybody will read it)"),
                danger=True,
            )
            return ask(request, model_admin=self, question=question)
        halt = halting.halt(
            now=timezone.now(), by=cast("User", request.user), reason=request.POST.get("reason", "").strip()
        )
        self.log_addition(request, halt, "Stopped everything.")
        self.message_user(request, "Everything is stopped.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:messaging_halt_changelist"))

    def resume_view(self, request: HttpRequest) -> HttpResponse:
        """Go on, having seen how much starts to move."""
        if not may_resume(request.user):
            raise PermissionDenied
        halt = halting.current()
        if halt is None:
            self.message_user(request, "Nothing is stopped.", messages.WARNING)
            return HttpResponseRedirect(reverse("admin:messaging_halt_changelist"))
        if not confirmed(request):
            moving = halting.backlog()
            question = Question(
                title="Go on?",
                text="What is due goes out again, each device in its own rhythm.",
                button="Go on",
                back=reverse("admin:messaging_halt_changelist"),
                facts=(
                    ("Stopped because", halt.reason or "no reason given"),
                    ("Messages that start to move", f"{moving.messages:,}"),
                    ("Batches", f"{moving.batches:,}"),
                    ("Devices", f"{moving.devices:,}"),
                ),
            )
            return ask(request, model_admin=self, question=question)
        if halting.resume(now=timezone.now(), by=cast("User", request.user)):
            self.log_change(request, halt, "Went on.")
            self.message_user(request, "Messages go out again.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:messaging_halt_changelist"))
