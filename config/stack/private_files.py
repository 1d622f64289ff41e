"""Files that only their owner may read, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def _write_beside(path: Path, text: str) -> str:
    """A finished temporary file in the same folder, mode 0600 from its first moment."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return name


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` in one step; readers see the old text or the new, never half."""
    os.replace(_write_beside(path, text), path)  # noqa: PTH105


def create_once(path: Path, text: str) -> str:
    """Create ``path`` with ``text`` unless it exists; the text it holds afterwards. Two at once agree on one text."""
    name = _write_beside(path, text)
    try:
        os.link(name, path)
    except FileExistsError:
        return path.read_text(encoding="utf-8")
    finally:
        os.unlink(name)  # noqa: PTH108
    return text
