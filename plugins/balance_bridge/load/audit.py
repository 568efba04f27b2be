"""What the receipts of a day tell: what became of each balance, and every attempt with its evidence, for an auditor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from balance_bridge.load.batches import Row
from balance_bridge.load.destination import LOCAL
from balance_bridge.load.history import History, may_be_sent, rival, shown, standing
from balance_bridge.load.numbers import DAY_MS, day_start_ms, rfc3339
from balance_bridge.load.outcomes import NOT_SENT, SENT_AGAIN, SETTLED, Outcome, Status
from balance_bridge.load.receipts import Receipts, StoredBatch
from balance_bridge.store import Store

#: An acceptance that a later one under the same key, with another amount, has taken the place of.
SUPERSEDED = "superseded"
#: What the last run of a day left out, as the accounts file said.
IGNORED = "ignored"


@dataclass(frozen=True)
class KeyOutcome:
    """What became of one balance.

    Attributes:
        number: The number that tells; empty for what was rejected before it got one.
        key: The destination's key; empty likewise.
        asset: The exchange's asset code.
        at_ms: The instant, UTC milliseconds since the epoch.
        amount: The balance.
        outcome: ``accepted``, ``rejected``, ``seen``, ``unknown``, ``planned``, or ``ignored``: it was rejected,
            and the last run left it out.
        code: The error code, ``LOCAL`` for a check of ours, or empty.
        text: The reason, or empty.
        replaces: The number of the attempt before, or empty.
        supersedes: The amount that it took the place of, or None.
    """

    number: str
    key: str
    asset: str
    at_ms: int
    amount: Decimal
    outcome: str
    code: str = ""
    text: str = ""
    replaces: str = ""
    supersedes: Decimal | None = None


@dataclass(frozen=True)
class Entry:
    """One attempt to deliver one balance.

    Attributes:
        destination: The destination's name.
        asset: The exchange's asset code.
        at: The instant, RFC 3339 in UTC.
        amount: The balance.
        outcome: ``accepted``, ``rejected``, ``seen``, ``unknown``, ``planned`` or ``superseded``.
        code: The destination's error code, ``LOCAL`` for a check of ours, ``RESOLVED`` for what a person found out.
        text: The reason in words.
        number: The communication number; empty for what was rejected before it got one.
        key: The destination's key; empty likewise.
        points: The points that asked for the instant.
        replaces: The number of the attempt before, or empty.
        replaced_by: The number of the attempt after it, or empty.
        supersedes: The amount that was accepted under the key before, if it is another.
        batch: The batch's id; empty for what was never sent.
        run_id: The run that planned it.
        planned_at: When (UTC).
        requests: How many requests for its batch got an answer or lost it.
        sent_at: When the last of them went out (UTC), or empty.
        ended_at: When its answer was whole (UTC), or empty.
        http_status: Of that answer, or None.
        request_id: The destination's own id of that request, or empty.
        answer_sha256: Digest of that answer's body, or empty.
        resolved_by: Who found out the outcome, or empty.
    """

    destination: str
    asset: str
    at: str
    amount: Decimal
    outcome: str
    code: str = ""
    text: str = ""
    number: str = ""
    key: str = ""
    points: str = ""
    replaces: str = ""
    replaced_by: str = ""
    supersedes: str = ""
    batch: str = ""
    run_id: str = ""
    planned_at: str = ""
    requests: int = 0
    sent_at: str = ""
    ended_at: str = ""
    http_status: int | None = None
    request_id: str = ""
    answer_sha256: str = ""
    resolved_by: str = ""


def outcomes(store: Store, account: str, day: date, destination: str) -> list[KeyOutcome]:
    """What became of each balance of a day, by its key, in the order of instants and assets.

    A day's balances are those that its run planned and those whose instant lies in (start, end] of the day, whichever
    day's run delivered them.

    Args:
        store: Where the receipts lie.
        account: The account's name.
        day: The UTC day.
        destination: The destination's name.

    Raises:
        StoreDamaged: If a receipt cannot be read.
    """
    receipts = Receipts(store, account, destination)
    history = receipts.history(day, ())
    start, ignored = day_start_ms(day), receipts.ignored(day)
    rows = [
        KeyOutcome("", "", row.asset, row.at_ms, Decimal(row.amount), Status.REJECTED, row.code, row.text)
        for row in receipts.local_rejections(day)
    ]
    for attempts in history.keys.values():
        told = shown(attempts, history.claims.get(attempts[-1].row.key, ()), day.isoformat())
        row, outcome, other = told.row, told.outcome, rival(attempts, told)
        if not may_be_sent(told):
            continue
        if other is not None:
            text = f"sent after another run had begun: whether {other.row.amount} came later is not known"
            outcome = Outcome(Status.UNKNOWN, "LATE", text)
        if not any(each.row.day == day.isoformat() for each in attempts) and not start < row.at_ms <= start + DAY_MS:
            continue
        rows.append(
            KeyOutcome(
                number=row.number,
                key=row.key,
                asset=row.asset,
                at_ms=row.at_ms,
                amount=Decimal(row.amount),
                # What was refused and is left out since is nothing that anybody has to act upon.
                outcome=IGNORED if row.asset in ignored and outcome.status == Status.REJECTED else outcome.status,
                code=outcome.code,
                text=outcome.text,
                replaces=row.replaces,
                supersedes=Decimal(row.supersedes) if row.supersedes else None,
            )
        )
    return sorted(rows, key=lambda row: (row.at_ms, row.asset, row.number))


def entries(store: Store, account: str, day: date, destination: str) -> list[Entry]:
    """Every attempt that a day's runs made, oldest first.

    Args:
        store: Where the receipts lie.
        account: The account's name.
        day: The UTC day whose runs are looked at.
        destination: The destination's name.

    Raises:
        StoreDamaged: If a receipt cannot be read.
    """
    receipts = Receipts(store, account, destination)
    history = receipts.history(day, ())
    found = [
        Entry(destination, row.asset, rfc3339(row.at_ms), Decimal(row.amount), Status.REJECTED, LOCAL, row.text)
        for row in receipts.local_rejections(day)
    ]
    for batch in receipts.batches(day):
        found += [_entry(destination, batch, row, history) for row in batch.planned.rows]
    sent = [each.row for attempts in history.keys.values() for each in attempts if may_be_sent(each)]
    later = {row.replaces: row.number for row in sent}
    return [replace(entry, replaced_by=later.get(entry.number, "")) if entry.number else entry for entry in found]


def unresolved(store: Store, account: str, day: date, destination: str) -> list[tuple[str, str]]:
    """The batch and the number of each balance of a day that nobody has confirmed: unknown, seen, or only planned."""
    return [
        (entry.batch, entry.number)
        for entry in entries(store, account, day, destination)
        if entry.number and entry.outcome in (Status.SEEN, Status.UNKNOWN, Status.PLANNED)
    ]


def _entry(destination: str, batch: StoredBatch, row: Row, history: History) -> Entry:
    planned = batch.planned
    # A number can lie in several batches, sent again or divided otherwise: it has one outcome.
    outcome = next(each.outcome for each in history.numbers[row.number] if each.row.wire == row.wire)
    held = standing(history.keys[row.key])
    gone = outcome.status in SETTLED and held is not None and held.row.number != row.number and not held.after
    about = [each for each in batch.answers if row.number in each.outcomes]
    requests = [each for each in about if each.outcomes[row.number].code not in (SENT_AGAIN, NOT_SENT.code)]
    last = requests[-1] if requests else None
    resolved = [each.by for each in batch.resolved if row.number in each.outcomes]
    return Entry(
        destination=destination,
        asset=row.asset,
        at=rfc3339(row.at_ms),
        amount=Decimal(row.amount),
        outcome=SUPERSEDED if gone else outcome.status,
        code=outcome.code,
        text=outcome.text,
        number=row.number,
        key=row.key,
        points=row.points,
        replaces=row.replaces,
        supersedes=row.supersedes,
        batch=batch.id,
        run_id=planned.run_id,
        planned_at=planned.created_at,
        requests=len(requests),
        sent_at=last.sent_at if last else "",
        ended_at=last.ended_at if last else "",
        http_status=last.http_status if last else None,
        request_id=last.request_id if last else "",
        answer_sha256=last.body_sha256 if last else "",
        resolved_by=", ".join(resolved),
    )
