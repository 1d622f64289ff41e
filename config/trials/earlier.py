"""What an earlier release does with its own code in the trial of a rolling deploy: its tables, its fleet, its campaign.

The present code cannot do that for it: it asks for columns that are not there yet.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from config.stack.errors import StackError

NEEDED: Final = Path("config/trials/scene.py")
SECONDS: Final = 600.0

_FILL: Final = """
import json, sys, django
django.setup()
from config.trials.scene import make_fleet
told = json.loads(sys.argv[1])
fleet = make_fleet(devices=told["devices"], leads=told["leads"], gap_seconds=tuple(told["gap_seconds"]))
print(json.dumps({"pool": fleet.pool.pk}))
"""
_LAUNCH: Final = """
import json, sys, time, django
django.setup()
from django.utils import timezone
from campaigns import services
from config.bench.corridor import make_campaign
from devices.models import Pool
pool = Pool.objects.get(pk=json.loads(sys.argv[1])["pool"])
run = services.launch(campaign=make_campaign(pool=pool, name="Rolling"), now=timezone.now()).run
print(json.dumps({"run": run.pk}))
"""


def migrate(code: Path, *, environment: Mapping[str, str]) -> None:
    """Its migrations, on the database that the environment names. Raises StackError."""
    _run([sys.executable, str(code / "manage.py"), "migrate", "--no-input"], code, environment)


def fill(code: Path, *, environment: Mapping[str, str], **told: Any) -> int:
    """Devices and leads, as :func:`config.trials.scene.make_fleet` there makes them; the pool. Raises StackError."""
    return int(_ask(_FILL, code, environment, told)["pool"])


def launch(code: Path, *, environment: Mapping[str, str], pool: int) -> int:
    """A campaign over them; the run. Raises StackError."""
    return int(_ask(_LAUNCH, code, environment, {"pool": pool})["run"])


def check(code: Path) -> None:
    """Raises StackError for code from before there were trials."""
    if not (code / NEEDED).is_file():
        raise StackError(
            f"That release has no {NEEDED}, by which it would be filled: name a later one with --previous."
        )


def _ask(script: str, code: Path, environment: Mapping[str, str], told: Mapping[str, Any]) -> dict[str, Any]:
    env = {**environment, "DJANGO_SETTINGS_MODULE": "config.settings", "PYTHONPATH": str(code)}
    said = _run([sys.executable, "-c", script, json.dumps(told)], code, env)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def _run(argv: list[str], code: Path, environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            argv, cwd=code, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise StackError(f"The code in {code} was not done within {SECONDS:.0f} seconds.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise StackError(f"The code in {code} failed: {last[:300]}")
    return done.stdout
