from __future__ import annotations

from io import StringIO

import pytest
import yaml
from django.core.management import call_command

from config.api.idempotency import is_exempt
from config.api.problems import CODES
from config.api.urls import router

PROBLEM = {"$ref": "#/components/responses/Problem"}


@pytest.fixture(scope="module")
def document():
    out = StringIO()
    call_command(
        "spectacular", generator_class="config.api.schema.Generator", validate=True, fail_on_warn=True, stdout=out
    )
    return yaml.safe_load(out.getvalue())


def operations(document):
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in {"get", "post", "put", "patch", "delete"}
    ]


def test_every_address_is_described(document):
    described = {path.replace("{id}", "1") for path in document["paths"]}
    for _, viewset, basename in router.registry:
        prefix = next(prefix for prefix, _, name in router.registry if name == basename)
        assert f"/api/v1/{prefix}" in described
        for extra in viewset.get_extra_actions():
            assert f"/api/v1/{prefix}/{'1/' if extra.detail else ''}{extra.url_path}" in described
    assert {"/api/v1/auth/token", "/api/v1/auth/logout"} <= described


def test_every_operation_tells_its_errors(document):
    for path, method, operation in operations(document):
        assert operation["responses"]["default"] == PROBLEM, (path, method)
        assert operation["responses"]["401"] == PROBLEM, (path, method)
        if "{" in path:
            assert operation["responses"]["404"] == PROBLEM, (path, method)


def test_the_problem_lists_every_code(document):
    text = document["components"]["schemas"]["Problem"]["description"]
    for code in CODES:
        assert f"`{code}`" in text


def test_posts_take_a_key_and_tokens_do_not(document):
    for path, method, operation in operations(document):
        names = {parameter["name"] for parameter in operation.get("parameters", [])}
        assert ("Idempotency-Key" in names) == (method == "post" and not is_exempt(path)), (path, method)


def test_credentials_are_asked_for_and_never_given(document):
    schemas = document["components"]["schemas"]
    assert "credentials" in schemas["DeviceRequest"]["properties"]
    assert "credentials" not in schemas["Device"]["properties"]


def test_nobody_can_name_an_owner(document):
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Request"):
            assert "owner" not in schema.get("properties", {}), name


def test_when_a_device_sends_is_explained(document):
    described = document["components"]["schemas"]["DeviceRequest"]["properties"]
    for name in ("warm_up", "window_start", "window_end", "time_zone"):
        assert described[name]["description"], name
    assert "give all again" in described["credentials"]["description"]
    answered = document["components"]["schemas"]["Device"]["properties"]
    assert answered["held_until"]["readOnly"]
    assert answered["hold_reason"]["readOnly"]
