"""Which errors in the programs' logs count."""

from __future__ import annotations

from config.chaos.errors import unexpected

LOG = r"""
[2026] Task messaging.send[ab-1] raised unexpected: OperationalError('server closed the connection unexpectedly\n')
[2026] Task messaging.release[ab-2] raised unexpected: IntegrityError('Key (device_id, lane)=(17, 0) exists')
[2026] Task messaging.release[ab-3] raised unexpected: IntegrityError('Key (device_id, lane)=(18, 0) exists')
[2026] Task messaging.release[ab-4] raised unexpected: UniqueViolation('… constraint "message_one_in_flight"')
timestamp='x' level='error' event='send.driver_raised' message_id=7
timestamp='x' level='info' event='send.not_accepted' message_id=7
"""


def test_only_absent_servers_and_the_belt_are_expected_and_numbers_do_not_matter(tmp_path):
    (tmp_path / "devices-a.log").write_text(LOG)
    found = unexpected([tmp_path / "devices-a.log", tmp_path / "never-started.log"])
    assert found == [
        *["devices-a: IntegrityError('Key (device_id, lane)=(N, N) exists'))"] * 2,
        "devices-a: send.driver_raised",
    ]
