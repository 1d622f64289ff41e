"""Every address of the API, for every role: who sees whose row, and who may change it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from campaigns import services as campaigns
from config.api.urls import router
from config.audit_models import AuditEntry
from devices.models import Device, DeviceShare, Pool
from leads.models import LeadImport, LeadSource, Segment
from leads.services import create_import
from messaging.media.store import keep
from messaging.models import InboundMessage
from messaging.outgoing import subscribing
from messaging.outgoing.models import Subscriber
from messaging.services import send_single
from sequences.models import Enrolment, Sequence
from tests.api_support import V1, caller, fields_of, problem
from tests.factories import make_batch, make_campaign, make_device, make_leads, make_user

pytestmark = pytest.mark.django_db


@dataclass(frozen=True)
class Resource:
    """One kind of row: how to make one, what hangs below it, and what may be done to it."""

    make: Callable[[User, Device], Any]
    shared: bool = False  # seen by team members with whom its device is shared
    patch: dict[str, Any] | None = None
    post: dict[str, Any] | None = None
    deletable: bool = False
    actions: tuple[str, ...] = ()
    below: tuple[str, ...] = field(default=())
    ended: tuple[str, ...] = ()  # actions that those who may do them can also look at, and end
    together: tuple[str, ...] = ()  # actions on many rows at once
    whole: tuple[str, ...] = ()  # what is read of all rows at once


def _run(owner: User, device: Device) -> Any:
    make_leads(1, owner=owner, device=device)
    launched = campaigns.launch(campaign=make_campaign(owner=owner), now=timezone.now())
    return campaigns.trigger(run_id=launched.run.pk, now=timezone.now())


def _enrolment(owner: User, device: Device) -> Any:
    sequence = Sequence.objects.create(owner=owner, name="s")
    return Enrolment.objects.create(sequence=sequence, lead=make_leads(1, owner=owner, device=device)[0])


def _audit_entry(owner: User, device: Device) -> AuditEntry:
    return AuditEntry.objects.create(user=owner, action="POST x", event="insert", table="t", object_id=str(device.pk))


def _subscriber(owner: User, device: Device) -> Subscriber:
    return Subscriber.objects.get_or_create(
        owner=owner, name="s", url="https://example.com/", kinds=["reply.received"]
    )[0]


def _reply(owner: User, device: Device) -> InboundMessage:
    now = timezone.now()
    return InboundMessage.objects.create(
        gateway="simulator", event_id=f"reply-{device.pk}", device=device, phone="+60123456789", text="hi",
        written_at=now, received_at=now,
    )  # fmt: skip


def _import(owner: User, device: Device) -> LeadImport:
    return create_import(
        owner=owner, file=io.BytesIO(b"phone\n0123456789\n"), filename="x.csv", region="MY", consent_source="",
        device=device, draft=True,
    )  # fmt: skip


RESOURCES: dict[str, Resource] = {
    "audit": Resource(_audit_entry),
    "devices": Resource(lambda owner, device: device, shared=True, patch={"name": "renamed"},
                        post={"name": "n", "gateway": "simulator", "credentials": {"token": "t"}}, deletable=True,
                        actions=("pause", "resume", "refresh", "log-out", "clear-session", "pairing"),
                        ended=("pairing",), together=("reconnect",)),
    "pools": Resource(lambda owner, device: Pool.objects.create(owner=owner, name="p"), patch={"name": "renamed"},
                      post={"name": "n"}, deletable=True),
    "leads": Resource(lambda owner, device: make_leads(1, owner=owner, device=device)[0], shared=True,
                      patch={"name": "renamed"}, post={"phone": "+60123456789"}, deletable=True,
                      actions=("opt-out", "opt-in", "review"), below=("consent",), whole=("export",)),
    "leads/imports": Resource(_import, post={}, actions=("confirm", "preview"),
                              below=("problems", "problems.csv", "preview")),
    "segments": Resource(lambda owner, device: Segment.objects.create(owner=owner, name="s"),
                         patch={"name": "renamed"}, post={"name": "n", "rules": {"status": "customer"}},
                         deletable=True, together=("count",)),
    "leads/sources": Resource(lambda owner, device: LeadSource.objects.create(owner=owner, name="s", region="MY"),
                              patch={"name": "renamed"}, post={"name": "n"}, deletable=True, actions=("rotate",)),
    "campaigns": Resource(lambda owner, device: make_campaign(owner=owner), patch={"name": "renamed"},
                          post={"name": "n", "text": "t"}, deletable=True,
                          actions=("launch", "pause", "resume", "cancel", "clone", "test"),
                          below=("runs", "preview", "message"), together=("count",), whole=("summary",)),
    "runs": Resource(_run, actions=("pause", "resume", "cancel", "retry", "assign"),
                     below=("report", "devices", "devices.csv", "unassigned"), whole=("calendar",)),
    "messages": Resource(lambda owner, device: send_single(owner=owner, text="Hi", phone="+60123456780", device=device,
                                                           now=timezone.now()),
                         shared=True, post={"phone": "+60123456789", "text": "Hi"}, deletable=True,
                         actions=("retry",),
                         together=("retry", "settle", "preview"), whole=("export",)),
    "batches": Resource(lambda owner, device: make_batch(owner=owner, devices=[device]),
                        actions=("pause", "resume", "cancel")),
    "replies": Resource(_reply, shared=True),
    "media": Resource(lambda owner, device: keep(owner=owner, data=b"%PDF-1.7", name="p.pdf"),
                      post={"base64": "JVBERi0xLjc="}, deletable=True),
    "subscribers": Resource(_subscriber, patch={"name": "renamed"},
                            post={"name": "n", "url": "https://example.com/", "kinds": ["reply.received"]},
                            deletable=True, actions=("rotate", "test", "replay")),
    "deliveries": Resource(lambda owner, device: subscribing.test(subscriber=_subscriber(owner, device),
                                                                  now=timezone.now())),
    "sequences": Resource(lambda owner, device: Sequence.objects.create(owner=owner, name="s"),
                          patch={"name": "renamed"}, post={"name": "n"}, deletable=True,
                          actions=("activate", "pause", "resume", "enrol", "apply-edit", "retry-failed"),
                          below=("preview-edit", "progress", "versions", "devices.csv")),
    "enrolments": Resource(_enrolment, shared=True, actions=("pause", "resume", "remove")),
}  # fmt: skip

NAMES = sorted(RESOURCES)
WANTED = {"verdict": "sent", "rules": {}, "content": {"text": "Hi"}}
"""What actions on many rows are told; each reads its own part."""


@pytest.fixture(autouse=True)
def _media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def owner() -> User:
    return make_user()


@pytest.fixture
def device(owner: User) -> Device:
    return make_device(owner=owner)


def test_the_table_holds_every_address():
    assert {prefix for prefix, _, _ in router.registry} == set(RESOURCES)
    for prefix, viewset, _ in router.registry:
        every = [(action, method) for action in viewset.get_extra_actions() for method in action.mapping]
        resource = RESOURCES[prefix]
        assert {(action.url_path, method) for action, method in every if not action.detail} == {
            *((name, "post") for name in resource.together),
            *((name, "get") for name in resource.whole),
        }
        extra = {(action.url_path, method) for action, method in every if action.detail}
        assert extra == {
            *((name, "post") for name in resource.actions),
            *((name, "get") for name in resource.below),
            *((name, method) for name in resource.ended for method in ("get", "delete")),
        }
        assert hasattr(viewset, "create") == (resource.post is not None)
        assert hasattr(viewset, "update") == (resource.patch is not None)
        assert hasattr(viewset, "destroy") == resource.deletable


def sees(client: APIClient, name: str, row: Any) -> bool:
    """Whether the caller sees the row; list, detail and what hangs below must agree."""
    listed = client.get(f"{V1}/{name}")
    assert listed.status_code == 200
    in_list = row.pk in {found["id"] for found in listed.json()["results"]}
    detail = client.get(f"{V1}/{name}/{row.pk}")
    assert detail.status_code == (200 if in_list else 404), detail.content
    for below in RESOURCES[name].below:
        assert client.get(f"{V1}/{name}/{row.pk}/{below}").status_code == (200 if in_list else 404)
    return in_list


def writes(client: APIClient, name: str, row: Any) -> list[Any]:
    """The answers to everything that would change this row."""
    resource, address = RESOURCES[name], f"{V1}/{name}/{row.pk}"
    answers = [client.post(f"{address}/{action}") for action in resource.actions]
    answers += [client.delete(f"{address}/{name}") for name in resource.ended]
    if resource.patch is not None:
        answers += [client.patch(address, resource.patch), client.put(address, resource.patch)]
    if resource.deletable:
        answers.append(client.delete(address))
    return answers


@pytest.mark.parametrize("name", NAMES)
def test_owner_and_admin_see_a_row_and_other_staff_do_not(name, owner, device):
    row = RESOURCES[name].make(owner, device)
    assert sees(caller(owner), name, row)
    assert sees(caller(role="admin"), name, row)
    assert not sees(caller(role="staff"), name, row)
    assert not sees(caller(role="ops"), name, row)


@pytest.mark.parametrize("name", NAMES)
def test_a_team_member_sees_what_hangs_on_a_shared_device(name, owner, device):
    row = RESOURCES[name].make(owner, device)
    team = caller(role="team")
    assert not sees(team, name, row)
    DeviceShare.objects.create(device=make_device(owner=owner), user=team.user)  # another device of the same owner
    assert not sees(team, name, row)
    DeviceShare.objects.create(device=device, user=team.user)
    assert sees(team, name, row) == RESOURCES[name].shared


@pytest.mark.parametrize("name", NAMES)
def test_only_those_who_own_a_row_may_change_it(name, owner, device):
    row = RESOURCES[name].make(owner, device)
    before = type(row).objects.filter(pk=row.pk).values().get()
    team = caller(role="team")
    DeviceShare.objects.create(device=device, user=team.user)
    for client in (team, caller(role="ops"), caller(role="nobody")):
        for answer in writes(client, name, row):
            problem(answer, 403, "permission_denied")
    for answer in writes(caller(role="staff"), name, row):
        problem(answer, 404, "not_found")
    for answer in writes(APIClient(), name, row):
        problem(answer, 401, "not_authenticated")
    assert type(row).objects.filter(pk=row.pk).values().get() == before


@pytest.mark.parametrize("by", ["owner", "admin"])
@pytest.mark.parametrize("name", NAMES)
def test_owner_and_admin_may_change_it(name, by, owner, device):
    client = caller(owner) if by == "owner" else caller(role="admin")
    row = RESOURCES[name].make(owner, device)
    for answer in writes(client, name, row):
        assert answer.status_code not in {401, 403, 404}, answer.content
    if RESOURCES[name].deletable and name not in {"campaigns", "messages"}:  # launched on the way; not failed
        assert not type(row).objects.filter(pk=row.pk).exists()


@pytest.mark.parametrize("name", [name for name in NAMES if RESOURCES[name].post is not None])
def test_who_may_create(name):
    body = RESOURCES[name].post
    for role in ("team", "ops", "nobody"):
        problem(caller(role=role).post(f"{V1}/{name}", body), 403, "permission_denied")
    problem(APIClient().post(f"{V1}/{name}", body), 401, "not_authenticated")


@pytest.mark.parametrize("role", ["staff", "admin"])
@pytest.mark.parametrize("name", ["devices", "pools", "leads", "segments", "campaigns"])
def test_whoever_creates_owns_and_cannot_give_away(name, role):
    client, other = caller(role=role), make_user()
    answer = client.post(f"{V1}/{name}", {**RESOURCES[name].post, "owner": other.pk})
    assert answer.status_code == 201, answer.content
    assert answer.json()["owner"] == client.user.pk
    patched = client.patch(f"{V1}/{name}/{answer.json()['id']}", {"owner": other.pk})
    assert (patched.status_code, patched.json()["owner"]) == (200, client.user.pk)


@pytest.mark.parametrize(
    ("name", "relation", "extra"),
    [
        ("devices", "pool", {"name": "n", "gateway": "simulator", "credentials": {"token": "t"}}),
        ("leads", "device", {"phone": "+60123456789"}),
        ("campaigns", "pool", {"name": "n", "text": "t", "routing": "pooled"}),
        ("campaigns", "lead_device", {"name": "n", "text": "t"}),
        ("campaigns", "segment", {"name": "n", "text": "t"}),
        ("messages", "device", {"phone": "+60123456789", "text": "t"}),
        ("messages", "lead", {"text": "t"}),
    ],
)
def test_rows_of_others_cannot_be_put_into_ones_own(name, relation, extra, owner, device):
    """Not even by an admin, who sees them: what belongs together has one owner."""
    theirs = {
        "pool": lambda: Pool.objects.create(owner=owner, name="p"),
        "lead": lambda: make_leads(1, owner=owner, device=device)[0],
        "segment": lambda: Segment.objects.create(owner=owner, name="s"),
    }.get(relation, lambda: device)()
    for role in ("staff", "admin"):
        body = problem(caller(role=role).post(f"{V1}/{name}", {**extra, relation: theirs.pk}), 400, "invalid")
        assert fields_of(body) == {relation: "does_not_exist"}


def test_an_admin_edits_a_row_with_its_owners_other_rows(owner, device):
    pool = Pool.objects.create(owner=owner, name="p")
    admin = caller(role="admin")
    answer = admin.patch(f"{V1}/devices/{device.pk}", {"pool": pool.pk})
    assert (answer.status_code, answer.json()["pool"]) == (200, pool.pk)
    mine = Pool.objects.create(owner=admin.user, name="p")
    problem(admin.patch(f"{V1}/devices/{device.pk}", {"pool": mine.pk}), 400, "invalid")


@pytest.mark.parametrize("role", ["admin", "staff", "team", "ops"])
@pytest.mark.parametrize("name", [name for name in NAMES if RESOURCES[name].together])
def test_only_those_who_may_change_rows_act_on_many(role, name, owner, device):
    row = RESOURCES[name].make(owner, device)
    DeviceShare.objects.create(device=device, user=(user := make_user(role=role)))
    for action in RESOURCES[name].together:
        answer = caller(user).post(f"{V1}/{name}/{action}", WANTED | {"messages": [row.pk]})
        assert answer.status_code in ({200, 202} if role in {"admin", "staff"} else {403})
