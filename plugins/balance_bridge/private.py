"""Folders and files that only their owner can read, whatever the umask: balances and keys are nobody else's business.

What exists already keeps the permissions that it has.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

UMASK = 0o077


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, unless it exists."""
    try:
        folder.mkdir(0o700, exist_ok=True)
    except FileNotFoundError:
        # mkdir(parents=True) would make those above it with the default permissions.
        make_folder(folder.parent)
        folder.mkdir(0o700, exist_ok=True)


def opener(path: str, flags: int) -> int:
    """For the argument ``opener`` of :func:`open`."""
    return os.open(path, flags, 0o600)


def make_file(path: Path, data: bytes = b"") -> None:
    """Make a file with this content, unless it exists. It appears whole, and is never opened under its own name."""
    if path.exists():
        return
    make_folder(path.parent)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(draft, "xb", opener=opener) as file:
            file.write(data)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
