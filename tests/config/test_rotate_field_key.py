"""Encrypting what is stored by a new key, in every table that holds secrets."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.db import connection

from config.login_models import SecondFactor
from devices import rekeying
from devices.hook_models import HookKey
from devices.models import Device
from devices.secrets import Secrets
from leads.source_models import LeadSource
from messaging.outgoing.models import Subscriber
from tests.factories import make_device, make_user

pytestmark = pytest.mark.django_db
OLD, NEW, LOST = (Fernet.generate_key().decode() for _ in range(3))


def rows(number: int) -> list[Any]:
    """One row of every table that holds secrets, each with a secret of its own."""
    owner = make_user()
    secrets = Secrets({"token": f"t-{number}"})
    device = make_device(owner=owner, credentials=secrets)
    return [
        device,
        HookKey.objects.create(device=device, digest=f"{number}", sealed=secrets),
        LeadSource.objects.create(owner=owner, name="n", region="MY", secrets=secrets),
        Subscriber.objects.create(owner=owner, name="n", url="https://example.com/", kinds=["test"], secrets=secrets),
        SecondFactor.objects.create(user=owner, sealed=secrets),
    ]


def readable(row: Any) -> dict[str, str]:
    """Its secrets, as the database holds them now."""
    row.refresh_from_db()
    return dict(next(getattr(row, field.attname) for model, field in rekeying.places() if model is type(row)))


def rotate(**options: Any) -> str:
    told = StringIO()
    call_command("rotate_field_key", stdout=told, **options)
    return told.getvalue()


def test_every_table_that_holds_secrets_is_among_the_places_and_in_the_test():
    assert {model for model, _ in rekeying.places()} == {type(row) for row in rows(0)}


def test_all_is_encrypted_by_the_new_key_and_the_old_one_may_go(settings):
    settings.FIELD_KEYS = [OLD]
    before = [row for number in (1, 2, 3) for row in rows(number)]
    make_device(owner=make_user(), credentials={})
    settings.FIELD_KEYS = [NEW, OLD]
    before += rows(4)
    versions = dict(Device.objects.values_list("pk", "config_version"))

    told = rotate(dry_run=True, batch=2)
    assert "devices_device.credentials: 3 to encrypt anew, 1 by the newest key" in told
    assert "Nothing was written" in told
    settings.FIELD_KEYS = [OLD]
    assert readable(before[0]) == {"token": "t-1"}

    settings.FIELD_KEYS = [NEW, OLD]
    told = rotate(batch=2)
    for name in ("devices_device.credentials", "devices_hookkey.sealed", "leads_leadsource.secrets",
                 "messaging_subscriber.secrets", "config_secondfactor.sealed"):  # fmt: skip
        assert f"{name}: 3 encrypted anew, 1 by the newest key\n" in told
    assert "t-1" not in told
    settings.FIELD_KEYS = [NEW]
    found = [readable(row) for row in before]
    assert found == [{"token": f"t-{number}"} for number in (1, 2, 3, 4) for _ in range(5)]
    assert "devices_device.credentials: 0 encrypted anew, 4 by the newest key\n" in rotate()
    assert dict(Device.objects.values_list("pk", "config_version")) == versions  # nobody connects anew for it


def test_what_fits_no_key_stays_as_it_is_is_counted_and_is_done_when_the_key_is_back(settings):
    settings.FIELD_KEYS = [LOST]
    lost = rows(1)
    settings.FIELD_KEYS = [OLD]
    fine = rows(2)
    settings.FIELD_KEYS = [NEW, OLD]
    for options in ({"dry_run": True}, {}, {}):
        with pytest.raises(CommandError, match="5 rows fit none of the 2 keys"):
            rotate(**options)
    settings.FIELD_KEYS = [NEW]
    assert [readable(row) for row in fine] == [{"token": "t-2"}] * 5
    settings.FIELD_KEYS = [NEW, LOST]
    rotate()
    settings.FIELD_KEYS = [NEW]
    assert [readable(row) for row in lost] == [{"token": "t-1"}] * 5


def test_credentials_that_somebody_enters_meanwhile_win_and_the_next_run_goes_on(settings):
    """A trigger writes the second device while the first is encrypted anew: the second was read by then."""
    settings.FIELD_KEYS = [OLD]
    first, second, entered = (make_device(owner=make_user(), credentials={"token": each}) for each in "abc")
    settings.FIELD_KEYS = [NEW, OLD]
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION enter() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE devices_device SET credentials"
            " = (SELECT credentials FROM devices_device WHERE id = %s) WHERE id = %s; RETURN NULL; END $$;"
            "CREATE TRIGGER entering AFTER UPDATE ON devices_device FOR EACH ROW"
            " WHEN (NEW.id = %s) EXECUTE FUNCTION enter();",
            [entered.pk, second.pk, first.pk],
        )
    with pytest.raises(CommandError, match="1 rows were changed meanwhile"):
        rotate()
    assert readable(second) == {"token": "c"}
    rotate()
    settings.FIELD_KEYS = [NEW]
    assert [readable(device) for device in (first, second, entered)] == [{"token": each} for each in "acc"]


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(CommandError, match="--batch"):
        rotate(batch=0)
