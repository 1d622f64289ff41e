from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import sleep

import pytest

from messaging.dispatch.combining import Combiner, FailedTogether


class Work:
    """Answers n with n * n, None for multiples of seven; watches how it is called."""

    def __init__(self, *, seed: int) -> None:
        self.groups: list[list[int]] = []
        self.at_once = 0
        self.most_at_once = 0
        self._rng = Random(seed)
        self._lock = threading.Lock()

    def __call__(self, asked: Sequence[int]) -> list[int | None]:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.groups.append(list(asked))
            pause = self._rng.random() / 500
        sleep(pause)
        with self._lock:
            self.at_once -= 1
        return [None if number % 7 == 0 else number * number for number in asked]


def test_a_thread_that_is_alone_is_served_at_once():
    work = Work(seed=1)
    assert Combiner(work=work).ask(3, key=3) == 9
    assert work.groups == [[3]]


@pytest.mark.parametrize("leaders", [1, 2])
def test_every_thread_gets_the_answer_to_its_own_question(leaders):
    work = Work(seed=leaders)
    combiner = Combiner(work=work, most=5, leaders=leaders)

    def ask(number: int) -> bool:
        # threads share eleven keys
        return combiner.ask(number, key=number % 11) == (None if number % 7 == 0 else number * number)

    with ThreadPoolExecutor(24) as threads:
        assert all(threads.map(ask, range(2_000)))
    assert Counter(number for group in work.groups for number in group) == Counter(range(2_000))
    assert work.most_at_once <= leaders
    assert max(map(len, work.groups)) <= 5
    assert all(len({number % 11 for number in group}) == len(group) for group in work.groups)
    assert len(work.groups) < 1_500  # they did come together


def test_work_that_fails_fails_for_everybody_in_the_group_and_for_nobody_else():
    calls: list[list[int]] = []

    def fail_every_other(asked: Sequence[int]) -> list[int]:
        calls.append(list(asked))
        sleep(0.005)
        if len(calls) % 2:
            raise OSError("gone")
        return list(asked)

    combiner = Combiner(work=fail_every_other)

    def ask(number: int) -> int | str | None:
        try:
            return combiner.ask(number, key=number)
        except FailedTogether as failed:
            return type(failed.problem).__name__

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(200)))
    failed = {number for group in calls[::2] for number in group}
    assert [("OSError" if number in failed else number) for number in range(200)] == answers
    assert sum(map(len, calls)) == 200
    assert ask(1) in {1, "OSError"}


def test_an_answer_too_few_is_a_failure():
    combiner: Combiner[int, int] = Combiner(work=lambda asked: [])
    with pytest.raises(FailedTogether):
        combiner.ask(1, key=1)
