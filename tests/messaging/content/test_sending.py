"""Any content through the sender: what a driver gets, what is written down, and who has to wait."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from PIL import Image

from devices.gateways import registry
from devices.gateways.base import Accepted, DeviceConfig, Outcome, Outgoing
from devices.gateways.simulator import SimulatorClient, SimulatorDriver
from leads.models import Lead
from messaging import services
from messaging.content.shape import parse
from messaging.dispatch import holding
from messaging.dispatch.release import release_next
from messaging.dispatch.send import Result, Sender
from messaging.media import attaching, store
from messaging.models import Attempt, Batch, Message, Stream
from messaging.services import SendRefused
from messaging.states import State
from messaging.why import why_not_sent
from tests.api_support import V1, caller
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


class Notebook(SimulatorDriver):
    """A gateway that takes everything and keeps it."""

    kind = "notebook"

    def __init__(self) -> None:
        self.taken: list[Outgoing] = []
        self.carries = {**SimulatorDriver.carries, "template": SimulatorDriver.carries["text"]}  # type: ignore[misc]

    def connect(self, config: DeviceConfig) -> SimulatorClient:
        notebook = self

        class Writing(SimulatorClient):
            def send(self, outgoing: Outgoing) -> Outcome:
                notebook.taken.append(outgoing)
                return Accepted(f"n-{len(notebook.taken)}")

        return Writing(config)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> Iterator[Notebook]:
    driver = Notebook()
    monkeypatch.setitem(registry._BY_KIND, driver.kind, driver)
    settings.MEDIA_ROOT = tmp_path
    settings.FLOTILLA_URL = "https://flotilla.example"
    attaching.forget()
    yield driver
    attaching.forget()


def carried(sender: Sender, device: Any) -> Result:
    released = release_next(device_id=device.pk)
    assert released is not None
    return sender.send(message_id=released.message_id, release_no=released.release_no)


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "green").save(out, "PNG")
    return out.getvalue()


def test_a_picture_with_a_caption_reaches_the_driver_whole(sender: Sender, notebook: Notebook) -> None:
    owner = make_user()
    device = make_device(owner=owner, gateway="notebook")
    media = store.keep(owner=owner, data=picture(), name="green.png")
    content = parse({"type": "image", "media": media.pk, "text": "For {{ name or 'you' }}", "greeting": "en"})
    services.send_single(owner=owner, content=content, phone="+60123456789", now=timezone.now())
    assert carried(sender, device) is Result.DONE
    (out,) = notebook.taken
    assert out.type == "image"
    assert out.text.endswith("!\n\nFor you")
    assert out.media is not None
    assert (out.media.read(), out.media.mime_type) == (media.path.read_bytes(), "image/png")
    assert (out.media.filename, out.media.size_bytes) == ("green.png", media.size_bytes)
    assert out.media.url.startswith(f"https://flotilla.example/media/{media.pk}-")
    assert out.media.url not in repr(out.media)
    assert Attempt.objects.get().text == out.text


def test_a_template_reaches_the_driver_filled_in(sender: Sender, notebook: Notebook) -> None:
    owner = make_user()
    device = make_device(owner=owner, gateway="notebook")
    content = {"type": "template", "template": {"name": "sent", "language": "en", "parameters": ["{{ first_name }}"]}}
    content["media"] = store.keep(owner=owner, data=picture(), name="above.png").pk
    batch = make_batch(owner=owner, devices=[device])
    Batch.objects.filter(pk=batch.pk).update(content=content)
    assert carried(sender, device) is Result.DONE
    (out,) = notebook.taken
    assert out.type == "template"
    assert out.template is not None
    assert (out.template.name, out.template.parameters) == ("sent", ("Lead",))
    assert out.media is not None
    assert out.media.filename == "above.png"
    assert Attempt.objects.get().text == "sent (en): Lead"


def test_a_file_that_is_gone_fails_the_message_with_the_reason(sender: Sender, notebook: Notebook) -> None:
    owner = make_user()
    device = make_device(owner=owner, gateway="notebook")
    batch = make_batch(owner=owner, devices=[device])
    Batch.objects.filter(pk=batch.pk).update(content={"type": "image", "media": 999_999})
    assert carried(sender, device) is Result.ENDED
    (message,) = messages_of(batch)
    assert (message.state, message.error_code) == (State.FAILED, "content")
    assert "gone" in message.error_text
    assert notebook.taken == []


def test_a_retry_says_what_the_first_attempt_said(sender: Sender, simulator: Any) -> None:
    owner = make_user()
    device = make_device(owner=owner)
    text = "".join("{a|b|c|d}" for _ in range(8))
    batch = make_batch(owner=owner, devices=[device], text=text, leads=3)
    simulator.add_faults({"fault": "error", "status": 503, "device": device.credentials["token"], "count": 3})
    for _ in range(3):
        carried(sender, device)
    Message.objects.filter(state=State.PENDING).update(due_at=timezone.now() - timedelta(seconds=1))
    for _ in range(3):
        carried(sender, device)
    for message in messages_of(batch):
        said = {attempt.text for attempt in message.attempt_set.all()}
        assert message.attempt_set.count() == 2
        assert len(said) == 1
    assert len(set(Attempt.objects.values_list("text", flat=True))) == 3


def held_batch(owner: Any, device: Any, *, leads: int = 2) -> Batch:
    batch = make_batch(owner=owner, devices=[device], text="For {{ city }}", leads=leads)
    Batch.objects.filter(pk=batch.pk).update(content={"type": "text", "text": "For {{ city }}", "on_missing": "hold"})
    return batch


def test_a_missing_value_holds_one_message_visibly_until_its_lead_has_it(sender: Sender, simulator: Any) -> None:
    owner = make_user()
    device = make_device(owner=owner)
    batch = held_batch(owner, device)
    lucky = Lead.objects.filter(owner=owner).latest("pk")
    Lead.objects.filter(pk=lucky.pk).update(custom={"city": "Ipoh"})
    assert [carried(sender, device) for _ in range(2)] == [Result.SNOOZED, Result.DONE]
    held = Message.objects.select_related("batch", "device", "lead").get(batch=batch, state=State.PENDING)
    assert (held.error_code, held.attempts) == (holding.MISSING, 0)
    why = why_not_sent(held, now=timezone.now())
    assert why is not None
    assert (why.code, "city" in why.text) == (holding.MISSING, True)
    assert Stream.objects.get(batch=batch).waiting == 1

    assert holding.free_changed() == 0
    assert release_next(device_id=device.pk) is None
    held.lead.custom = {"city": "Klang"}
    held.lead.save()
    assert holding.free_changed() == 1
    assert holding.free_changed() == 0
    assert carried(sender, device) is Result.DONE
    assert len(simulator.landed(device.credentials["token"])) == 2
    assert sorted(Attempt.objects.values_list("text", flat=True)) == ["For Ipoh", "For Klang"]


def test_a_held_message_is_tried_again_when_somebody_asks(sender: Sender, simulator: Any) -> None:
    client = caller()
    device = make_device(owner=client.user)
    batch = held_batch(client.user, device, leads=1)
    assert carried(sender, device) is Result.SNOOZED
    (message,) = messages_of(batch)
    assert caller().post(f"{V1}/messages/retry", {"messages": [message.pk]}).json()["retried"] == 0
    assert client.post(f"{V1}/messages/retry", {"messages": [message.pk]}).json()["retried"] == 1
    assert carried(sender, device) is Result.SNOOZED  # it still has no city
    Batch.objects.filter(pk=batch.pk).update(content={"type": "text", "text": "For you"})
    assert client.post(f"{V1}/messages/retry", {"batch": batch.pk}).json()["retried"] == 1
    assert carried(sender, device) is Result.DONE


def test_a_single_message_of_any_content_is_checked_against_its_gateway(notebook: Notebook) -> None:
    client = caller()
    make_device(owner=client.user)
    theirs = store.keep(owner=make_user(), data=picture(), name="x")
    mine = store.keep(owner=client.user, data=picture(), name="x")
    where = {"phone": "+60123456789"}
    ok = client.post(f"{V1}/messages", {**where, "content": {"type": "image", "media": mine.pk}})
    assert ok.status_code == 202, ok.content
    assert ok.json()["content"] == {"type": "image", "media": mine.pk}
    stolen = client.post(f"{V1}/messages", {**where, "content": {"type": "image", "media": theirs.pk}})
    assert stolen.status_code == 400
    approved = {"type": "template", "template": {"name": "a", "language": "en"}}
    refused = client.post(f"{V1}/messages", {**where, "content": approved})
    assert (refused.status_code, refused.json()["code"]) == (422, "not_carried")
    both = client.post(f"{V1}/messages", {**where, "text": "a", "content": approved})
    assert both.status_code == 400


def test_a_test_send_does_not_reach_somebody_who_opted_out(notebook: Notebook) -> None:
    owner = make_user()
    make_device(owner=owner)
    Lead.objects.create(owner=owner, phone="+60123456789", opted_out_at=timezone.now())
    with pytest.raises(SendRefused, match="opted out"):
        services.send_single(
            owner=owner, content=parse({"type": "text", "text": "x"}), phone="+60123456789", now=timezone.now()
        )
