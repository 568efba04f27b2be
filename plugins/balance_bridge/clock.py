"""Time and sleep as a thing that is handed in, so that a simulation can own them; and how times are written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """What tells this boot of the machine from every other one; empty where the system does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Clock:
    """What the time is and how to let some of it pass.

    Attributes:
        wall: Seconds since the epoch (UTC); shared by processes, may be stepped by an operator.
        monotonic: Seconds that never step back until the machine boots again, for durations.
        sleep: Waits for a number of seconds.
        boot: Which boot of the machine the monotonic seconds count from.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    boot: Callable[[], str] = boot_id

    def now_ms(self) -> int:
        """UTC milliseconds since the epoch."""
        return int(self.wall() * 1000)


SYSTEM_CLOCK = Clock()


def utc_text(seconds: float) -> str:
    """An instant (seconds since the epoch, UTC) as in ``2026-11-20T00:00:00.000Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def http_date(text: str | None) -> float | None:
    """The instant (seconds since the epoch, UTC) of a date in an HTTP header; None without a readable one."""
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):  # which one depends on the text
        return None
