"""How the admin looks: what django-unfold is told."""

from __future__ import annotations

from typing import Any, Final

from django.templatetags.static import static
from django.urls import reverse_lazy

UNFOLD: Final[dict[str, Any]] = {
    "SITE_TITLE": "Flotilla",
    "SITE_HEADER": "Flotilla",
    "SITE_SUBHEADER": "Every message once",
    "SITE_SYMBOL": "sailing",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda _: static("flotilla/favicon.svg")},
    ],
    "LOGIN": {"form": "config.login.LoginForm"},
    "ACCOUNT": {
        "navigation": [
            {"title": "Change password", "link": reverse_lazy("admin:password_change")},
            {"title": "Second factor", "link": reverse_lazy("admin:second_factor")},
        ]
    },
    "STYLES": [lambda _: static("flotilla/theme.css")],
    "SCRIPTS": [lambda _: static("flotilla/zone.js"), lambda _: static("flotilla/names.js")],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {"show_search": True, "show_all_applications": False, "navigation": "config.navigation.sidebar"},
}
