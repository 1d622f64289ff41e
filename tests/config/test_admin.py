"""The admin as a whole: home page, sidebar, users, roles, tokens, and addresses that must not act on a GET."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.contrib.staticfiles import finders
from django.test import Client, RequestFactory
from django.utils import timezone

from campaigns import services
from config.token_models import ApiToken
from devices.models import DeviceShare
from messaging.models import Message, Stream
from tests.browsing import signed_in
from tests.factories import make_batch, make_campaign, make_device, make_leads, make_pool, make_user, messages_of

pytestmark = pytest.mark.django_db

TOKENS = "/admin/config/apitoken/"
USERS = "/admin/auth/user/"


def superuser() -> User:
    return User.objects.create_superuser("root", password="pw")


# -- Home --------------------------------------------------------------------------------------------------------------


def test_home_shows_devices_runs_todays_messages_and_failures() -> None:
    me = make_user(role="staff")
    pool, _devices = make_pool(owner=me, devices=3)
    make_device(owner=me, state="paused")
    make_leads(4, owner=me)
    run = services.launch(campaign=make_campaign(owner=me, pool=pool, name="Raya greetings"), now=timezone.now()).run
    run = services.trigger(run_id=run.pk, now=timezone.now())
    assert run.batch is not None
    message = messages_of(run.batch)[0]
    Message.objects.filter(pk=message.pk).update(state="failed", error_text="Not on WhatsApp.")
    Stream.objects.filter(pk=message.stream_id).update(waiting=1, failed=1)
    text = signed_in(me).get("/admin/").content.decode()
    assert "Raya greetings" in text
    assert "1 of 4" in text
    assert "Not on WhatsApp." in text
    assert 'data-part="Failed">1<' in text
    assert 'data-part="Pending">3<' in text
    assert re.search(r"Connected\s*</span>\s*</div>\s*<div[^>]*>3<", text)
    assert 'data-poll-seconds="10"' in text
    stranger = signed_in(make_user(role="staff")).get("/admin/").content.decode()
    assert "Raya greetings" not in stranger
    assert "Not on WhatsApp." not in stranger
    assert 'data-part="Failed">0<' in stranger


def test_home_counts_only_shared_devices_for_team_members() -> None:
    owner, member = make_user(role="staff"), make_user(role="team")
    shared, private = make_device(owner=owner), make_device(owner=owner)
    DeviceShare.objects.create(device=shared, user=member)
    make_batch(owner=owner, devices=[shared, private], leads=5)
    text = signed_in(member).get("/admin/").content.decode()
    assert 'data-part="Pending">3<' in text
    assert "Running campaigns" not in text


def test_queued_messages_are_told_apart_from_pending_ones() -> None:
    me = make_user(role="staff")
    device = make_device(owner=me)
    batch = make_batch(owner=me, devices=[device], leads=3)
    Message.objects.filter(pk=messages_of(batch)[0].pk).update(state="queued", lane=0, queued_at=timezone.now())
    news = signed_in(me).get("/admin/overview/").json()
    assert 'data-part="Queued">1<' in news["html"]
    assert 'data-part="Pending">2<' in news["html"]


def test_ops_and_people_without_a_role_see_no_figures() -> None:
    make_batch(owner=make_user(), devices=[make_device(owner=make_user())], leads=1)
    for user, words in ((make_user(role="ops"), "Flower"), (make_user(role="nobody"), "has no role")):
        text = signed_in(user).get("/admin/").content.decode()
        assert words in text
        assert "data-part" not in text


def test_the_moving_part_of_home_needs_a_log_in_and_a_bounded_number_of_queries(
    client: Client, django_assert_max_num_queries: Any
) -> None:
    assert client.get("/admin/overview/").status_code == 302
    boss = make_user(role="admin")
    make_batch(owner=boss, devices=[make_device(owner=boss) for _ in range(20)], leads=60)
    Message.objects.update(state="failed")
    signed = signed_in(boss)
    with django_assert_max_num_queries(22):
        assert "All failed" in signed.get("/admin/overview/").json()["html"]
    with django_assert_max_num_queries(30):
        signed.get("/admin/")


@pytest.mark.parametrize(
    ("role", "links", "without"),
    [
        ("admin", ["Campaigns", "Users", "API tokens", "Devices"], []),
        ("staff", ["Campaigns", "Leads", "API tokens"], ["Users"]),
        ("team", ["Leads", "Messages", "Devices"], ["Campaigns", "Users", "Batches", "Pools"]),
        ("ops", ["API tokens"], ["Leads", "Messages", "Devices", "Users"]),
    ],
)
def test_the_sidebar_shows_what_opens_and_all_of_it_opens(role: str, links: list[str], without: list[str]) -> None:
    client = signed_in(make_user(role=role))
    navigation = client.get("/admin/").context["sidebar_navigation"]
    found = {item["title"]: item["link"] for group in navigation for item in group["items"]}
    assert set(links) <= set(found)
    assert not set(without) & set(found)
    for link in found.values():
        assert client.get(link).status_code == 200


# -- Every page --------------------------------------------------------------------------------------------------------


def test_every_list_and_every_form_opens_for_an_admin_within_thirty_queries(django_assert_max_num_queries: Any) -> None:
    client = signed_in(superuser())
    make_batch(owner=make_user(), devices=[make_device(owner=make_user())], leads=3)
    for model, model_admin in admin.site._registry.items():
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        with django_assert_max_num_queries(30):
            assert client.get(base).status_code == 200, base
        assert client.get(f"{base}add/").status_code in {200, 403}, base
        row = model._default_manager.first()
        if row is not None and model_admin.list_display_links is not None:
            assert client.get(f"{base}{row.pk}/change/").status_code == 200, base


def test_nothing_needs_a_cdn_or_an_inline_script_of_ours() -> None:
    text = signed_in(superuser()).get("/admin/").content.decode()
    addresses = re.findall(r'(?:src|href)="(https?:)?//', text)
    assert addresses == []
    assert finders.find("flotilla/poll.js")
    assert finders.find("flotilla/admin.css")


# -- Pages that say no, and the icon -----------------------------------------------------------------------------------


def test_refusals_are_pages_of_the_admin_with_a_way_on() -> None:
    member = signed_in(make_user(role="team"))
    for address, status, words in (
        ("/admin/devices/pool/", 403, "This page is not open to you"),
        ("/admin/nothing/here/", 404, "There is nothing here"),
        ("/nowhere", 404, "There is nothing here"),
    ):
        answer = member.get(address)
        text = answer.content.decode()
        assert answer.status_code == status, address
        assert words in text, address
        assert 'href="/admin/devices/device/"' in text, address  # the sidebar
        assert "unfold-theme-colors" in text, address
        assert "flotilla/favicon.svg" in text, address


def test_strangers_are_told_to_log_in_and_see_no_sidebar(client: Client) -> None:
    answer = client.get("/nowhere")
    text = answer.content.decode()
    assert answer.status_code == 404
    assert 'href="/admin/login/"' in text
    assert "/admin/devices/device/" not in text


def test_a_form_without_its_token_is_refused_in_words() -> None:
    answer = Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "anna", "password": "pw"})
    assert answer.status_code == 403
    assert "This form has grown too old" in answer.content.decode()


def test_people_without_a_role_are_refused_tokens_by_the_same_page() -> None:
    answer = signed_in(make_user(role="nobody")).get(f"{TOKENS}add/")
    assert answer.status_code == 403
    assert "This page is not open to you" in answer.content.decode()


def test_every_page_names_the_icon_and_it_is_there(client: Client) -> None:
    from config.wsgi import application

    root = signed_in(superuser())
    for answer in (client.get("/admin/login/"), root.get("/admin/"), root.get("/api/docs")):
        links = re.findall(r'<link\s+rel="icon"\s+href="([^"]+)"', answer.content.decode())
        assert links == ["/static/flotilla/favicon.svg"]
    started: list[str] = []
    environ = {**RequestFactory().get(links[0]).environ}
    with closing(application(environ, lambda status, headers: started.append(status))) as file:
        body = b"".join(file)
    assert started == ["200 OK"]
    assert b"<svg" in body


# -- Users and roles ---------------------------------------------------------------------------------------------------


def test_an_admin_adds_a_person_with_a_role_who_can_log_in() -> None:
    staff, _ = Group.objects.get_or_create(name="staff")
    Group.objects.create(name="something else")
    client = signed_in(make_user(role="admin"))
    assert "something else" not in client.get(f"{USERS}add/").content.decode()
    password = "correct horse battery"
    data = {"username": "anna", "password1": password, "password2": password, "usable_password": "true"}
    client.post(f"{USERS}add/", {**data, "groups": [str(staff.pk)], "is_staff": "on"})
    anna = User.objects.get(username="anna")
    assert list(anna.groups.all()) == [staff]
    assert Client().post("/admin/login/", {"username": "anna", "password": password}).status_code == 302


def test_group_admins_do_not_make_or_change_superusers() -> None:
    root, client = superuser(), signed_in(make_user(role="admin"))
    assert "is_superuser" not in client.get(f"{USERS}{make_user().pk}/change/").content.decode()
    someone = make_user(role="staff")
    moment = {"last_login_0": "", "last_login_1": ""}
    data = {"username": someone.username, "is_active": "on", "is_staff": "on", "is_superuser": "on", **moment}
    client.post(f"{USERS}{someone.pk}/change/", data)
    someone.refresh_from_db()
    assert someone.is_superuser is False
    assert client.post(f"{USERS}{root.pk}/change/", {"username": "hacked"}).status_code == 403
    assert client.get(f"{USERS}{root.pk}/password/").status_code == 403


def test_users_are_made_inactive_not_deleted_and_roles_are_read_only() -> None:
    client, someone = signed_in(superuser()), make_user(role="staff")
    assert client.post(f"{USERS}{someone.pk}/delete/", {"post": "yes"}).status_code == 403
    groups = client.get("/admin/auth/group/").content.decode()
    assert "Sees and changes what they own; looks at devices shared with them" in groups
    assert client.get("/admin/auth/group/add/").status_code == 403
    assert signed_in(someone).get(USERS).status_code == 403
    assert signed_in(someone).get("/admin/auth/group/").status_code == 403


# -- Tokens ------------------------------------------------------------------------------------------------------------


def new_token(user: User, **changes: Any) -> dict[str, Any]:
    """What the form sends."""
    given = {"user": str(user.pk), "name": "web shop", "scopes": ["devices:read"], "expires_in_days": "7"}
    return {**given, **changes}


def test_a_token_is_shown_once_and_opens_the_api() -> None:
    me = make_user(role="staff")
    client = signed_in(me)
    answer = client.post(f"{TOKENS}add/", new_token(me))
    token = answer.context["token"]
    assert token in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    row = ApiToken.objects.get()
    assert (row.user, row.name, row.scopes) == (me, "web shop", ["devices:read"])
    assert timedelta(days=6) < row.expiry - timezone.now() <= timedelta(days=7)
    for address in (TOKENS, f"{TOKENS}add/", "/admin/"):
        assert token not in client.get(address).content.decode()
    assert Client().get("/api/v1/devices", headers={"Authorization": f"Token {token}"}).status_code == 200
    assert Client().get("/api/v1/leads", headers={"Authorization": f"Token {token}"}).status_code == 403
    assert "web shop" in client.get(TOKENS).content.decode()
    endless = client.post(f"{TOKENS}add/", new_token(me, expires_in_days="100000"))
    assert endless.context["form"].errors["expires_in_days"] == ["At most 90 days (FLOTILLA_TOKEN_DAYS)."]


def test_tokens_are_private_and_made_for_oneself_only() -> None:
    me, other, boss = make_user(role="staff"), make_user(role="staff"), make_user(role="admin")
    foreign, _token = ApiToken.objects.create(user=other)
    client = signed_in(me)
    assert foreign.token_key[:8] not in client.get(TOKENS).content.decode()
    assert client.post(f"{TOKENS}add/", new_token(other)).context["token"] == ""
    client.post(TOKENS, {"action": "revoke_tokens", "_selected_action": [foreign.pk], "confirmed": "yes"})
    assert ApiToken.objects.get() == foreign
    assert foreign.token_key[:8] in signed_in(boss).get(TOKENS).content.decode()
    assert signed_in(boss).post(f"{TOKENS}add/", new_token(superuser())).context["token"] == ""


def test_revoking_asks_first() -> None:
    me = make_user(role="staff")
    row, _token = ApiToken.objects.create(user=me)
    client = signed_in(me)
    chosen = {"action": "revoke_tokens", "_selected_action": [row.pk]}
    assert "Revoke 1 API tokens?" in client.post(TOKENS, chosen).content.decode()
    assert ApiToken.objects.exists()
    client.post(TOKENS, {**chosen, "confirmed": "yes"})
    assert not ApiToken.objects.exists()


def test_signing_in_without_a_destination_leads_home() -> None:
    user = make_user(role="admin", username="ada", password="w0rd-of-mine")
    answer = Client().post("/admin/login/", {"username": user.username, "password": "w0rd-of-mine"}, follow=True)
    assert (answer.redirect_chain, answer.status_code) == ([("/admin/", 302)], 200)
