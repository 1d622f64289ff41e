"""deploy/FEATURES.md against the program: what it names is there, and what is there it names."""

from __future__ import annotations

import ast
import re
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
import yaml
from django.core.management import call_command, get_commands
from django.urls import Resolver404, resolve

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "deploy" / "FEATURES.md").read_text(encoding="utf-8")
CALL = re.compile(r"`((?:(?:GET|POST|PUT|PATCH|DELETE) )+)(/[^`]*)`")
PAGE = re.compile(r"`(/[^`]*)`")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
COMMAND = re.compile(r"`manage\.py (\w+)`")
LINK = re.compile(r"\]\(([^)]+)\)")


def rows() -> list[list[str]]:
    """The four cells of every row."""
    lines = [line for line in TEXT.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [row for row in cells if row[0] not in {"what it does", "---"}]


@pytest.fixture(scope="module")
def described() -> set[tuple[str, str]]:
    """Method and address of every call in the description of the API."""
    out = StringIO()
    call_command("spectacular", generator_class="config.api.schema.Generator", stdout=out)
    paths = yaml.safe_load(out.getvalue())["paths"]
    return {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, operations in paths.items()
        for method in operations
        if method in {"get", "post", "put", "patch", "delete"}
    }


@cache
def named_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_each_row_has_a_place_and_a_test():
    assert len(rows()) > 50
    for row in rows():
        assert len(row) == 4, row
        what, first, second, shown = row
        assert TEST.search(shown), what
        nowhere = (first, second) == ("–", "–")
        assert not nowhere or what.startswith(("Idle devices", "What is stuck")), what


def test_every_call_is_described_and_every_described_call_is_in_a_row(described):
    named = {(method, path) for methods, path in CALL.findall(TEXT) for method in methods.split()}
    assert named - described == set()
    assert described - named == set()


def test_every_page_opens_something():
    for page in {page for row in rows() for page in PAGE.findall(row[1])}:
        address = page.replace("{id}", "1").replace("{key}", "x")
        try:
            found = resolve(address)
        except Resolver404:
            pytest.fail(f"{page} is no address")
        # the admin takes whatever it does not know to a view of its own
        assert "url" not in found.kwargs, page


def test_every_test_command_and_file_is_there():
    for path, name in TEST.findall(TEXT):
        assert (ROOT / path).exists(), path
        assert name in named_in(path), f"{path}::{name}"
    assert {name for name in COMMAND.findall(TEXT) if name not in get_commands()} == set()
    assert [link for link in LINK.findall(TEXT) if not (ROOT / "deploy" / link).exists()] == []
