"""``manage.py bench`` as a person calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from config.stack import state
from config.stack.places import CHECKOUT
from tests.config.stack_support import environment_without_servers, fresh_root


def bench(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "bench", *arguments],
        cwd=CHECKOUT, env={**environment_without_servers(), **env}, capture_output=True, text=True, timeout=110,
        check=False,
    )  # fmt: skip


def test_an_unknown_name_is_one_clear_line():
    answer = bench("quues")
    assert answer.returncode == 1
    assert "There is no bench 'quues'. Known: queues, end_to_end" in answer.stderr


def test_it_never_measures_on_servers_that_are_not_its_own():
    """It empties tables: the inner half of the command must refuse whatever stack it finds itself in."""
    answer = bench("release", "--on-these-servers", **{k: os.environ[k] for k in ("DATABASE_URL", "REDIS_URL")})
    assert answer.returncode == 1
    assert "destroy the data of your stack" in answer.stderr


@pytest.mark.slow
def test_it_starts_its_own_servers_writes_a_file_and_leaves_nothing_running(tmp_path):
    with fresh_root() as root:
        answer = bench(
            "release", "--into", str(tmp_path), QUICK="1", FLOTILLA_LOCAL=str(root),
            # never looked at: these servers do not exist
            DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", REDIS_URL="redis://127.0.0.1:1/0",
        )  # fmt: skip
        (line,) = json.loads((tmp_path / "release.json").read_text())
        assert line["ours"] > 0
        assert line["baseline"] > 0
        assert answer.returncode == (0 if line["holds"] else 1), answer.stderr
        assert ("MISSED" in answer.stdout) is not line["holds"]
        assert state.read(root / "bench-stack") is None
