"""Every attempt to deliver the balances of a day, with its evidence, for an auditor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from balance_bridge.load.fold import SETTLED, UNCONFIRMED, Attempt, BalanceOutcome, Folded, Outcome, outcomes
from balance_bridge.load.log import time_text
from balance_bridge.load.numbers import rfc3339

#: The outcome of an acceptance that a later attempt has replaced.
SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Entry:
    """One attempt to deliver one balance, or why there was none.

    Attributes:
        destination: The destination's name.
        asset: The exchange's asset code.
        at: The instant, RFC 3339 in UTC.
        amount: The balance.
        outcome: ``accepted``, ``rejected``, ``seen``, ``unknown``, ``planned``, ``ignored`` or ``superseded``.
        code: The destination's error code; ``LOCAL``: our own check; ``RESOLVED``: a person found it out.
        text: The reason in words.
        current: Whether this is what became of the balance; False for an earlier attempt.
        number: The communication number, or empty.
        key: The destination's key, or empty.
        points: The points that the instant is for.
        replaces: The number of the attempt before, or empty.
        replaced_by: The number of the attempt after it, or empty.
        supersedes: The amount that was accepted before, or empty.
        batch: Plan and batch of the request that it went in last, or is to go in; empty for what has no number.
        run_id: The run that planned it.
        planned_at: When (UTC).
        requests: How many requests that carried it may have left.
        sent_at: When the last of them was made (UTC), or empty.
        ended_at: When its response had come in full (UTC), or empty.
        http_status: Of that response, or None.
        request_id: The destination's own id of that request, or empty.
        response_sha256: Digest of that response's body, or empty.
        resolved_by: Who found out the outcome, or empty.
    """

    destination: str
    asset: str
    at: str
    amount: Decimal
    outcome: str
    code: str = ""
    text: str = ""
    current: bool = True
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
    response_sha256: str = ""
    resolved_by: str = ""


def entries(folded: Folded, destination: str) -> Iterator[Entry]:
    """Every attempt of a day: first what became of the newest plan's balances, then what came before it.

    Args:
        folded: The day's log.
        destination: The destination's name.
    """
    auditor = _Auditor(folded, destination)
    current = set[str]()
    for each in outcomes(folded):
        if each.attempt is None:
            yield _without_number(each, destination)
        else:
            current.add(each.row.number)
            yield auditor.entry(each.attempt, each.outcome)
    for number, attempt in folded.numbers.items():
        if number not in current and attempt.tries:
            yield replace(auditor.entry(attempt, attempt.outcome, superseded=attempt.arrived), current=False)


def unconfirmed(folded: Folded) -> list[str]:
    """The numbers of the attempts without confirmation: unknown, or seen."""
    return [number for number, attempt in folded.numbers.items() if attempt.outcome.status in UNCONFIRMED]


def _without_number(each: BalanceOutcome, destination: str) -> Entry:
    row, outcome = each.row, each.outcome
    at, amount = rfc3339(row.at_ms), Decimal(row.amount)
    return Entry(destination, row.asset, at, amount, outcome.status, outcome.code, outcome.text, points=row.points)


class _Auditor:
    """Puts together what a log has about an attempt."""

    def __init__(self, folded: Folded, destination: str) -> None:
        self._folded = folded
        self._destination = destination
        self._resolved_by = {number: each.by for each in folded.events.resolutions for number in each.words}
        made = ((number, attempt) for number, attempt in folded.numbers.items() if attempt.tries)
        self._following = {attempt.row.replaces: number for number, attempt in made if attempt.row.replaces}

    def entry(self, attempt: Attempt, outcome: Outcome, *, superseded: bool = False) -> Entry:
        events, row = self._folded.events, attempt.row
        plan = events.plans[attempt.batch[0]]
        last = attempt.tries[-1] if attempt.tries else None
        made = events.tries[last] if last is not None else None
        result = events.results.get(last) if last is not None else None
        return Entry(
            destination=self._destination,
            asset=row.asset,
            at=rfc3339(row.at_ms),
            amount=Decimal(row.amount),
            outcome=SUPERSEDED if superseded and outcome.status in SETTLED else outcome.status,
            code=outcome.code,
            text=outcome.text,
            number=row.number,
            key=row.key,
            points=row.points,
            replaces=row.replaces,
            replaced_by=self._following.get(row.number, ""),
            supersedes=row.supersedes,
            batch=f"{attempt.batch[0]}.{attempt.batch[1]}",
            run_id=plan.run_id,
            planned_at=plan.created_at,
            requests=len(attempt.tries),
            sent_at=time_text(made.sent_at) if made is not None else "",
            ended_at=time_text(result.ended_at) if result is not None else "",
            http_status=result.http_status if result is not None else None,
            request_id=result.request_id if result is not None else "",
            response_sha256=result.response_sha256 if result is not None else "",
            resolved_by=self._resolved_by.get(row.number, ""),
        )
