"""Time and sleep as a thing that is handed in, so that a simulation can own them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """What the time is and how to let some of it pass.

    Attributes:
        wall: Seconds since the epoch (UTC); shared by processes, may be stepped by an operator.
        monotonic: Seconds that never step back, for durations within one process.
        sleep: Waits for a number of seconds.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def now_ms(self) -> int:
        """UTC milliseconds since the epoch."""
        return int(self.wall() * 1000)


SYSTEM_CLOCK = Clock()
