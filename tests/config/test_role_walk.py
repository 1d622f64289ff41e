"""Every address of the installation, asked by every role: nothing opens that should not, and what should open does.

The addresses come from the resolver, and what is expected of each from the tables below: an address that they do not
know fails the test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.config import role_walk, role_world

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(600)]

CHANGERS = {"staff", "staff_shared", "owner", "admin"}
READERS = {"ops", "team", "team_shared", *CHANGERS}
OURS = {"owner", "admin"}
LOOKING = {"team_shared", "staff_shared"}

SHARED, OWNED, ALL = "hangs on a device", "belongs to its owner", "the installation's"
API = {
    "devices": SHARED, "queues": SHARED, "leads": SHARED, "messages": SHARED, "enrolments": SHARED, "replies": SHARED,
    "pools": OWNED, "leads/imports": OWNED, "leads/sources": OWNED, "segments": OWNED, "campaigns": OWNED,
    "runs": OWNED, "media": OWNED, "sequences": OWNED, "consent/waivers": OWNED, "audit": OWNED,
    "subscribers": OWNED, "deliveries": OWNED, "batches": OWNED,
}  # fmt: skip
ADMIN = {
    "device": SHARED, "lead": SHARED, "message": SHARED, "inboundmessage": SHARED, "enrolment": SHARED,
    "pool": OWNED, "leadimport": OWNED, "leadsource": OWNED, "segment": OWNED, "campaign": OWNED, "run": OWNED,
    "mediafile": OWNED, "batch": OWNED, "sequence": OWNED, "consentwaiver": OWNED, "auditentry": OWNED,
    "subscriber": OWNED, "delivery": OWNED,
    "user": ALL, "group": ALL, "halt": ALL, "apitoken": ALL,
}  # fmt: skip
READ_ONLY_PAGES = {"change", "history", "timeline", "progress", "life"}
"""Last parts of the pages of a row that those may open, too, with whom its device is shared."""
SECRET = {"webhook", "pairing", "status-link", "shares"}
"""Reading these is for those who may change the row."""
OPEN_TO_ALL = {
    "", "healthz", "readyz", "readyz/web", "metrics", "auth/flower", "hooks/leads/<slug:key>", "hooks/<slug:gateway>",
    "media/<str:token>", "status/<str:key>", "hooks/<slug:gateway>/<slug:key>",
    "api/v1/auth/token", "api/docs", "admin/login/", "admin/logout/",
}  # fmt: skip
"""What decides by itself who comes in; other tests say how."""
TO_THE_ROLE = {
    "api/v1/halt": {"get": READERS, "post": {"ops", "admin"}, "delete": {"admin"}},
    "api/v1/health": {"get": READERS},
    "api/v1/stats": {"get": READERS},
    "api/v1/queues": {"get": READERS},
    "api/v1/failed": {"get": READERS},
    "api/v1/workers": {"get": {"ops", "admin"}},
    "api/v1/schema": {"get": {*READERS, "roleless"}},
    "api/v1/auth/logout": {"post": {*READERS, "roleless"}, "delete": {*READERS, "roleless"}},
    "api/v1/consent/waivers": {"get": READERS, "post": {"admin"}},
    "api/v1/consent/waivers/<int:pk>": {"delete": {"admin"}},
    "api/v1/stats/days": {"get": READERS},
    "api/v1/users": {"get": {"admin"}, "post": {"admin"}},
    "api/v1/users/<int:pk>": {"get": {"admin"}, "patch": {"admin"}},
    "api/v1/tokens": {"get": READERS, "post": READERS},
    "api/v1/tokens/<uuid:pk>": {"get": OURS, "delete": OURS},
}
"""Addresses with a rule of their own."""


@pytest.fixture
def world(settings: Any, tmp_path: Path) -> role_world.World:
    settings.MEDIA_ROOT = tmp_path
    return role_world.build()


def api_opens_to(pattern: str, method: str) -> set[str]:
    """Who gets an answer from the API rather than a refusal."""
    if pattern in TO_THE_ROLE:
        return TO_THE_ROLE[pattern][method]
    parts = pattern.removeprefix("api/v1/").strip("^$").split("/")
    named = next(("/".join(parts[:length]) for length in (2, 1) if "/".join(parts[:length]) in API), None)
    assert named, f"{pattern} is new: say in this file who may open it"
    reads = method == "get" and parts[-1] not in SECRET
    if "pk" not in pattern:
        return READERS if reads else CHANGERS
    return OURS | (LOOKING if reads and API[named] is SHARED else set())


def api_refusal(pattern: str, method: str, person: str) -> set[str]:
    """How the API refuses: who one is, what one's role may not, and rows that are as if they did not exist."""
    if person == "anonymous":
        return {"401"}
    if pattern in TO_THE_ROLE:
        return {"403", "404"} if pattern.endswith("<uuid:pk>") else {"403"}
    if person == "roleless" or (method != "get" and person not in CHANGERS):
        return {"403"}
    return {"403", "404"} if person in LOOKING else {"404"} if "pk" in pattern else {"403"}


def admin_opens_to(pattern: str) -> set[str] | None:
    """Who gets a page of the admin by GET; None where that is not the role's question, but the page's."""
    parts = pattern.strip("/").split("/")[1:]
    if "<int:device_id>" in pattern:  # a device's queue, to be emptied
        return OURS
    if len(parts) < 2 or parts[1] not in ADMIN:
        of_an_app = pattern.startswith("admin/^(?P<app_label>")  # which lists the apps in an order that changes
        assert pattern in ABOUT_NO_ROW or of_an_app, f"{pattern} is new: say in this file who may open it"
        return None
    kind, model, rest = ADMIN[parts[1]], parts[1], parts[2:]
    if kind is ALL:
        return {"user": {"admin"}, "group": {"admin"}, "halt": {"ops", "admin"}}.get(model, READERS)
    if not rest:
        return READERS - {"ops"} if kind is SHARED else CHANGERS
    if "object_id" not in pattern:
        return CHANGERS
    return OURS | (LOOKING if kind is SHARED and rest[-1] in READ_ONLY_PAGES else set())


ABOUT_NO_ROW = {
    "admin/", "admin/search/", "admin/overview/", "admin/merge-leads/<int:first>/<int:second>/", "admin/login/",
    "admin/logout/", "admin/password_change/", "admin/password_change/done/", "admin/autocomplete/", "admin/jsi18n/",
    "admin/second-factor/",
    "admin/health/", "admin/health/state/", "admin/health/failed/", "admin/health/retry-all/", "admin/queues/",
    "admin/queues/state/", "admin/workers/", "admin/workers/state/",
    "admin/r/<path:content_type_id>/<path:object_id>/", "admin/(?P<url>.*)$",
}  # fmt: skip
QUESTIONS = {"opt_in", "opt_out", "erase", "link_device", "log_out_device", "test_device"}
"""Pages that ask before something is done: whoever sees the row may read the question, and not answer it."""
LEADS_ELSEWHERE = {
    "admin/config/apitoken/<path:object_id>/change/", "admin/leads/leadimport/<path:object_id>/change/",
}  # fmt: skip
"""A token's key is nowhere to be named by; an import that is a draft has a page of its own."""
CLOSED = {"403", "404", "405", "home", "login"}


@pytest.mark.parametrize("person", role_world.PEOPLE)
def test_nothing_opens_that_should_not(person, world):
    """Exactly so in the API. In the admin a refusal is a 403, a 404, or the way back with “there is no such row”."""
    wrong = []
    for asked, came in role_walk.answers(role_world.person(person, world), world):
        method, _, pattern = asked.partition(" ")
        if came.startswith("5"):
            wrong.append(f"{asked}: {came}")
        elif pattern in OPEN_TO_ALL:
            continue
        elif pattern.startswith("api/"):
            opens = person in api_opens_to(pattern, method.lower())
            refusals = api_refusal(pattern, method.lower(), person)
            fine = came not in {"401", "403"} if opens else came in refusals
            wrong += [] if fine else [f"{asked}: {came}, {'open' if opens else refusals} expected"]
        elif person == "anonymous":
            wrong += [] if came in {"login", "404"} else [f"{asked}: {came}"]
        else:
            opens_to = admin_opens_to(pattern)
            # the latter two only lead on, to the row's page and to the calendar
            if opens_to is None or pattern.endswith(("object_id>/", "/open-calendar/")):
                continue
            if method == "GET" and person in LOOKING and pattern.split("/")[-2] in QUESTIONS:
                continue
            if person not in opens_to and came not in CLOSED:
                wrong.append(f"{asked}: {came}, closed expected")
            answers = {"200"} if pattern not in LEADS_ELSEWHERE else {"200", "302", "home"}
            if person in opens_to and method == "GET" and pattern.endswith("/change/") and came not in answers:
                wrong.append(f"{asked}: {came}, 200 expected")
    assert not wrong, "\n".join(wrong)
