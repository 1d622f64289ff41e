from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from messaging.dispatch.spreading import Mover, spread

DEVICES = st.integers(1, 8)
MOVERS = st.lists(
    st.builds(
        Mover,
        message_id=st.integers(1, 10_000),
        stream_id=st.just(1),
        device_id=DEVICES,
        failed_on=st.frozensets(DEVICES, max_size=4),
        must_leave=st.booleans(),
    ),
    max_size=60,
    unique_by=lambda mover: mover.message_id,
)


@given(MOVERS, st.dictionaries(DEVICES, st.integers(0, 20)))
def test_nobody_stays_or_goes_where_they_must_not(movers, waiting):
    targets = spread(movers=movers, waiting=waiting)
    for mover in movers:
        elsewhere = set(waiting) - {mover.device_id}
        untried = elsewhere - mover.failed_on
        allowed = untried or (elsewhere if mover.must_leave else set())
        target = targets.get(mover.message_id)
        assert (target in allowed) if allowed else target is None


@given(st.integers(0, 50), st.dictionaries(DEVICES, st.integers(0, 20), min_size=1))
def test_the_shortest_queue_grows_first(number, waiting):
    movers = [Mover(message_id=n, stream_id=1, device_id=99) for n in range(number)]
    after = Counter(waiting) + Counter(spread(movers=movers, waiting=waiting).values())
    receivers = [device for device in waiting if after[device] > waiting[device]]
    assert sum(after[device] - waiting[device] for device in waiting) == number
    for device in receivers:
        assert after[device] <= min(after[other] for other in waiting) + 1
