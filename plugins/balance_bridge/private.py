"""Folders and files that only their owner can read, whatever the umask: balances and keys are nobody else's business.

What exists already keeps the permissions that it has.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

UMASK = 0o077


def make_folder(folder: Path) -> list[Path]:
    """Make a folder, and those above it that are missing, unless it exists.

    Returns:
        The folders that were made, the outermost first.
    """
    if folder.is_dir():
        return []
    # mkdir(parents=True) would make those above it with the default permissions.
    made = make_folder(folder.parent)
    folder.mkdir(0o700, exist_ok=True)
    return [*made, folder]


def opener(path: str, flags: int) -> int:
    """For the argument ``opener`` of :func:`open`."""
    return os.open(path, flags, 0o600)


def make_file(path: Path, data: bytes = b"") -> bool:
    """Make a file with this content, unless it exists. It appears whole, and survives a loss of power.

    Returns:
        Whether it was made.
    """
    if path.exists():
        return False
    new_folders = make_folder(path.parent)
    # A hidden name beside the target; a hard link makes the target appear whole, and only if nobody else's did.
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(draft, "xb", opener=opener) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    # The name, and those of the folders that were made for it.
    for folder in (path.parent, *(each.parent for each in new_folders)):
        _sync(folder)
    return True


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
