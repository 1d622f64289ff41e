"""The content security policy, in a browser: our pages keep to it, and what somebody writes into one does not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from playwright.sync_api import Browser

from tests.browser.test_admin import browser  # noqa: F401 - a fixture
from tests.config import role_walk, role_world
from tests.factories import make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.timeout(900)]

PATIENCE_MS = 120_000
BROKEN = """
document.addEventListener('securitypolicyviolation', (event) => {
    console.warn(`broken: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
});
"""
INTRUDERS = """() => {
    const script = document.createElement('script');
    script.textContent = 'window.intruder = "script"';
    document.body.append(script);
    const frame = document.createElement('div');
    frame.innerHTML = '<img src="/nowhere.png" onerror="window.intruder = \\'handler\\'">';
    document.body.append(frame);
}"""
PAGES = ("/add/", "/change/", "/timeline/", "/progress/", "/pairing/", "/health/", "/queues/", "/second-factor/")


def pages(world: role_world.World) -> list[str]:
    """Every kind of page: lists, forms, and what is drawn or followed."""
    found = {"/admin/", "/admin/password_change/", "/api/docs", "/nowhere"}
    for route in role_walk.routes():
        is_list = route.pattern.count("/") == 3 and not any(sign in route.pattern for sign in ("<", "^", "/health/"))
        if route.in_admin and (is_list or f"/{route.pattern}".endswith(PAGES)):
            found.add(route.address(world))
    return sorted(found)


def test_no_page_breaks_the_policy_and_a_script_in_a_page_does_not_run(
    browser: Browser,  # noqa: F811
    live_server: Any,
    settings: Any,
    tmp_path: Path,
) -> None:
    settings.MEDIA_ROOT = tmp_path
    ContentType.objects.clear_cache()
    world = role_world.build()
    inside = Client()
    inside.force_login(make_user(role="admin"))
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    session = inside.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    context.add_init_script(BROKEN)
    page = context.new_page()
    said: list[str] = []
    page.on(
        "console",
        lambda message: (
            said.append(f"{page.url}: {message.text}")
            if "broken: " in message.text or "Content Security Policy" in message.text
            else None
        ),
    )
    walked = pages(world)
    assert len(walked) > 40
    for path in walked:
        page.goto(f"{live_server.url}{path}", wait_until="load")
    assert said == []

    for path in ("/admin/", "/api/docs"):
        page.goto(f"{live_server.url}{path}", wait_until="load")
        with page.expect_console_message(lambda message: "broken: script-src-attr" in message.text):
            page.evaluate(INTRUDERS)
        assert any("broken: script-src-elem inline" in line for line in said)
        assert page.evaluate("window.intruder") is None
        said.clear()
    context.close()
