"""The description of the API held against a running web process, over every operation, by generated requests.

``FLOTILLA_FUZZ_CASES`` says how many per operation (3), ``FLOTILLA_FUZZ_SECONDS`` how long it may take at most,
``FLOTILLA_FUZZ_ARGS`` what else schemathesis is told, as ``--phases coverage --include-path-regex queues``. Two of
schemathesis' checks are left out: ``positive_data_acceptance`` and ``negative_data_rejection`` take it that the
description says all there is to know of what is accepted; ours leaves the domain its say, and reads "5" as a number.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.core.management import call_command
from django.db import connection

from config.stack.children import Children
from config.stack.ports import any_free_port
from config.stack.processes import Ladder
from config.stack.programs import REQUEST_LIMITS
from tests.api_support import caller
from tests.config import role_world
from tests.factories import make_user

ROOT = Path(__file__).resolve().parents[2]
CASES = int(os.environ.get("FLOTILLA_FUZZ_CASES", "3"))
SECONDS = int(os.environ.get("FLOTILLA_FUZZ_SECONDS", "240"))
ENDS = Ladder(((signal.SIGTERM, 30.0),))
LEFT_OUT = "positive_data_acceptance,negative_data_rejection"


@pytest.fixture
def children() -> Iterator[Children]:
    """Processes that end with this one, also when it is killed."""
    found = Children()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def web(children: Children, tmp_path: Path, transactional_db: Any) -> str:
    """The web application as a process of its own, on the test's database; its address."""
    address = f"127.0.0.1:{any_free_port()}"
    database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    env = {**os.environ, "DATABASE_URL": database, "FLOTILLA_API_RATE": "1000000/min", "FLOTILLA_LOG_LEVEL": "ERROR"}
    env["FLOTILLA_MEDIA_ROOT"] = str(tmp_path / "media")
    argv = [sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", address, *REQUEST_LIMITS]
    argv += ["--threads", "4", "--timeout", "120", "--no-control-socket"]
    web = children.start(name="web", argv=argv, ladder=ENDS, env=env, cwd=ROOT, log=tmp_path / "web.log")
    ends = time.monotonic() + 300
    while True:
        try:
            requests.get(f"http://{address}/healthz", timeout=5)
        except requests.RequestException:
            assert web.exit_code() is None, web.logged()
            assert time.monotonic() < ends, "the web application did not start"
            time.sleep(0.2)
        else:
            return f"http://{address}"


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 900)  # making the database counts
def test_every_operation_answers_as_the_description_says(web, children, tmp_path, settings):
    settings.MEDIA_ROOT = tmp_path / "media"
    world = role_world.build()
    ids = {name: pk for name, pk in world.rows.items() if isinstance(pk, int)}
    ids |= {"leads": world.rows["lead"], "consent/waivers": world.rows["waiver"]}
    admin = caller(make_user(role="admin"))
    token = admin._credentials["HTTP_AUTHORIZATION"]
    thorough = CASES > 10
    description = tmp_path / "description.yaml"
    call_command("spectacular", generator_class="config.api.schema.Generator", file=str(description))
    argv = [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(description), "--url", web),
        *("--header", f"Authorization: {token}"),
        *("--header", "Accept: application/json"),
        *("--checks", "all", "--exclude-checks", LEFT_OUT, "--max-examples", str(CASES), "--seed", "1"),
        *("--phases", "examples,coverage,fuzzing,stateful" if thorough else "fuzzing", "--max-time", str(SECONDS)),
        *("--no-shrink", "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off"),
        *("--exclude-path", "/api/v1/auth/logout", "--workers", "2", "--request-timeout", "60"),
        *shlex.split(os.environ.get("FLOTILLA_FUZZ_ARGS", "")),
    ]
    env = {**os.environ, "FUZZ_IDS": json.dumps(ids), "SCHEMATHESIS_HOOKS": "tests.config.fuzz_hooks"}
    env["PYTHONPATH"] = str(ROOT)
    said = tmp_path / "schemathesis.log"
    asker = children.start(name="schemathesis", argv=argv, ladder=ENDS, env=env, cwd=tmp_path, log=said)
    code = asker.popen.wait()
    if report := os.environ.get("FLOTILLA_FUZZ_REPORT"):
        Path(report).write_text(said.read_text() + (tmp_path / "web.log").read_text())
    assert code == 0, said.read_text()[-15_000:]
