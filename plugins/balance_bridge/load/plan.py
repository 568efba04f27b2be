"""What has to be sent: a day's balances against everything that is on receipts.

For one key, where *stands* is what its last attempt that was not rejected carries:

====================================================== =====================================================
what the receipts say                                  what is done
====================================================== =====================================================
nothing                                                sent under a first number
every attempt was rejected                             sent under the next number, which names the last
the same amount stands, accepted                       nothing
the same amount stands, seen                           nothing; the balance stays marked as seen
the same amount stands, unknown or only planned        the very same row again, under the same number
that, and its number may have gone out with another    sent under the next number, which names the last
the same amount stands, but it has a rival             sent under the next number, which names the last
another amount stands, from this day                   sent under the next number, which names the old
another amount stands, from another day's run          the same, if ours ranks higher; otherwise nothing
====================================================== =====================================================

A rival is another amount of which nobody knows whether it came earlier or later, since a run that had been overtaken
sent one of the two. "From another day's run" is also what another day claims: it found its own amount delivered by this
one. Claims, ranks and rivals are explained in ``history``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date

from balance_bridge.errors import ConfigurationError, NumberReused
from balance_bridge.load.batches import Batch, Row, fits, pack
from balance_bridge.load.destination import Balance, Candidate, Destination, LocalRejection
from balance_bridge.load.history import Attempt, Claim, History, Rank, may_be_sent, rank, rank_of, rival, standing
from balance_bridge.load.numbers import MAX_NUMBER_CHARS, Numbering, rfc3339
from balance_bridge.load.outcomes import SETTLED, Status


@dataclass
class Plan:
    """What a run does with each balance that can be sent.

    Attributes:
        batches: What is sent: first what may have been sent before, then what is new.
        rejected: What turned out not to be sendable (too long a number, too large a row).
        accepted_before: How many balances stand, accepted.
        seen_before: How many stand, seen but not confirmed.
        covered: How many keys another day's run holds with a balance that ranks higher.
        claims: Keys that need no sending although their receipts alone would tell otherwise.
    """

    batches: list[Batch] = field(default_factory=list)
    rejected: list[LocalRejection] = field(default_factory=list)
    accepted_before: int = 0
    seen_before: int = 0
    covered: int = 0
    claims: list[Claim] = field(default_factory=list)


def refuse_shared_keys(destination: Destination, candidates: Iterable[Candidate]) -> None:
    """Refuse two balances that the destination could not tell apart.

    Raises:
        ConfigurationError: Naming both.
    """
    owners: dict[str, Candidate] = {}
    for candidate in candidates:
        other = owners.setdefault(candidate.key, candidate)
        if other is not candidate:
            raise ConfigurationError(
                f"{destination.name}: {_name(other.balance)} and {_name(candidate.balance)} both become "
                f"{candidate.key}; {destination.kind} holds one balance under that key. Map the assets to different "
                f"ones in the accounts file, or set one of them to ignore"
            )


def make_plan(
    destination: Destination, candidates: Sequence[Candidate], history: History, numbering: Numbering, day: date
) -> Plan:
    """Decide for each balance, number what is new and divide all into batches.

    Args:
        destination: Where it goes.
        candidates: Balances with different keys.
        history: Every attempt that can concern them.
        numbering: Makes the numbers.
        day: The run's day.

    Raises:
        NumberReused: If a number would go out with content other than on its receipt.
    """
    plan = Plan()
    again: dict[str, list[tuple[Row, bytes]]] = {}
    fresh: list[tuple[Row, bytes]] = []
    today = day.isoformat()
    for candidate in candidates:
        attempts = history.keys.get(candidate.key, [])
        held = standing(attempts, candidate.amount) if attempts else None
        if held is not None and held.row.amount == candidate.amount and history.can_stay(attempts, held):
            by_lower_rank = held.row.day != day.isoformat() and rank_of(held.row) < _rank(candidate, day)
            if by_lower_rank or attempts[-1].row.amount != candidate.amount:
                balance = candidate.balance
                plan.claims.append(Claim(candidate.key, balance.at_ms, day.isoformat(), ",".join(balance.points)))
            if held.outcome.status in SETTLED:
                plan.accepted_before += held.outcome.status == Status.ACCEPTED
                plan.seen_before += held.outcome.status == Status.SEEN
            else:
                _add(plan, destination, candidate, held.row, again.setdefault(held.batch, []))
        elif held is not None and _is_outranked(candidate, day, held, attempts, history):
            plan.covered += 1
        else:
            row = _number(destination, candidate, attempts, history, numbering, today)
            _add(plan, destination, candidate, row, fresh)
    for rows in again.values():
        plan.batches += pack(_in_order(rows), destination.limits, destination.envelope, resend=True)
    plan.batches += pack(_in_order(fresh), destination.limits, destination.envelope, resend=False)
    guard_numbers(plan.batches, history)
    return plan


def guard_numbers(batches: Iterable[Batch], history: History) -> None:
    """Check, apart from how numbers are made, that none goes out with two contents.

    Raises:
        NumberReused: Naming the number.
    """
    going: dict[str, Row] = {}
    for row in _rows(batches):
        other = going.setdefault(row.number, row)
        known = history.numbers.get(row.number, ())
        if other is not row or any(each.row.wire != row.wire and may_be_sent(each) for each in known):
            raise NumberReused(
                f"communication number {row.number} ({row.asset}, {rfc3339(row.at_ms)}) would go out with content "
                f"other than on its receipt; nothing was sent. If two deployments write to one tenant, give each a "
                f"namespace of its own; otherwise report this as a defect"
            )


def _rows(batches: Iterable[Batch]) -> Iterator[Row]:
    for batch in batches:
        yield from batch.rows


def _add(plan: Plan, destination: Destination, candidate: Candidate, row: Row, rows: list[tuple[Row, bytes]]) -> None:
    if len(row.number) > MAX_NUMBER_CHARS:
        text = (
            f"its communication number would have {len(row.number)} characters, {MAX_NUMBER_CHARS} are allowed; "
            f"shorten the account's or the destination's name"
        )
        plan.rejected.append(LocalRejection(candidate.balance, text))
        return
    encoded = destination.encode_row(row.wire)
    if not fits(encoded, destination.limits, destination.envelope):
        text = f"a request with this row alone exceeds max_bytes ({destination.limits.max_bytes}); raise max_bytes"
        plan.rejected.append(LocalRejection(candidate.balance, text))
        return
    rows.append((row, encoded))


def _number(
    destination: Destination,
    candidate: Candidate,
    attempts: Sequence[Attempt],
    history: History,
    numbering: Numbering,
    day: str,
) -> Row:
    balance = candidate.balance
    stem = numbering.stem(balance.asset, balance.at_ms)
    number = f"{stem}-{history.next_attempt(candidate.key, stem)}"
    settled = [attempt for attempt in attempts if attempt.outcome.status in SETTLED]
    replaces = next((attempt.row.number for attempt in reversed(attempts) if may_be_sent(attempt)), "")
    replaced = settled[-1] if settled else None
    if replaced is not None and replaced.row.amount == candidate.amount:
        replaced = rival(settled, replaced)
    supersedes = replaced.row.amount if replaced is not None else ""
    return Row(
        number=number,
        key=candidate.key,
        asset=balance.asset,
        at_ms=balance.at_ms,
        amount=candidate.amount,
        day=day,
        points=",".join(balance.points),
        wire=destination.numbered(candidate.wire, number, replaces=replaces, supersedes=supersedes),
        replaces=replaces,
        supersedes=supersedes,
    )


def _in_order(rows: list[tuple[Row, bytes]]) -> list[tuple[Row, bytes]]:
    # Whatever order the balances come in: the same rows make the same batches, so two copies plan the same ones, and
    # a whole batch that is sent again is the very same one.
    return sorted(rows, key=lambda pair: (pair[0].at_ms, pair[0].asset, pair[0].number))


def _is_outranked(
    candidate: Candidate, day: date, held: Attempt, attempts: Sequence[Attempt], history: History
) -> bool:
    ours, other = _rank(candidate, day), rival(attempts, held)
    others: list[Row | Claim] = [held.row, *history.claims.get(candidate.key, ())]
    if other is not None:
        others.append(other.row)
    return any(rank_of(each) > ours for each in others if each.day != day.isoformat())


def _rank(candidate: Candidate, day: date) -> Rank:
    return rank(candidate.balance.at_ms, candidate.balance.points, day)


def _name(balance: Balance) -> str:
    return f"{balance.asset} at {rfc3339(balance.at_ms)}"
