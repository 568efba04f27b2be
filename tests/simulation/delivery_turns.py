"""Several copies of a run, of which one goes on at a time, on one virtual clock.

A copy that sleeps never holds up another one: the clock moves only by what the others do meanwhile, and jumps to the
next one that wakes once nobody else can go on. So nothing is slower than it says it is, but for a copy that is frozen
on purpose: it stands still until all others have ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from doubles import FakeClock

#: Whether another copy goes on at a copy's step of this number.
Changes = Callable[[int, int], bool]


class Turns:
    """Lets one of several copies go on at a time.

    Args:
        clock: What all of them take for the time.
        changes: Decides at each step whether another one goes on.
        freeze_at: Per copy the step at which it freezes.
        limit_s: Seconds of real time after which it is taken for stuck.
    """

    def __init__(
        self, clock: FakeClock, changes: Changes, freeze_at: Mapping[int, int] | None = None, limit_s: float = 60.0
    ) -> None:
        self.now = 0
        self._clock = clock
        self._changes = changes
        self._freeze_at = dict(freeze_at or {})
        self._limit_s = limit_s
        self._alive: list[int] = []
        self._frozen: set[int] = set()
        self._asleep_until: dict[int, float] = {}
        self._gates: list[threading.Semaphore] = []
        self._failures: list[BaseException] = []

    def run(self, copies: Sequence[Callable[[], None]]) -> None:
        """Run all to their ends; raises the first failure."""
        self._alive = list(range(len(copies)))
        self._gates = [threading.Semaphore(0) for _ in copies]
        threads = [threading.Thread(target=self._live, args=(me, copy), daemon=True) for me, copy in enumerate(copies)]
        for thread in threads:
            thread.start()
        self._gates[0].release()
        for thread in threads:
            thread.join(self._limit_s)
            if thread.is_alive():
                raise RuntimeError("copies of a run wait for each other")
        if self._failures:
            raise self._failures[0]

    def step(self, number: int) -> None:
        """The copy that goes on takes a step: it may freeze, or another one may go on."""
        me = self.now
        if self._freeze_at.get(me) == number:
            self._frozen.add(me)
            self._hand_over(me)
        elif self._changes(me, number) and (others := [each for each in self._ready() if each != me]):
            self._switch(me, others[0])

    def sleep(self, seconds: float) -> None:
        """The copy that goes on sleeps."""
        me = self.now
        self._asleep_until[me] = self._clock.now + seconds
        self._hand_over(me)

    def _ready(self) -> list[int]:
        awake = [each for each in self._alive if each not in self._frozen]
        return [each for each in awake if self._asleep_until.get(each, 0.0) <= self._clock.now]

    def _next(self) -> int:
        """Who can go on; if nobody can, time passes until one can; a frozen one only if all others have ended."""
        ready = self._ready()
        if ready:
            return ready[0]
        asleep = [each for each in self._alive if each not in self._frozen]
        if asleep:
            first = min(asleep, key=lambda each: self._asleep_until[each])
            self._clock.now = self._asleep_until[first]
            return first
        thawed = self._alive[0]
        self._frozen.discard(thawed)
        return thawed

    def _hand_over(self, me: int) -> None:
        to = self._next()
        if to != me:
            self._switch(me, to)

    def _switch(self, me: int, to: int) -> None:
        self.now = to
        self._gates[to].release()
        self._gates[me].acquire(timeout=self._limit_s)

    def _live(self, me: int, copy: Callable[[], None]) -> None:
        self._gates[me].acquire(timeout=self._limit_s)
        try:
            copy()
        except BaseException as error:
            self._failures.append(error)
        finally:
            self._alive.remove(me)
            if self._alive:
                self.now = self._next()
                self._gates[self.now].release()
