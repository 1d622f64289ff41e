from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from messaging.media import attaching


@pytest.fixture(autouse=True)
def _own_files(settings: Any, tmp_path: Path) -> Iterator[None]:
    """Files of this test alone; and what a process remembers of rows ends with their database."""
    settings.MEDIA_ROOT = tmp_path
    settings.FLOTILLA_URL = "https://flotilla.example"
    attaching.forget()
    yield
    attaching.forget()
