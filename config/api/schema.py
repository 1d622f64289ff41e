"""The description of the API (OpenAPI), with what every operation shares: errors and the Idempotency-Key."""

from __future__ import annotations

from typing import Any

from drf_spectacular.contrib.knox_auth_token import KnoxTokenScheme
from drf_spectacular.generators import SchemaGenerator

from config.api.idempotency import HEADER, REPLAY_HEADER, is_exempt
from config.api.problems import CODES, MEDIA_TYPE

_METHODS = {"get", "post", "put", "patch", "delete"}

_KEY_PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
    "description": (
        "Any value of your own, as a UUID, that makes this request safe to repeat: for 24 hours a request with the "
        f"same key gets the first one's answer (with `{REPLAY_HEADER}: true`) and changes nothing again. Only success "
        "is kept: after an error nothing has happened and the key is free. The same key with another request is a 422."
    ),
}
_REPLAY = {"schema": {"type": "string", "enum": ["true"]}, "description": f"Sent when a {HEADER} was seen before."}


class ScopedTokenScheme(KnoxTokenScheme):
    """Our tokens look as knox' do."""

    target_class = "config.api.token_auth.ScopedTokens"


_RATE = {
    "RateLimit-Limit": {"schema": {"type": "integer"}, "description": "Requests per minute, or what else is set."},
    "RateLimit-Remaining": {"schema": {"type": "integer"}, "description": "How many of them are left."},
    "RateLimit-Reset": {"schema": {"type": "integer"}, "description": "Seconds until there are more again."},
}


class Generator(SchemaGenerator):
    """Adds to every operation what no view has to say for itself."""

    def get_schema(self, request: Any = None, public: bool = False) -> dict[str, Any]:
        """The whole document."""
        document: dict[str, Any] = super().get_schema(request=request, public=public)
        components = document.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = _problem_schema()
        components["responses"] = {"Problem": _problem_response()}
        document["paths"] = {_named(path): operations for path, operations in document.get("paths", {}).items()}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if method in _METHODS:
                    _plain_ids(operation)
                    _complete(operation, path=path, method=method)
                    _one_body(operation, schemas=components["schemas"])
        return document


_TOKENS = "/api/v1/tokens/{digest}"


def _named(path: str) -> str:
    """A token goes by its public id, not by its key in the table."""
    return path.replace("{digest}", "{id}") if path == _TOKENS else path


def _plain_ids(operation: dict[str, Any]) -> None:
    """Ids of rows are whole numbers and those of tokens UUIDs; what is left of a pattern would be text to a client."""
    for parameter in operation.get("parameters", []):
        if parameter["in"] != "path":
            continue
        if parameter["name"] == "digest":
            parameter |= {"name": "id", "schema": {"type": "string", "format": "uuid"}}
        elif parameter["schema"].get("pattern") == "^[0-9]+$" or parameter["schema"] == {"type": "integer"}:
            parameter["schema"] = {"type": "integer", "minimum": 0}


def _complete(operation: dict[str, Any], *, path: str, method: str) -> None:
    """Errors for every operation; the key for POSTs that keep answers."""
    responses = operation.setdefault("responses", {})
    for status in _error_statuses(operation, path=path, method=method):
        responses.setdefault(status, {"$ref": "#/components/responses/Problem"})
    if not path.startswith("/api/v1/auth/token"):
        for status, response in responses.items():
            if status.startswith("2"):
                response.setdefault("headers", {}).update(_RATE)
    if method == "post" and not is_exempt(path):
        operation.setdefault("parameters", []).append(_KEY_PARAMETER)
        for status, response in responses.items():
            if status.startswith("2"):
                response.setdefault("headers", {})[REPLAY_HEADER] = _REPLAY


def _one_body(operation: dict[str, Any], *, schemas: dict[str, Any]) -> None:
    """JSON, and beside it multipart where a file may come along. Forms are taken as well, but nobody needs the choice:
    generated clients and pages would offer each body three times."""
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return
    content.pop("application/x-www-form-urlencoded", None)
    schema = content.get("multipart/form-data", {}).get("schema", {})
    named = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
    if not any(each.get("format") == "binary" for each in named.get("properties", {}).values()):
        content.pop("multipart/form-data", None)


def _error_statuses(operation: dict[str, Any], *, path: str, method: str) -> list[str]:
    """What a caller should be ready for here; ``default`` stands for whatever else there may be."""
    found = {"401", "403", "429", "default"}
    if "requestBody" in operation or operation.get("parameters"):
        found.add("400")
    if "{" in path:
        found.add("404")
    if method != "get":
        found |= {"409", "422"}
    return sorted(found)


def _problem_schema() -> dict[str, Any]:
    codes = "\n".join(f"| `{code}` | {status} | {title} |" for code, (status, title) in CODES.items())
    error = {
        "type": "object",
        "required": ["field", "code", "message"],
        "properties": {
            "field": {
                "type": "string",
                "description": "Path of the field, as `name` or `steps.0.text`; empty for the whole.",
            },
            "code": {"type": "string", "description": "Stable, for programs."},
            "message": {"type": "string", "description": "For people: what is wrong and what to do."},
        },
    }
    return {
        "type": "object",
        "description": (
            "What went wrong (RFC 9457). `code` is stable; texts may change. Refusals by the domain (422) bring codes "
            f"of their own, as `opted_out` or `no_device`.\n\n| code | status | meaning |\n|---|---|---|\n{codes}"
        ),
        "required": ["type", "title", "status", "code", "detail", "errors"],
        "properties": {
            "type": {"type": "string", "format": "uri", "description": "As `urn:flotilla:problem:invalid`."},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "examples": list(CODES)},
            "detail": {"type": "string"},
            "errors": {"type": "array", "items": error},
        },
    }


def _problem_response() -> dict[str, Any]:
    return {
        "description": "A problem.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
