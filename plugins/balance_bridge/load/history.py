"""Attempts to deliver a balance, as the receipts tell of them, and what a key stands at.

**Attempts.** An attempt is a number with its content. The same rows may lie in several batches (sent again, or
divided otherwise); their reports are folded. If a number is found with more than one content (two live copies of
a run had different balances), only what was accepted under it counts: the rest is taken as rejected, and its balance
goes out under the next number. What a run has sent after another one had overtaken it stands behind all that there was
by then, whatever its number.

**What a key stands at.** Of its attempts that were not rejected, in the order of their numbers, the last tells what
the destination holds. A balance is delivered if it was accepted under any number of its key, unless a later attempt
with another amount was not rejected.

**Rank** decides between two days that both have a balance for one key, so that the result does not depend on the order
in which the days are run: a snapshot's balance before a record's, then the later instant, then the day to which the
instant belongs, then the later day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import takewhile

import msgspec

from balance_bridge.load.batches import Row
from balance_bridge.load.numbers import DAY_MS, day_start_ms, split
from balance_bridge.load.outcomes import NOT_SENT, PLANNED, SETTLED, Outcome, Status, fold_batches

_REUSED = Outcome(Status.REJECTED, "REUSED", "this number was planned with other content as well and is not used again")


_SNAPSHOT_POINTS = frozenset({"open", "close"})

Rank = tuple[bool, int, bool, str]


class Attempt(msgspec.Struct, gc=False):
    """One number with one content, and what is known of it.

    Attributes:
        row: As planned.
        batch: The batch in which it was found first.
        outcome: Folded over all reports.
        after: If it was sent by a run that another one had overtaken: the last attempt under its key that it may have
            followed; else 0.
    """

    row: Row
    batch: str
    outcome: Outcome = PLANNED
    after: int = 0

    @property
    def place(self) -> tuple[int, bool, str]:
        """Its place among the attempts under its key, in the order in which they may have arrived."""
        count = split(self.row.number)[1]
        return max(count, self.after), self.after > 0, self.row.number


class Claim(msgspec.Struct, frozen=True):
    """A key that a day's run found to hold its very amount, where the receipts alone would tell otherwise.

    Either another day of a lower rank had delivered it: without a claim, a correction by that day would take the
    place of a balance that this day stands for as well. Or a correction was rejected and then became unnecessary.

    Attributes:
        key: The destination's key.
        at_ms: The instant of this day's own balance, UTC milliseconds since the epoch.
        day: This day (``YYYY-MM-DD``).
        points: The points that asked for it, joined by commas.
    """

    key: str
    at_ms: int
    day: str
    points: str


@dataclass
class History:
    """All attempts that can concern a day's keys.

    Attributes:
        numbers: Per number its attempts; more than one only if it was planned with different content.
        keys: Per key its attempts in the order of their numbers.
        stems: Per number without its attempt, the highest attempt.
        answers: Per batch of the day itself, how many reports there were.
        claims: Per key, which days found that what it holds is their own amount.
    """

    numbers: dict[str, list[Attempt]] = field(default_factory=dict)
    keys: dict[str, list[Attempt]] = field(default_factory=dict)
    stems: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    claims: dict[str, list[Claim]] = field(default_factory=dict)

    def add(self, row: Row, batch: str, outcome: Outcome, after: int = 0) -> None:
        """Take in a planned row with the outcome that its batch's reports give it, and what it may have followed."""
        known = self.numbers.setdefault(row.number, [])
        for attempt in known:
            if attempt.row.wire == row.wire and attempt.row.key == row.key:
                attempt.outcome = fold_batches(attempt.outcome, outcome)
                attempt.after = max(attempt.after, after)
                return
        known.append(Attempt(row, batch, outcome, after))

    def close(self) -> None:
        """Settle what was planned with different content, and put each key's attempts in order."""
        for number, attempts in self.numbers.items():
            stem, count = split(number)
            self.stems[stem] = max(count, self.stems.get(stem, 0))
            shared = self.is_shared(number)
            for attempt in attempts:
                if shared and attempt.outcome.status != Status.ACCEPTED and not attempt.after and may_be_sent(attempt):
                    attempt.outcome = _REUSED
                self.keys.setdefault(attempt.row.key, []).append(attempt)
        for attempts in self.keys.values():
            if len(attempts) > 1:
                attempts.sort(key=lambda attempt: attempt.place)

    def is_shared(self, number: str) -> bool:
        """Whether a number may have been sent with more than one content."""
        return sum(map(may_be_sent, self.numbers.get(number, ()))) > 1

    def can_stay(self, attempts: Sequence[Attempt], held: Attempt) -> bool:
        """Whether what stands needs no new number: it has no rival, and could go again under the one that it has."""
        sendable = held.outcome.status in SETTLED or not self.is_shared(held.row.number)
        return sendable and rival(attempts, held) is None

    def next_attempt(self, key: str, stem: str) -> int:
        """The first attempt that is free, for a key as for a stem.

        They can differ: under another account id, an instant's key is new, but its numbers are used up all the same.
        """
        attempts = self.keys.get(key)
        return 1 + max(self.stems.get(stem, 0), attempts[-1].place[0] if attempts else 0)

    def next_number(self, number: str) -> str:
        """The number that follows one in this very delivery, and is taken by that."""
        stem, count = split(number)
        following = 1 + max(self.stems.get(stem, 0), count)
        self.stems[stem] = following
        return f"{stem}-{following}"


def may_be_sent(attempt: Attempt) -> bool:
    """Whether it may have been sent, as far as anybody has written down."""
    return attempt.outcome.code != NOT_SENT.code


def standing(attempts: Sequence[Attempt], amount: str | None = None) -> Attempt | None:
    """The attempt that tells what a destination holds under a key.

    Args:
        attempts: A key's, in the order of their numbers.
        amount: The digits that are to be delivered; if None, those of the last attempt that was not rejected.

    Returns:
        The last attempt that was not rejected; but where it has that amount, and so have others after which nothing
        else was sent, the one that is surest: first those without a rival, of them the settled. None if all were
        rejected.
    """
    live = [attempt for attempt in attempts if attempt.outcome.status != Status.REJECTED]
    if not live:
        return None
    last = live[-1]
    if amount is not None and last.row.amount != amount:
        return last
    alike = list(takewhile(lambda attempt: attempt.row.amount == last.row.amount, reversed(live)))
    return max(alike, key=partial(_certainty, attempts)) if len(alike) > 1 else last


def rival(attempts: Sequence[Attempt], held: Attempt) -> Attempt | None:
    """The attempt with another amount that a destination may hold instead, because nobody knows which came last.

    What a run sent after it had been overtaken stands last, because it may have arrived last. It may as well have
    arrived before any attempt that was planned between it and its receipt.

    Args:
        attempts: A key's, in the order of their places.
        held: What stands.
    """
    if not held.after:
        return None
    since = split(held.row.number)[1]
    for other in reversed(attempts):
        live = other.outcome.status != Status.REJECTED
        if live and other.row.amount != held.row.amount and other.place[0] >= since:
            return other
    return None


def _certainty(attempts: Sequence[Attempt], attempt: Attempt) -> tuple[bool, bool, bool]:
    status = attempt.outcome.status
    return rival(attempts, attempt) is None, status == Status.ACCEPTED, status in SETTLED


def rank(at_ms: int, points: Iterable[str], day: date) -> Rank:
    """How strong a day's balance is for a key that another day has a balance for as well; the greater one wins.

    Args:
        at_ms: The balance's instant, UTC milliseconds since the epoch.
        points: The points that asked for it.
        day: The run's UTC day.
    """
    start = day_start_ms(day)
    # Whichever point asks for it, the balance at the time of one of the day's two snapshots is the snapshot's.
    snapshot = at_ms in (start, start + DAY_MS) or not _SNAPSHOT_POINTS.isdisjoint(points)
    return snapshot, at_ms, start < at_ms <= start + DAY_MS, day.isoformat()


def rank_of(planned: Row | Claim) -> Rank:
    """The rank of what is on a receipt."""
    return rank(planned.at_ms, planned.points.split(","), date.fromisoformat(planned.day))


def shown(attempts: Sequence[Attempt], claims: Iterable[Claim], day: str) -> Attempt:
    """The attempt that tells a reader what became of a key, from the point of view of one day (``YYYY-MM-DD``).

    What the key stands at; but a correction that was rejected is what somebody has to act upon, even though the old
    balance stands. Unless that is no longer wanted: this day, the one that wanted the correction, or one that ranks
    higher, claims that the old balance is right.
    """
    last = next(filter(may_be_sent, reversed(attempts)), attempts[-1])
    held = standing(attempts)
    if held is None or last.outcome.status != Status.REJECTED or last.row.amount == held.row.amount:
        return held or last
    agreed = any(claim.day in (day, last.row.day) or rank_of(claim) > rank_of(last.row) for claim in claims)
    return held if agreed else last
