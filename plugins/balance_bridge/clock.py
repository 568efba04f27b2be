"""Time and sleep as a thing that is handed in, so that a simulation can own them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
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
