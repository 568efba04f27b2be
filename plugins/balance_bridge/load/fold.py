"""From a log's facts to what became of each balance: one pure function, independent of the order of reading.

The outcome of a communication number, by what was seen of all requests that carried it, strongest first:

======== ===========================================================================================================
accepted a response says so, whatever other responses say; or a person found it out
rejected a response says so about this very record; or a person found it out; or every request that carried the number
         was refused as a whole. The number is used up
seen     the destination says that it has had the number, and an earlier request of ours may have brought it: another
         one could only be told the same
unknown  a request may have arrived, and nothing was said about the record
planned  no request that carried it has left
======== ===========================================================================================================

A refusal as a whole is about one request. It says nothing about an earlier one, so after a request whose response was
lost the number stays *unknown*. Where a destination says "used before" although no other request of ours can have
carried the number, somebody else has used it, and only a person can find out what for: it stays *unknown*.

**What a destination holds** under a key is the balance of the last attempt that may have arrived. Attempts are in the
order of their plans. A run waits for the requests of others before it plans, so this is also the order of arrival,
except for a process that was frozen between its last look at the log and its request. Its result shows that: it was
written after the newer plan, and names it. If the request had other content, nobody knows which of the two arrived
last; the balance is *unknown* (``LATE``) until the day is run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import msgspec

from balance_bridge.errors import NumberReused
from balance_bridge.load.destination import content
from balance_bridge.load.documents import Action, Plan, Resolution, Result, Row, Said, Word
from balance_bridge.load.log import Events

#: Our own codes: a balance that cannot be sent; what a person found out; another amount may have arrived later; a
#: request without a response.
LOCAL, RESOLVED, LATE, NO_RESPONSE = "LOCAL", "RESOLVED", "LATE", "NO RESPONSE"


class Status(StrEnum):
    """What became of a balance."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SEEN = "seen"
    UNKNOWN = "unknown"
    PLANNED = "planned"
    IGNORED = "ignored"


SETTLED = frozenset({Status.ACCEPTED, Status.SEEN})
UNCONFIRMED = frozenset({Status.SEEN, Status.UNKNOWN})
_ARRIVED = frozenset({Status.ACCEPTED, Status.SEEN, Status.UNKNOWN})


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of a balance, or of a number.

    Attributes:
        status: How it ended.
        code: The destination's error code, or one of this module's.
        text: The reason in words.
        together: Rejected in a request with others that was refused as a whole, whichever of them was the cause.
    """

    status: Status
    code: str = ""
    text: str = ""
    together: bool = False


_ACCEPTED, _PLANNED, _IGNORED = Outcome(Status.ACCEPTED), Outcome(Status.PLANNED), Outcome(Status.IGNORED)
_LOST = Word(Said.NOTHING, NO_RESPONSE, "the process that sent it wrote down no response")
_USED_BY_OTHERS = (
    "the number was used before, but not by this day's delivery: another deployment uses this [balance_bridge] "
    "namespace, or the store was lost or moved, or points or start_date were changed, so that another day delivered "
    "this instant; nothing else is sent for it until you have resolved it"
)


class Attempt(msgspec.Struct, gc=False):
    """One communication number, with its one content.

    Attributes:
        row: As planned.
        batch: Plan and batch of the last request that was to carry it.
        tries: The requests that carried it and may have left, by plan and number.
        outcome: What became of it.
    """

    row: Row
    batch: tuple[int, int]
    tries: tuple[tuple[int, int], ...] = ()
    outcome: Outcome = _PLANNED

    @property
    def arrived(self) -> bool:
        """Whether the destination may hold its balance."""
        return self.outcome.status in _ARRIVED


@dataclass
class Folded:
    """What a log means.

    Attributes:
        events: The log.
        numbers: Every attempt by its number, in the order of planning.
        held: Per key the last attempt that may have arrived.
        late: Per key the attempt with another amount that may have arrived after that one.
    """

    events: Events
    numbers: dict[str, Attempt] = field(default_factory=dict)
    held: dict[str, Attempt] = field(default_factory=dict)
    late: dict[str, Attempt] = field(default_factory=dict)

    @cached_property
    def balances(self) -> dict[tuple[str, int], list[Attempt]]:
        """Per balance (asset, instant) its attempts, in the order of planning."""
        found: dict[tuple[str, int], list[Attempt]] = {}
        for attempt in self.numbers.values():
            found.setdefault(attempt.row.balance, []).append(attempt)
        return found

    def last_arrived(self, balance: tuple[str, int]) -> Attempt | None:
        """The last attempt of a balance that may have arrived, under whatever key."""
        arrived = [attempt for attempt in self.balances.get(balance, ()) if attempt.arrived]
        return max(arrived, key=lambda attempt: attempt.tries[-1]) if arrived else None

    def is_certain(self, attempt: Attempt) -> bool:
        """Whether an attempt is the last one under its key, and it is certain that no other amount came after it."""
        key = attempt.row.key
        return self.held.get(key) is attempt and key not in self.late


def fold(events: Events) -> Folded:
    """Interpret a log.

    Raises:
        NumberReused: If a number has two contents; no log of this package does.
    """
    folded = Folded(events)
    batches = {number: _take_in(folded, number, plan) for number, plan in events.plans.items()}
    for at in sorted(events.tries):
        batch, result = (at[0], events.tries[at].batch), events.results.get(at)
        for attempt in batches[at[0]].get(batch[1], ()):
            attempt.batch = batch
            if result is None or result.sent:
                attempt.tries = (*attempt.tries, at)
    resolved = _resolved(events)
    for number, attempt in folded.numbers.items():
        if attempt.tries:
            said = [_word(events.results.get(at), number) for at in attempt.tries]
            found = resolved.get(number)
            if found is not None:
                attempt.outcome = _with_resolution(attempt, said, found)
                continue
            last = attempt.tries[-1]
            attempt.outcome = _outcome(said, len(batches[last[0]][events.tries[last].batch]))
    _hold(folded)
    return folded


def _take_in(folded: Folded, number: int, plan: Plan) -> dict[int, list[Attempt]]:
    """Add a plan's attempts; those of each of its batches."""
    batches: dict[int, list[Attempt]] = {}
    for batch, rows in plan.batches().items():
        attempts = batches[batch] = []
        for row in rows:
            attempt = folded.numbers.get(row.number)
            if attempt is None:
                attempt = folded.numbers[row.number] = Attempt(row, (number, batch))
            elif attempt.row.wire != row.wire:
                raise NumberReused(
                    f"the communication number {row.number} has two contents in the log; nothing was sent",
                    do="Report this as a defect",
                )
            attempts.append(attempt)
    return batches


def _word(result: Result | None, number: str) -> tuple[Word, bool]:
    """What one request says about a number, and whether it says so about this very record."""
    if result is None:
        return _LOST, False
    return result.word(number), number in result.records


def _resolved(events: Events) -> dict[str, Resolution]:
    """Per number the last resolution."""
    return {number: each for each in events.resolutions for number in each.words}


def _with_resolution(attempt: Attempt, said: list[tuple[Word, bool]], resolution: Resolution) -> Outcome:
    """The outcome of a number that a person resolved; the resolution says nothing about later requests."""
    word = resolution.words[attempt.row.number]
    later = [
        each
        for (plan, number), each in zip(attempt.tries, said, strict=True)
        if number > resolution.read.get(f"{plan:04}", 0) and (each[1] or each[0].said is not Said.REJECTED)
    ]
    if any(each.said is Said.ACCEPTED for each, _ in said) or word.said is Said.ACCEPTED:
        return _ACCEPTED if word.said is not Said.ACCEPTED else Outcome(Status.ACCEPTED, RESOLVED, word.text)
    return _outcome(later) if later else Outcome(Status.REJECTED, RESOLVED, word.text)


def _outcome(said: list[tuple[Word, bool]], records: int = 1) -> Outcome:
    """The outcome of a number by what was said about it; ``records`` of the last request that carried it."""
    if any(word.said is Said.ACCEPTED for word, _ in said):
        return _ACCEPTED
    found = {(word.said, of_record): word for word, of_record in said}
    if (Said.REJECTED, True) in found:
        return _as(Status.REJECTED, found[Said.REJECTED, True])
    refused = found.get((Said.REJECTED, False))
    arrived = [word for word, of_record in said if of_record or word.said is not Said.REJECTED]
    used = next((word for word in arrived if word.said is Said.USED), None)
    if used is not None:
        ours = any(word.said is not Said.USED for word in arrived)
        return _as(Status.SEEN, used) if ours else Outcome(Status.UNKNOWN, used.code, _USED_BY_OTHERS)
    if arrived and refused is not None:
        text = f"refused now ({refused.text}), but an earlier request may have arrived"
        return Outcome(Status.UNKNOWN, refused.code, text)
    if arrived:
        return _as(Status.UNKNOWN, arrived[-1])
    refused = refused or _LOST
    return Outcome(Status.REJECTED, refused.code, refused.text, records > 1)


def _as(status: Status, word: Word) -> Outcome:
    return Outcome(status, word.code, word.text)


def _hold(folded: Folded) -> None:
    """Find what is held under each key, and what may have come after it."""
    several: dict[str, list[Attempt]] = {}
    for attempt in folded.numbers.values():
        if attempt.arrived:
            key = attempt.row.key
            first = folded.held.setdefault(key, attempt)
            if first is not attempt:
                several.setdefault(key, [first]).append(attempt)
    for key, attempts in several.items():
        held = folded.held[key] = max(attempts, key=lambda attempt: attempt.tries[-1])
        for other in attempts:
            other_content = content(other.row.wire) != content(held.row.wire)
            if other_content and _came_late(folded.events, other, held.tries[-1][0]):
                folded.late[key] = other


def _came_late(events: Events, attempt: Attempt, plan: int) -> bool:
    """Whether one of its requests may have been made after a later plan had begun to send."""
    read = events.plans[plan].read
    for of, number in attempt.tries:
        result = events.results.get((of, number))
        if result is None or of >= plan or number <= read.get(f"{of:04}", 0):
            continue
        if _word(result, attempt.row.number)[0].said in (Said.REJECTED, Said.USED):
            # Whenever it came, it has changed nothing.
            continue
        if result.newest is None or result.newest >= plan:
            return True
    return False


class BalanceOutcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one balance of a day.

    Attributes:
        row: What a plan decided for it.
        outcome: How it ended.
        attempt: The attempt that says so; None for what never got a number.
    """

    row: Row
    outcome: Outcome
    attempt: Attempt | None


def outcomes(folded: Folded) -> Iterator[BalanceOutcome]:
    """What became of each balance of the newest plan, in its order: each balance once."""
    plan = folded.events.newest_plan
    for row in plan.rows if plan is not None else ():
        yield BalanceOutcome(row, outcome_of(row, folded), folded.numbers.get(row.number))


def outcome_of(row: Row, folded: Folded) -> Outcome:
    """What became of a balance of a plan."""
    if row.action is Action.IGNORE:
        return _IGNORED
    if row.action is Action.REJECT:
        return Outcome(Status.REJECTED, LOCAL, row.text)
    attempt = folded.numbers[row.number]
    late = folded.late.get(attempt.row.key) if folded.late else None
    if late is None or folded.held[attempt.row.key] is not attempt:
        return attempt.outcome
    text = f"{late.row.amount} ({late.row.number}) may have arrived after it: run the day again"
    return Outcome(Status.UNKNOWN, LATE, text)


def no_longer_wanted(plan: Plan | None, folded: Folded) -> list[Attempt]:
    """What a destination holds and a plan does not want: under other keys or settings, or no longer due."""
    wanted = {row.key for row in plan.rows if not row.text} if plan is not None and folded.held else set()
    return [attempt for key, attempt in folded.held.items() if key not in wanted]
