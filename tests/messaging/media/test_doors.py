"""Files in and out: REST, admin, signed addresses, and the launch check-list that looks at them."""

from __future__ import annotations

import base64
import io
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from PIL import Image

from devices.gateways import registry
from devices.gateways.base import Carries
from devices.gateways.simulator import SimulatorDriver
from leads.models import Lead
from messaging.content.check import check_content
from messaging.content.shape import parse
from messaging.dispatch.release import release_round
from messaging.dispatch.send import Result
from messaging.media import store
from messaging.media.models import MediaFile
from messaging.media.signing import path_for
from messaging.models import Batch, Message
from tests.api_support import V1, caller, fields_of, problem
from tests.factories import make_batch, make_device, make_user
from tests.messaging.media.test_fetch import ok, serving

pytestmark = pytest.mark.django_db

PDF = b"%PDF-1.7\nhello"


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(out, "PNG")
    return out.getvalue()


def upload(data: bytes, name: str) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, data, content_type="application/x-whatever")


def post(client: Any, data: bytes, name: str, **fields: Any) -> Any:
    return client.post(f"{V1}/media", {"file": upload(data, name), **fields}, format="multipart")


def test_three_doors_lead_to_one_row_and_one_file(settings: Any) -> None:
    client = caller()
    answer = post(client, png(), "Poster.bmp")
    assert answer.status_code == 201, answer.content
    body = answer.json()
    assert (body["kind"], body["mime_type"], body["width"], body["name"]) == ("image", "image/png", 60, "Poster.png")
    assert answer["Location"].endswith(f"/media/{body['id']}")
    again = client.post(f"{V1}/media", {"base64": base64.b64encode(png()).decode(), "name": "other.png"})
    data_url = client.post(f"{V1}/media", {"base64": f"data:image/png;base64,{base64.b64encode(png()).decode()}"})
    with serving(ok(png())) as (port, _):
        settings.FLOTILLA_MEDIA_FETCH_ALLOW = [f"127.0.0.1:{port}"]
        fetched = client.post(f"{V1}/media", {"url": f"http://127.0.0.1:{port}/x.png"})
    assert {each.json()["id"] for each in (answer, again, data_url, fetched)} == {body["id"]}
    other = make_user()
    assert store.keep(owner=other, data=png(), name="x").pk != body["id"]
    assert len([path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]) == 1
    assert client.get(f"{V1}/media/{body['id']}").json()["sha256"] == body["sha256"]
    assert [row["id"] for row in client.get(f"{V1}/media").json()["results"]] == [body["id"]]
    assert caller(other).get(f"{V1}/media/{body['id']}").status_code == 404


def test_what_cannot_be_taken_is_refused_in_words(settings: Any) -> None:
    client = caller()
    assert "file" in fields_of(problem(client.post(f"{V1}/media", {}), 400, "invalid"))
    problem(client.post(f"{V1}/media", {"base64": "***"}), 422, "bad_base64")
    problem(client.post(f"{V1}/media", {"url": "http://169.254.169.254/"}), 422, "private_address")
    problem(post(client, b"MZ\x90", "holiday.jpg"), 422, "type_refused")
    problem(post(client, PDF, "x.pdf", kind="image"), 422, "wrong_kind")
    settings.FLOTILLA_MEDIA_MAX_BYTES = 10
    problem(post(client, PDF, "x.pdf"), 422, "too_large")
    assert not MediaFile.objects.exists()


def test_a_picture_as_a_document_stays_as_it_is() -> None:
    client = caller()
    picture, document = post(client, png(), "a.png").json(), post(client, png(), "a.png", kind="document").json()
    assert picture["kind"] == "image"
    assert (document["kind"], document["mime_type"], document["size_bytes"]) == ("document", "image/png", len(png()))


def test_a_signed_address_serves_the_file_until_it_expires(client: Client, settings: Any) -> None:
    media = store.keep(owner=make_user(), data=PDF, name="Prices ä.pdf")
    path = path_for(media_id=media.pk, now=timezone.now())
    answer = client.get(path)
    assert (answer.status_code, b"".join(answer.streaming_content)) == (200, PDF)
    assert answer["Content-Type"] == "application/pdf"
    assert answer["Content-Disposition"].startswith("attachment; filename*=utf-8''Prices")
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer["Content-Security-Policy"]
    assert "Set-Cookie" not in answer
    assert answer["Content-Length"] == str(len(PDF))
    assert client.post(path).status_code == 405
    for forged in (path[:-1], path.replace("/media/", "/media/9"), "/media/1-9999999999.x", "/media/x"):
        assert client.get(forged).status_code == 404
    with time_machine.travel(timezone.now() + timedelta(hours=settings.FLOTILLA_MEDIA_URL_HOURS, minutes=1)):
        assert client.get(path).status_code == 410
    media.path.unlink()
    assert client.get(path).status_code == 404


class Narrow(SimulatorDriver):
    """A gateway that carries little."""

    kind = "narrow"
    label = "Narrow"
    window_hours = 24
    carries = {
        "text": Carries(max_text=20),
        "image": Carries(max_text=0, max_bytes=50, media="url", mime_types=frozenset({"image/jpeg"})),
        "template": Carries(),
    }


def test_the_check_list_names_what_a_gateway_cannot_carry(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BY_KIND, "narrow", Narrow())
    owner, other = make_user(), make_user()
    picture, letter = store.keep(owner=owner, data=png(), name="a"), store.keep(owner=owner, data=PDF, name="b")

    def codes(raw: dict[str, Any], *gateways: str, owner: Any = owner, bulk: bool = False) -> set[tuple[str, str]]:
        found = check_content(parse(raw), owner_id=owner.pk, gateways=gateways or ["narrow"], bulk=bulk)
        assert all(one.text for one in found)
        return {(one.field, one.code) for one in found}

    text = {"type": "text", "text": "{Hi|Hello} {{ name }}"}
    image = {"type": "image", "media": picture.pk, "text": "look"}
    assert codes(text) == set()
    assert codes(text, bulk=True) == {("type", "window")}
    assert codes({"type": "template", "template": {"name": "a", "language": "en"}}, bulk=True) == set()
    assert codes({"type": "text", "text": "x" * 15 + "{12345678|1234567}"}) == {("text", "too_long")}
    assert codes({"type": "text", "text": "x" * 15 + "{12345678|1234}"}) == set()
    assert codes({"type": "video", "media": letter.pk}) == {("type", "not_carried"), ("media", "wrong_kind")}
    assert codes(image) == {("text", "no_caption"), ("media", "too_large"), ("media", "wrong_type")}
    assert codes(image, "simulator") == set()
    assert codes(image, "simulator", owner=other) == {("media", "does_not_exist")}
    settings.FLOTILLA_URL = ""
    assert codes(image, "simulator") == {("media", "no_address")}
    picture.path.unlink()
    assert ("media", "gone") in codes(image, "simulator")


# -- Admin -------------------------------------------------------------------------------------------------------------


def signed_in(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_a_file_is_uploaded_in_the_admin_and_shown() -> None:
    user = make_user()
    client = signed_in(user)
    answer = client.post("/admin/messaging/mediafile/add/", {"file": upload(b"MZ", "a.jpg"), "kind": ""})
    assert "Programs and web pages" in answer.content.decode()
    answer = client.post("/admin/messaging/mediafile/add/", {"file": upload(png(), "a.png"), "kind": ""})
    assert answer.status_code == 302
    media = MediaFile.objects.get()
    assert media.owner == user
    page = client.get(f"/admin/messaging/mediafile/{media.pk}/change/")
    assert f'src="/media/{media.pk}-' in page.content.decode()
    assert "a.png" in client.get("/admin/messaging/mediafile/").content.decode()
    assert signed_in(make_user()).get(f"/admin/messaging/mediafile/{media.pk}/change/").status_code == 302


def test_the_preview_shows_what_is_typed_for_any_lead() -> None:
    user = make_user()
    Lead.objects.create(owner=user, phone="+60123456789", name="Ana <b>")
    Lead.objects.create(owner=make_user(), phone="+60123456780", name="Secret")
    client = signed_in(user)

    def shown(**fields: str) -> str:
        answer = client.post("/admin/messaging/mediafile/preview/", fields)
        assert answer.status_code == 200
        return answer.content.decode()

    assert "Hi Ana &lt;b&gt;" in shown(text="Hi {{ name }}", preview_lead="012-345 6789")
    assert "Hi Ana" in shown(text="Hi {{ name }}", preview_lead="ana")
    assert "no such lead" in shown(text="Hi {{ name }}", preview_lead="+60123456780")
    assert "Line 1, column 4" in shown(text="Hi {{ name")
    assert "held until" in shown(text="Hi {{ city }}", on_missing="hold")
    assert "data-preview-varies" in shown(text="{Hi|Hello}")
    assert "Stored" in shown(preview_stored='{"type": "text", "text": "Stored"}')
    media = store.keep(owner=user, data=png(), name="a")
    assert f'src="/media/{media.pk}-' in shown(content_type="image", media=str(media.pk), text="")
    theirs = store.keep(owner=make_user(), data=png("blue"), name="b")
    assert f"/media/{theirs.pk}-" not in shown(content_type="image", media=str(theirs.pk), text="")
    assert client.get("/admin/messaging/mediafile/preview/").status_code == 405
    assert signed_in(make_user(role="team")).post("/admin/messaging/mediafile/preview/").status_code == 403
    page = client.get("/admin/campaigns/campaign/add/").content.decode()
    assert 'data-preview="/admin/messaging/mediafile/preview/"' in page
    assert "flotilla/preview.js" in page


def test_the_api_previews_and_refuses_with_the_place() -> None:
    client = caller()
    lead = Lead.objects.create(owner=client.user, phone="+60123456789", name="Ana Lim")
    content = {"type": "text", "text": "{{ first_name }}, {a|b}", "on_missing": "hold"}
    found = client.post(f"{V1}/messages/preview", {"content": content, "lead": lead.pk}).json()
    assert found["text"] in {"Ana, a", "Ana, b"}
    assert (found["varies"], found["held"], found["problem"]) == (True, False, "")
    nobody = client.post(f"{V1}/messages/preview", {"content": content}).json()
    assert (nobody["held"], nobody["text"]) == (True, None)
    body = problem(client.post(f"{V1}/messages/preview", {"content": {"text": "{{ x"}}), 400, "invalid")
    assert fields_of(body) == {"content.text": "bad_text"}


@pytest.mark.django_db(transaction=True)
def test_a_message_whose_file_has_been_deleted_fails_and_says_so(sender, simulator):
    owner = make_user()
    media = store.keep(owner=owner, data=b"%PDF-1.7", name="p.pdf")
    batch = make_batch(owner=owner, devices=[make_device(owner=owner)], leads=1)
    Batch.objects.filter(pk=batch.pk).update(content={"type": "document", "media": media.pk})
    MediaFile.objects.all().delete()
    _, (released,) = release_round()
    assert sender.send(message_id=released.message_id, release_no=released.release_no) is Result.ENDED
    message = Message.objects.get()
    assert (message.state, message.error_code) == ("failed", "content")
    assert "is gone" in message.error_text
    assert simulator.ledger() == []
