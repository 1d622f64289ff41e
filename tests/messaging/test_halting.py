from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from messaging import halting
from messaging.dispatch.release import release_next, release_round
from messaging.dispatch.send import Result
from messaging.models import Attempt, Halt, Message
from messaging.states import State
from tests.api_support import V1, caller
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


def test_nothing_is_released_while_everything_is_halted():
    owner = make_user()
    device = make_device(owner=owner)
    make_batch(owner=owner, devices=[device], leads=3)
    halting.halt(now=timezone.now(), reason="wrong list")
    assert release_round() == (0, [])
    assert release_next(device_id=device.pk) is None
    assert halting.resume(now=timezone.now())
    assert len(release_round()[1]) == 1


def test_what_was_released_before_is_not_claimed_and_loses_nothing(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    released = release_next(device_id=device.pk)
    halting.halt(now=timezone.now())
    assert sender.send(message_id=released.message_id, release_no=released.release_no) is Result.GIVEN_BACK
    (message,) = messages_of(batch)
    assert (message.state, message.attempts, Attempt.objects.count()) == (State.PENDING, 0, 0)
    assert simulator.summary()["requests"] == 0
    halting.resume(now=timezone.now())
    again = release_next(device_id=device.pk)
    assert sender.send(message_id=again.message_id, release_no=again.release_no) is Result.DONE


def test_two_who_pull_the_brake_make_one_halt():
    first = halting.halt(now=timezone.now(), reason="first")
    assert halting.halt(now=timezone.now(), reason="second") == first
    assert Halt.objects.count() == 1
    assert halting.resume(now=timezone.now())
    assert not halting.resume(now=timezone.now())
    assert halting.halt(now=timezone.now()) != first


def test_the_commands_say_what_will_move(capsys, monkeypatch):
    owner = make_user()
    devices = [make_device(owner=owner), make_device(owner=owner)]
    make_batch(owner=owner, devices=devices, leads=5)
    call_command("halt", reason="wrong list")
    monkeypatch.setattr("builtins.input", lambda _: "n")
    with pytest.raises(CommandError, match="Still halted"):
        call_command("resume")
    assert halting.current() is not None
    call_command("resume", yes=True)
    told = capsys.readouterr().out
    assert "5 messages of 1 batches will start to move on 2 devices" in told
    assert "(wrong list)" in told
    with pytest.raises(CommandError, match="Nothing is halted"):
        call_command("resume", yes=True)


@pytest.mark.parametrize(
    ("role", "stop", "go"), [("admin", 200, 200), ("ops", 200, 403), ("staff", 403, 403), ("team", 403, 403)]
)
def test_who_may_stop_and_who_may_go_on(role, stop, go):
    client = caller(make_user(role=role))
    assert client.get(f"{V1}/halt").status_code == 200
    assert client.post(f"{V1}/halt", {"reason": "drill"}).status_code == stop
    if stop != 200:
        halting.halt(now=timezone.now())
    assert client.get(f"{V1}/halt").json()["halted"] is True
    assert client.delete(f"{V1}/halt").status_code == go
    assert (halting.current() is None) == (go == 200)


def test_nobody_unknown_may_ask():
    from rest_framework.test import APIClient

    assert APIClient().get(f"{V1}/halt").status_code == 401
    assert Message.objects.count() == 0
