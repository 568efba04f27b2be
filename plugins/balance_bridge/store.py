"""The store: what every stage leaves behind, as objects that are written whole or not at all and never changed.

Keys are ``<stage>/<account>/<day>/...``. The root is an fsspec path (Airflow's ``ObjectStoragePath`` is one): a
local folder, or a bucket by URL. Object stores cannot append, so whatever grows is a series of numbered objects:
:meth:`Store.append` adds the next one, unless the newest says the same already. Two copies of one task therefore
converge instead of overwriting each other.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from balance_bridge import private
from balance_bridge.errors import StoreDamaged, StoreUnwritable

# What may be removed once it is old, in the order in which a day goes: what is left when it is stopped half way still
# shows that the day was delivered. Receipts are what prevents a second delivery, and stay.
PRUNABLE = ("intraday/", "dry/", "raw/", "ledger/", "balances/", "reconciliation/")

_DIGEST = "sha256"
_DIGITS = 4
_MOST = 10**_DIGITS - 1


class StorePath(Protocol):
    """The part of an fsspec path (``upath.UPath``) that the store needs."""

    @property
    def fs(self) -> Any:
        """The fsspec file system."""

    @property
    def path(self) -> str:
        """The path within that file system."""


class Store:
    """Immutable objects under one root.

    Args:
        root: A local folder, or an fsspec path such as ``ObjectStoragePath("s3://conn@bucket/balances")``.
    """

    def __init__(self, root: Path | StorePath) -> None:
        self._root = root
        if isinstance(root, Path):
            self._fs: Any = None
            self._base = str(root)
        else:
            local = "file" in _protocols(root.fs)
            self._fs = None if local else root.fs
            self._base = root.path.rstrip("/") or "/"

    def __repr__(self) -> str:
        return f"Store({str(self._root)!r})"

    def describe(self, key: str) -> str:
        """The object's place as a person would look for it."""
        return f"{self._base}/{key}"

    def put(self, key: str, data: bytes) -> bool:
        """Write an object whole, unless it exists.

        Args:
            key: Slash-separated, below the root.
            data: The whole content.

        Returns:
            True if it was written, False if an object of that key was there before; that one is left as it is.

        Raises:
            StoreUnwritable: If it could not be written; then there is no such object, not even a part of it.
        """
        try:
            if self._fs is None:
                return private.make_file(Path(self.describe(key)), data)
            if self.exists(key):
                return False
            try:
                # Where the backend can (S3's If-None-Match), exclusive; elsewhere checked first and then written whole.
                self._fs.pipe_file(self.describe(key), data, mode="create")
            except FileExistsError:
                return False
        except OSError as error:
            raise StoreUnwritable(
                f"{self.describe(key)} cannot be written",
                why=str(error.strerror or error),
                do="Make room or grant access, or set another one with the option [balance_bridge] store.",
            ) from error
        return True

    def append(self, prefix: str, suffix: str, data: bytes) -> str:
        """Add the next object of a numbered series, unless the newest holds the very same bytes.

        Args:
            prefix: The series' folder.
            suffix: Ending of the names, such as ``.json``.
            data: The whole content.

        Returns:
            The key under which the content lies.

        Raises:
            StoreUnwritable: If it could not be written.
            StoreDamaged: If the newest object cannot be read, or the series has used up its numbers.
        """
        for _ in range(_MOST):
            newest = self.newest(prefix, suffix)
            if newest is not None and self.read(newest) == data:
                return newest
            number = 1 if newest is None else int(_name(newest)[:_DIGITS]) + 1
            if number > _MOST:
                raise StoreDamaged(f"{self.describe(prefix)} holds {_MOST} objects *{suffix}: no more can follow")
            key = f"{prefix}/{number:0{_DIGITS}d}{suffix}"
            if self.put(key, data):
                return key
        raise StoreUnwritable(f"{self.describe(prefix)}: others added an object each time before this one could be")

    def series(self, prefix: str, suffix: str) -> list[str]:
        """The keys of a numbered series, oldest first."""
        numbered = re.compile(rf"[0-9]{{{_DIGITS}}}{re.escape(suffix)}")
        return [key for key in self.list(prefix) if numbered.fullmatch(key.removeprefix(f"{prefix}/"))]

    def newest(self, prefix: str, suffix: str) -> str | None:
        """The key of the newest object of a numbered series, or None."""
        keys = self.series(prefix, suffix)
        return keys[-1] if keys else None

    def has_follower(self, key: str) -> bool:
        """Whether an object of a numbered series is not the newest any more; without listing the series."""
        folder, _, name = key.rpartition("/")
        return self.exists(f"{folder}/{int(name[:_DIGITS]) + 1:0{_DIGITS}d}{name[_DIGITS:]}")

    def discard(self, key: str) -> None:
        """Remove an object that nothing rests on: a probe, or an index that a newer one has replaced."""
        if not key.startswith(("check/", "index/")):
            raise ValueError(f"{key} must stay")
        self._remove(key)

    def prune(self, key: str) -> None:
        """Remove an object that can be done without: anything but a receipt.

        Raises:
            StoreUnwritable: If it cannot be removed.
        """
        if not key.startswith(PRUNABLE):
            raise ValueError(f"{key} must stay")
        try:
            self._remove(key)
            if self._fs is None:
                # Folders that are empty now; the first one that is not ends it.
                for folder in Path(self.describe(key)).parents:
                    if folder == Path(self._base):
                        break
                    folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise StoreUnwritable(
                    f"{self.describe(key)} cannot be removed", why=str(error.strerror or error)
                ) from error

    def size(self, key: str) -> int:
        """The object's size in bytes."""
        return os.path.getsize(self.describe(key)) if self._fs is None else int(self._fs.size(self.describe(key)))

    def _remove(self, key: str) -> None:
        if self._fs is None:
            Path(self.describe(key)).unlink(missing_ok=True)
        else:
            self._fs.rm_file(self.describe(key))

    def exists(self, key: str) -> bool:
        """Whether there is an object of that key.

        Raises:
            StoreUnwritable: If that cannot be found out. (``isfile`` of most file systems would say no.)
        """
        try:
            if self._fs is None:
                return stat.S_ISREG(os.stat(self.describe(key)).st_mode)
            # fsspec may remember what was not there, and another process may have written since.
            self._fs.invalidate_cache()
            return bool(self._fs.info(self.describe(key))["type"] == "file")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except Exception as error:
            raise StoreUnwritable(
                f"{self.describe(key)} cannot be looked up",
                why=str(error),
                do="See that the folder or bucket of the option [balance_bridge] store can be reached.",
            ) from error

    def read(self, key: str) -> bytes:
        """The object's content.

        Raises:
            StoreDamaged: If there is no such object.
        """
        try:
            if self._fs is None:
                return Path(self.describe(key)).read_bytes()
            return bytes(self._fs.cat_file(self.describe(key)))
        except FileNotFoundError as error:
            raise StoreDamaged(f"{self.describe(key)} is missing from the store") from error

    def read_json(self, key: str) -> Any:
        """The object's content as JSON, without its digest; numbers stay exact only if they were written as text.

        Raises:
            StoreDamaged: If the object is missing, not JSON, or not what :func:`to_json` wrote.
        """
        try:
            document = json.loads(self.read(key))
        except ValueError as error:
            raise StoreDamaged(f"{self.describe(key)} is not JSON", why=str(error)) from error
        sealed = document.pop(_DIGEST, None) if isinstance(document, dict) else None
        if sealed is not None and sealed != _digest(document):
            raise StoreDamaged(f"{self.describe(key)} is not what was written", why="its digest is another one")
        return document

    def list(self, prefix: str) -> list[str]:
        """The keys below a prefix, at any depth, sorted. What is being written does not show."""
        return sorted(key for key in self._walk(prefix) if not _name(key).startswith("."))

    def _walk(self, prefix: str) -> Iterator[str]:
        if self._fs is None:
            folder = Path(self.describe(prefix))
            for directory, _, names in os.walk(folder):
                for name in names:
                    yield f"{prefix}/{(Path(directory) / name).relative_to(folder).as_posix()}"
            return
        place = self.describe(prefix)
        # fsspec may remember listings, and another process may have written since.
        self._fs.invalidate_cache()
        for found in self._fs.find(place):
            name = str(found).removeprefix("/").removeprefix(place.removeprefix("/")).removeprefix("/")
            # s3fs names the folder itself if it was empty when it was listed, and is not a moment later.
            if name:
                yield f"{prefix}/{name}"


def to_json(document: Any) -> bytes:
    """A document of the store as JSON bytes, with its digest. Keys are sorted: the same document, the same bytes."""
    # Of what will be read back: numbers as keys become text, and sort otherwise.
    plain = json.loads(json.dumps(document, ensure_ascii=False, allow_nan=False), parse_float=str)
    if isinstance(plain, dict) and _DIGEST in plain:
        raise ValueError(f"a document of the store has no key {_DIGEST!r} of its own")
    sealed = {**plain, _DIGEST: _digest(plain)} if isinstance(plain, dict) else plain
    return (json.dumps(sealed, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode()


def _digest(document: Any) -> str:
    canonical = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _protocols(fs: Any) -> tuple[str, ...]:
    protocol = fs.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _name(key: str) -> str:
    return key.rsplit("/", 1)[-1]
