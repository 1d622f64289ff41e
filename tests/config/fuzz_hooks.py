"""What schemathesis is told of this installation: ids of rows that there are, in half of the cases."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

IDS: dict[str, int] = json.loads(os.environ.get("FUZZ_IDS", "{}"))


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """An even id becomes the row's of that kind."""
    if not path_parameters or not context.operation:
        return path_parameters
    given = path_parameters.get("id")
    kind = context.operation.path.removeprefix("/api/v1/").split("/{")[0]
    if str(given).isdecimal() and int(str(given)) % 2 == 0 and kind in IDS:
        return {**path_parameters, "id": IDS[kind]}
    return path_parameters
