"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from django.apps import apps
from django.db.models import ForeignKey

from devices.access import Access

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {"devices": 0, "leads": 1, "messaging": 2, "campaigns": 3, "sequences": 3, "config": 4}
MOST_LINES = 400
LONG = {
    "tests/campaigns/test_features.py", "tests/config/test_chaos_judge.py", "tests/devices/gateways/test_http.py",
    "tests/devices/test_admin.py", "tests/messaging/outgoing/test_outgoing.py",
    "tests/messaging/transport/test_contract.py", "tests/messaging/transport/test_devices.py",
    "tests/sequences/test_features.py",
}  # fmt: skip
"""Tests that may be longer: each goes through one thing from beginning to end. No part of the product is among them."""
TOP_LEVEL = {
    "manage.py", "pyproject.toml", "README.md", "Makefile", "LICENSE", "CHANGELOG.md", "requirements.lock",
    "config", "campaigns", "devices", "leads", "sequences", "messaging", "tests", "deploy",
}  # fmt: skip


def models():
    return [model for label in FLOORS for model in apps.get_app_config(label).get_models()]


def test_foreign_keys_point_down():
    wrong = [
        f"{model._meta.label}.{field.name} → {field.related_model._meta.label}"
        for model in models()
        for field in model._meta.get_fields()
        if isinstance(field, ForeignKey)
        and field.related_model._meta.app_label in FLOORS
        and field.related_model._meta.app_label != model._meta.app_label
        and FLOORS[field.related_model._meta.app_label] >= FLOORS[model._meta.app_label]
    ]
    assert wrong == []


@pytest.mark.parametrize("label", ["devices", "leads", "messaging", "campaigns", "sequences"])
def test_everything_says_who_may_see_it(label):
    for model in apps.get_app_config(label).get_models():
        assert isinstance(getattr(model, "access", None), Access), model
        assert hasattr(model.objects.all(), "visible_to"), model


def test_the_top_level_is_what_it_should_be():
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and path.name != "__pycache__"}
    assert found <= TOP_LEVEL | {"staticfiles"}
    assert found >= {"manage.py", "pyproject.toml", "README.md", "config", "deploy", "tests"}


def test_no_module_is_longer_than_a_reader_s_patience():
    found = {
        str(path.relative_to(ROOT))
        for floor in (*FLOORS, "tests")
        for path in (ROOT / floor).rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }
    assert found == LONG, "split what is new at its natural seam; take out of LONG what is short enough now"


def test_the_lock_file_names_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--hash=sha256:" in text


def test_time_lives_in_rows_never_in_the_broker():
    """ETA and countdown beyond the visibility timeout run twice on Redis; self.retry() is an ETA."""
    wrong = []
    for path in [p for floor in FLOORS for p in (ROOT / floor).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                names = {keyword.arg for keyword in node.keywords}
                called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                if called in {"apply_async", "send_task", "delay"} and names & {"eta", "countdown", "expires"}:
                    wrong.append(f"{path}:{node.lineno}")
                if called == "retry" and isinstance(node.func, ast.Attribute):
                    owner = node.func.value
                    if isinstance(owner, ast.Name) and owner.id == "self":
                        wrong.append(f"{path}:{node.lineno}")
    assert wrong == []


def test_the_database_is_spoken_to_through_psycopg2():
    """Django prefers psycopg 3 where it finds one; pool and drivers are made for psycopg2."""
    from django.db import connection

    assert connection.Database.__name__ == "psycopg2"
