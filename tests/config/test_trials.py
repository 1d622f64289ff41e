"""Trials on real hosts, as far as this machine can have any: a short one of each, by its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.stack.errors import StackError
from config.stack.places import CHECKOUT
from config.trials.network import missing
from config.trials.rolling import check_out

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def trial(folder: Path, *argv: str) -> str:
    """What a trial said; it must have ended well."""
    env = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
    answer = subprocess.run(
        [sys.executable, "manage.py", *argv],
        cwd=CHECKOUT,
        env={**env, "FLOTILLA_LOCAL": str(folder), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-1000:]
    return answer.stdout


def test_a_host_that_loses_its_cable_and_one_that_dies_lose_and_double_nothing(tmp_path):
    if without := missing():
        pytest.skip(without)
    said = trial(tmp_path, "hosts_trial", "--quick", "--devices", "12", "--only", "cable", "kill")
    assert " 0 lost, 0 twice" in " ".join(said.split())


def test_workers_replaced_under_load_leave_no_outcome_unknown(tmp_path):
    """From the code of the commit before, where the history is here: both live together then."""
    try:
        check_out("HEAD~1", folder=tmp_path / "look")
    except StackError:
        before = []
    else:
        before = ["--previous", "HEAD~1"]
    said = " ".join(trial(tmp_path, "rolling_trial", "--devices", "8", *before).split())
    assert " 0 lost, 0 twice, 0 unknown" in said
    assert "0 sessions with two holders, 0 promises broken" in said
