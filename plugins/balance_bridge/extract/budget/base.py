"""What a request budget promises, whatever it is kept in.

What a server counts is when requests *reach* it, and that lies anywhere between a request's start and its end. So a
place is taken before a request starts and is free again one window after the request *ended*: then no two requests
whose arrivals count into one window can ever be more than the limit, whatever the latency. A process that dies with a
place in hand leaves it taken until its lease and a window have passed.

Libraries count starts, not ends. The nearest one admits more than its limit on SQLite unless its lock is driven by
hand, and on shared backends it goes by the clients' clocks; what is needed is one short transaction, so it is written
here.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypedDict

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import BudgetExhausted, ConnectionFailed

REQUESTS_PER_WINDOW = 8
WINDOW_S = 60.0
# Longer than a request can take, its connection included: the transport ends it before.
LEASE_S = 120.0
# The longest time that a server can ask not to be asked, and is believed.
MAX_FILL_S = 900.0
# A server that counts a closed interval, and clocks that tick in milliseconds.
MARGIN_S = 0.05
_RECHECK_S = 1.0


def budget_key(api_key: str) -> str:
    """The name under which a key's requests are counted; the key itself cannot be read from it."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:24]


class Options(TypedDict, total=False):
    """What every budget takes; see :class:`Budget`."""

    limit: int
    window_s: float
    lease_s: float
    patience_s: float
    clock: Clock
    log: Callable[[str], None]


@dataclass(frozen=True)
class Usage:
    """How a budget stands.

    Attributes:
        limit: Requests in any window.
        taken: Places that are taken now.
        requests: Places that were ever taken.
        refusals: How often the server has refused a request all the same.
    """

    limit: int
    taken: int
    requests: int
    refusals: int


@dataclass(frozen=True)
class Full:
    """That there is no place now.

    Attributes:
        wait_s: Seconds after which there is one for sure, even if nobody gives one back before.
        held: Whether the place that is free first is that of a request under way: it may come free earlier, but not
            before a window has passed.
    """

    wait_s: float
    held: bool


class Budget(ABC):
    """Places in a rolling window for one API key.

    Args:
        limit: Requests in any window.
        window_s: Length of the window in seconds.
        lease_s: Seconds after which a place whose request has not ended is taken for a dead process's.
        patience_s: For how long :meth:`place` waits in all; where it must wait for longer it raises.
        clock: Where sleep comes from, and the instants of a budget that one machine keeps.
        log: Told when a wait begins.
    """

    def __init__(
        self,
        *,
        limit: int = REQUESTS_PER_WINDOW,
        window_s: float = WINDOW_S,
        lease_s: float = LEASE_S,
        patience_s: float = math.inf,
        clock: Clock = SYSTEM_CLOCK,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._lease_s = lease_s
        self._patience_s = patience_s
        self._clock = clock
        self._log = log

    def try_take(self) -> tuple[int | None, float]:
        """Take a place without waiting.

        Returns:
            The place and 0, or None and the seconds after which there is one for sure.

        Raises:
            ConnectionFailed: If the backend cannot be reached. Without it no request is made.
        """
        found = self._take()
        return (None, found.wait_s) if isinstance(found, Full) else (found, 0.0)

    @abstractmethod
    def _take(self) -> int | Full:
        """Take a place, or say how long it is until there is one."""

    @abstractmethod
    def give_back(self, place: int) -> None:
        """Say that the request which held the place has ended; the place is free one window from now."""

    @abstractmethod
    def fill(self, for_s: float = WINDOW_S) -> None:
        """Count the window as full from now on, as the server said that it is.

        Args:
            for_s: Seconds for which the server asked not to be asked; at least a window and at most 15 minutes count.
        """

    @abstractmethod
    def usage(self) -> Usage:
        """How it stands."""

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for one request; waits until there is one.

        Raises:
            BudgetExhausted: As soon as it shows that this takes longer than the budget's patience, all in all.
            ConnectionFailed: If the backend cannot be reached.
        """
        place = self._wait()
        try:
            yield
        finally:
            try:
                self.give_back(place)
            except ConnectionFailed as error:
                # The request has been made, and its answer counts. The place stays taken until its lease is over.
                self._log(f"{error}; a place of it stays taken for {self._held_s:.0f} s")

    def _wait(self) -> int:
        waited_s, told = 0.0, False
        while True:
            found = self._take()
            if isinstance(found, int):
                return found
            # A request under way ends within seconds; what remains to be waited for then is one window.
            expected_s = min(found.wait_s, self._window_s) if found.held else found.wait_s
            if waited_s + expected_s > self._patience_s:
                raise BudgetExhausted(
                    f"the request budget is used up for {expected_s:.0f} s ({self._limit} requests in any "
                    f"{self._window_s:g} s)",
                    wait_s=expected_s,
                )
            if not told:
                self._log(f"the request budget is used up: waiting {expected_s:.0f} s for a place")
                told = True
            pause_s = min(found.wait_s, _RECHECK_S) if found.held else found.wait_s
            self._clock.sleep(pause_s)
            waited_s += pause_s

    @property
    def _freed_s(self) -> float:
        """Seconds after which a place is free that is given back now."""
        return self._window_s + MARGIN_S

    @property
    def _held_s(self) -> float:
        """Seconds for which a place is taken that nobody gives back."""
        return self._lease_s + self._freed_s

    def _filled_s(self, for_s: float) -> float:
        return min(max(for_s, self._window_s), MAX_FILL_S) + MARGIN_S

    @property
    def _furthest_s(self) -> float:
        """The largest distance at which a place can come free: what lies further ahead is of another clock."""
        return max(self._held_s, MAX_FILL_S + MARGIN_S)
