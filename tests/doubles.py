"""Stand-ins that several rooms' tests use."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from balance_bridge.clock import Clock
from balance_bridge.errors import StoreDamaged
from balance_bridge.store import Store

#: Every case, instead of some: ``make simulate``, and once a night.
THOROUGH = bool(os.environ.get("THOROUGH"))


def examples(few: int) -> int:
    """How many examples a property gets: a few, or ten times as many where time does not matter."""
    return 10 * few if THOROUGH else few


class Killed(BaseException):
    """The process is gone: nothing can catch it and tidy up."""


class FakeClock:
    """Stands still but for what is slept, or moved by hand."""

    # Midnight after the day that most tests deliver: 2026-11-21 UTC.
    def __init__(self, now: float = 1_795_219_200.0) -> None:
        self.now = now
        self.slept: list[float] = []
        self.clock = Clock(wall=self.wall, monotonic=self.wall, sleep=self.sleep)

    def wall(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class MemoryStore(Store):
    """The store's contract without a disk; ``before_put`` is called with each key before it is written."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.before_put: Callable[[str], None] = lambda _: None

    def put(self, key: str, data: bytes) -> bool:
        self.before_put(key)
        if key in self.objects:
            return False
        self.objects[key] = data
        return True

    def exists(self, key: str) -> bool:
        return key in self.objects

    def read(self, key: str) -> bytes:
        if key not in self.objects:
            raise StoreDamaged(f"{key} is missing from the store")
        return self.objects[key]

    def describe(self, key: str) -> str:
        return key

    def _walk(self, prefix: str) -> Iterator[str]:
        yield from [key for key in self.objects if key.startswith(f"{prefix}/")]

    def text(self) -> str:
        """All that is in it, decompressed."""
        found = (zlib.decompress(data, 31) if key.endswith(".gz") else data for key, data in self.objects.items())
        return b"".join(found).decode()

    def documents(self, part: str) -> list[Any]:
        return [json.loads(data) for key, data in sorted(self.objects.items()) if part in key]
