"""Guards can be taken out of the code as it is today, and whoever cannot be taken out is told."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from config.chaos.mutants import SECONDS, WHOLE, Trial, caught_by, table
from config.chaos.mutations import MUTATIONS, DoesNotFit, Mutation, Patch, apply
from config.chaos.plan import KINDS, focused, make_plan
from tests.config.stack_support import CHECKOUT


def copied(mutation: Mutation, tree: Path) -> None:
    for patch in mutation.patches:
        (tree / patch.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / patch.file, tree / patch.file)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_guard_stands_where_the_mutation_looks_for_it(mutation, tmp_path):
    copied(mutation, tmp_path)
    apply(mutation, tree=tmp_path)
    for patch in mutation.patches:
        after = (tmp_path / patch.file).read_text()
        assert after != (CHECKOUT / patch.file).read_text()
        ast.parse(after)  # a mutant that does not even load would be red for the wrong reason


def test_names_are_unique():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) > 6


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_a_guard_is_there_for_happens_in_its_run(mutation):
    assert set(mutation.under) <= set(KINDS)
    plan = focused(make_plan(seed=1, seconds=SECONDS), kinds=mutation.under)
    assert {fault.kind for fault in plan.faults} == set(mutation.under)


@pytest.mark.parametrize(("text", "times"), [("nothing\n", 0), ("guard\nguard\n", 2)])
def test_a_guard_that_is_not_there_exactly_once_is_an_error(text, times, tmp_path):
    (tmp_path / "code.py").write_text(text)
    with pytest.raises(DoesNotFit, match=f"stands {times} times in code.py"):
        apply(Mutation("guard", "it", [], [Patch("code.py", "guard", "")]), tree=tmp_path)
    assert (tmp_path / "code.py").read_text() == text


@pytest.mark.parametrize(
    ("name", "rules", "right"),
    [
        (WHOLE, {"lost": 0}, True),
        (WHOLE, {"lost": 1}, False),
        ("guard", {"lost": 0}, False),
        ("guard", {"lost": 1}, True),
        (WHOLE, None, False),
        ("guard", None, False),
    ],
)
def test_red_is_right_only_without_a_guard_and_no_verdict_never(name, rules, right):
    trial = Trial(name, "it", rules, 1.0, "died")
    assert trial.as_it_should_be is right
    assert table([trial]).row_count == 1


def test_the_rules_that_caught_it_are_named_most_often_broken_first():
    assert caught_by(Trial("guard", "it", {"lost": 1, "stuck": 0, "early": 7}, 1.0)) == "early 7, lost 1"
