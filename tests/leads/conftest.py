from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _media(settings: Any, tmp_path: Path) -> None:
    """Files that are imported and exported go into the test's own folder."""
    settings.MEDIA_ROOT = tmp_path
