from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from config import digest
from config.mail import Mail, MailProblem, mail_from
from config.models import FailureDigest
from messaging.models import Batch, Message
from messaging.states import State
from tests.api_support import at_once
from tests.config.smtp_sink import Sink, smtp_sink
from tests.factories import make_batch, make_device, make_user, messages_of


@pytest.fixture
def sink(settings) -> Iterator[Sink]:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.FLOTILLA_URL = "https://flotilla.example"
    with smtp_sink() as sink:
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", sink.port
        yield sink


@pytest.fixture
def admin() -> User:
    return make_user(role="admin", email="ada@example.com")


@pytest.fixture
def batch(admin) -> Batch:
    owner = make_user(email="somebody@example.com")
    return make_batch(owner=owner, devices=[make_device(owner=owner)], leads=5)


def fail(batch: Batch, number: int, *, code: str) -> None:
    pending = [message.pk for message in messages_of(batch) if message.state == State.PENDING][:number]
    assert Message.objects.filter(pk__in=pending).update(state=State.FAILED, error_code=code) == number


def at(minutes: float) -> datetime:
    return timezone.now() + timedelta(minutes=minutes)


pytestmark = pytest.mark.django_db(transaction=True)


def test_failures_are_told_once_by_batch_and_reason_with_a_link_that_works(sink, admin, batch):
    assert digest.send_due(now=at(0)) is False  # nothing failed, nothing is said
    fail(batch, 2, code="no_number")
    fail(batch, 1, code="busy")
    single = make_batch(owner=batch.owner, devices=[make_device(owner=batch.owner)], priority=0)
    Batch.objects.filter(pk=single.pk).update(name="To +60123456789")
    fail(single, 1, code="bad +60123456789")
    assert sum(at_once(4, lambda _: digest.send_due(now=at(0)))) == 1
    ((recipients, mail),) = sink.mails
    text = mail.get_content()
    assert recipients == ["ada@example.com"]
    assert mail["Subject"] == "[Flotilla] 4 messages failed"
    assert f"2  “{batch.name}”: no_number" in text
    assert f"1  “{batch.name}”: busy" in text
    assert "1  Single messages: bad …" in text
    assert "60123456789" not in text
    assert not any(message.phone in text for message in Message.objects.all())
    assert digest.link(batch.pk) in text
    client = Client()
    client.force_login(admin)
    shown = client.get(digest.link(batch.pk).removeprefix("https://flotilla.example"))
    assert len(shown.context["cl"].result_list) == 3


def test_no_more_than_one_mail_in_a_while_and_nothing_is_told_twice(sink, batch):
    fail(batch, 1, code="first")
    assert digest.send_due(now=at(0))
    fail(batch, 2, code="second")
    assert digest.send_due(now=at(59)) is False
    assert digest.send_due(now=at(61))
    assert digest.send_due(now=at(130)) is False
    first, second = (mail.get_content() for _, mail in sink.mails)
    assert ("first" in first, "second" in first) == (True, False)
    assert ("first" in second, "second" in second) == (False, True)


def test_a_mail_server_that_is_down_loses_nothing(sink, batch, settings):
    fail(batch, 1, code="first")
    settings.EMAIL_PORT = 1
    assert digest.send_due(now=at(0)) is False
    fail(batch, 1, code="second")
    settings.EMAIL_PORT = sink.port
    assert digest.send_due(now=at(1))
    ((_, mail),) = sink.mails
    assert "first" in mail.get_content()
    assert "second" in mail.get_content()


def test_a_process_that_died_while_telling_is_followed_by_another(sink, batch):
    fail(batch, 1, code="busy")
    digest.send_due(now=at(-600))
    sink.mails.clear()
    fail(batch, 1, code="late")
    FailureDigest.objects.update(lease_until=at(4))
    assert digest.send_due(now=at(0)) is False
    assert digest.send_due(now=at(6))
    assert len(sink.mails) == 1


def test_who_is_told(sink, admin, batch, settings):
    make_user(role="admin")  # without an address
    make_user(role="admin", email="left@example.com", is_active=False)
    User.objects.create_superuser("root", email="root@example.com")
    assert digest.recipients() == ["ada@example.com", "root@example.com"]
    settings.FLOTILLA_ALERT_EMAILS = ["alerts@example.com"]
    assert digest.recipients() == ["alerts@example.com"]
    settings.FLOTILLA_ALERT_EMAILS = []
    User.objects.update(email="")
    fail(batch, 1, code="busy")
    assert digest.send_due(now=at(0)) is False
    settings.FLOTILLA_ALERT_EMAILS = ["alerts@example.com"]
    assert digest.send_due(now=at(0)) is False  # what was before nobody asked for


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example", ("mail.example", 25, "", "", False, False)),
        ("smtp+starttls://me%40x:p%2Fw@mail.example", ("mail.example", 587, "me@x", "p/w", True, False)),
        ("smtps://me:pw@mail.example:4650", ("mail.example", 4650, "me", "pw", False, True)),
    ],
)
def test_the_way_out_is_read_from_one_url(url, expected):
    mail = mail_from({"FLOTILLA_EMAIL_URL": url})
    assert (mail.host, mail.port, mail.user, mail.password, mail.starttls, mail.tls) == expected
    assert not mail.password or mail.password not in repr(mail)


def test_the_password_may_stand_in_a_file_and_mistakes_name_the_variable(tmp_path):
    (tmp_path / "password").write_text("secret\n")
    url = {"FLOTILLA_EMAIL_URL": "smtp://me:other@mail.example"}
    assert mail_from({**url, "FLOTILLA_EMAIL_PASSWORD_FILE": str(tmp_path / "password")}).password == "secret"
    assert mail_from({}) == Mail()
    for wrong in ({"FLOTILLA_EMAIL_URL": "http://me:hush@x"}, {"FLOTILLA_EMAIL_URL": "smtp://me:hush@x:port"}):
        with pytest.raises(MailProblem, match="FLOTILLA_EMAIL_URL") as problem:
            mail_from(wrong)
        assert "hush" not in str(problem.value)
    with pytest.raises(MailProblem, match="FLOTILLA_EMAIL_PASSWORD_FILE"):
        mail_from({**url, "FLOTILLA_EMAIL_PASSWORD_FILE": str(tmp_path / "missing")})
