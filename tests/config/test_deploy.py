"""What deploy/ names is what the code has."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config.serving import ROLES

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def runtime_lock():
    spec = importlib.util.spec_from_file_location("runtime_lock", DEPLOY / "runtime_lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_server_gets_what_the_project_asks_for_and_no_tools():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    whole, kept = runtime_lock().blocks(lock), runtime_lock().blocks(runtime_lock().runtime(lock))
    assert {"django", "celery", "psycopg2-binary", "gunicorn", "neonize", "certifi", "vine", "packaging"} <= set(kept)
    assert not {"pytest", "mypy", "ruff", "playwright", "dramatiq", "matplotlib", "hypothesis"} & set(kept)
    assert all(whole[name] == lines for name, lines in kept.items())
    assert sum(line.startswith("django-unfold==") for line in kept["django-unfold"]) == lock.count("\ndjango-unfold==")
    assert all(any("--hash=sha256:" in line for line in lines) for lines in kept.values())


def test_a_file_that_is_no_lock_of_ours_is_refused():
    with pytest.raises(ValueError, match=r"flotilla \(pyproject.toml\)"):
        runtime_lock().runtime("attrs==1.0\n    # via other\n")


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes"])
def test_each_role_is_started_and_no_other(name):
    files = [DEPLOY / name] if name.endswith("yaml") else sorted((DEPLOY / name).glob("*.yaml"))
    started = {role for file in files for role in re.findall(r"\[serve, (\w+)\]", file.read_text(encoding="utf-8"))}
    assert started == set(ROLES)


def test_the_autoscaler_never_goes_below_the_workers_that_share_the_shards():
    kubernetes = DEPLOY / "kubernetes"
    base = re.search(r'FLOTILLA_DEVICE_WORKERS: "(\d+)"', (kubernetes / "settings.yaml").read_text())[1]
    shards = re.search(r'FLOTILLA_SHARDS: "(\d+)"', (kubernetes / "settings.yaml").read_text())[1]
    least = re.search(r"minReplicas: (\d+)", (kubernetes / "autoscaling.yaml").read_text())[1]
    replicas = re.search(r"replicas: (\d+)", (kubernetes / "devices.yaml").read_text())[1]
    assert base == least == replicas
    assert int(base) <= int(shards)


def test_the_kustomization_lists_every_manifest():
    listed = re.findall(
        r"^  - ([a-z]+\.yaml)$", (DEPLOY / "kubernetes" / "kustomization.yaml").read_text(), re.MULTILINE
    )
    assert sorted([*listed, "kustomization.yaml"]) == sorted(p.name for p in (DEPLOY / "kubernetes").glob("*.yaml"))


def test_no_file_names_an_index_of_packages():
    for file in DEPLOY.rglob("*"):
        if file.is_file() and file.suffix not in {".svg", ".png", ".pyc"}:
            assert not re.search(r"pypi\.|pythonhosted|--index-url|--extra-index", file.read_text(encoding="utf-8")), (
                file
            )


def probe(what, **environment):
    return subprocess.run(
        [sys.executable, DEPLOY / "probe.py", what],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_probe_of_beat_believes_the_schedule_it_wrote(tmp_path):
    assert probe("beat", FLOTILLA_LOCAL=str(tmp_path)).returncode == 1
    (tmp_path / "beat-schedule.db").touch()
    assert probe("beat", FLOTILLA_LOCAL=str(tmp_path)).returncode == 0


def test_the_probe_of_backups_wants_one_of_last_night(tmp_path):
    assert probe("backup", FLOTILLA_BACKUPS=str(tmp_path)).returncode == 1
    told = tmp_path / "flotilla-2026-11-21T031004Z" / "backup.json"
    told.parent.mkdir()
    told.touch()
    assert probe("backup", FLOTILLA_BACKUPS=str(tmp_path)).returncode == 0
    os.utime(told, (1, 1))
    assert "hours old" in probe("backup", FLOTILLA_BACKUPS=str(tmp_path)).stderr


def test_the_probe_of_the_web_asks_by_a_name_that_is_answered_to(live_server):
    address = live_server.url.removeprefix("http://")
    asked = probe("web", FLOTILLA_BIND=address, FLOTILLA_HOSTS="localhost")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert probe("web", FLOTILLA_BIND="127.0.0.1:1").returncode == 1
    stranger = probe("web", FLOTILLA_BIND=address, FLOTILLA_HOSTS="stranger.example")
    assert stranger.returncode == 1
    assert "FLOTILLA_HOSTS" in stranger.stderr
