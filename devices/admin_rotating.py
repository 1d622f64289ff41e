"""Rows with a secret in the admin: shown once, in the answer that made it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action

from devices.admin_base import OwnedAdmin
from devices.admin_pages import Question, ask, change_url, confirmed, page, visible_or_404


class RotatingSecretAdmin(OwnedAdmin):
    """For models that are a :class:`~devices.rotating.RotatingSecret`; add ``rotate_secret`` to ``actions_detail``."""

    on_rotation: str
    """What the question says of the secret before: how long it counts, and what to do if it has leaked."""

    def secret_use(self, row: Any) -> str:
        """What the other side does with the secret."""
        raise NotImplementedError

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """A new row gets its secret."""
        if not change:
            obj.shown_secret = obj.equip()
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """The page that shows the secret: it is in no message and no redirect."""
        return self._shown(request, obj, obj.shown_secret)

    @action(description="New secret", icon="key", permissions=["change"])
    def rotate_secret(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask; on yes, make one and show it."""
        row = visible_or_404(self, request, object_id)
        if not confirmed(request):
            question = Question(
                title=f"A new secret for {row}?",
                text=f"It is shown once. {self.on_rotation}",
                button="Make a new secret",
                back=change_url(row),
            )
            return ask(request, model_admin=self, obj=row, question=question)
        secret = row.rotate(now=timezone.now())
        self.log_change(request, row, "Secret rotated.")
        return self._shown(request, row, secret)

    def _shown(self, request: HttpRequest, row: Any, secret: str) -> HttpResponse:
        context = {"secret": secret, "use": self.secret_use(row), "back": change_url(row)}
        answer = page(request, model_admin=self, template="admin/secret.html", title=str(row), context=context)
        answer["Cache-Control"] = "no-store"
        return answer
