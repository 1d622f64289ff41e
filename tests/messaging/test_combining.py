from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import sleep

import pytest

from messaging.dispatch.combining import Combiner


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


def test_work_that_fails_leaves_everybody_free_to_ask_alone():
    calls = []

    def fail_first(asked: Sequence[int]) -> list[int]:
        calls.append(list(asked))
        if len(calls) % 2:
            sleep(0.01)
            raise OSError("gone")
        return list(asked)

    combiner = Combiner(work=fail_first)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: (number, combiner.ask(number, key=number)), range(200)))
    assert {answer for number, answer in answers if answer != number} == {None}
    assert any(answer is not None for _, answer in answers)
    assert sum(map(len, calls)) == 200
    assert combiner.ask(1, key=1) in {1, None}


def test_an_answer_too_few_is_no_answer():
    combiner = Combiner(work=lambda asked: [])
    assert combiner.ask(1, key=1) is None
