"""Every attempt to deliver the balances of a day, with its evidence, for an auditor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from balance_bridge.load.documents import Result, Row
from balance_bridge.load.fold import SETTLED, UNCONFIRMED, Attempt, Folded, Outcome, outcomes
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
        current.add(each.row.number)
        yield auditor.entry(each.attempt.row if each.attempt else each.row, each.outcome, each.attempt)
    for number, attempt in folded.numbers.items():
        if number not in current and attempt.tries:
            entry = auditor.entry(attempt.row, attempt.outcome, attempt)
            outcome = SUPERSEDED if attempt.outcome.status in SETTLED else entry.outcome
            yield replace(entry, outcome=outcome, current=False)


def unconfirmed(folded: Folded) -> list[str]:
    """The numbers of the attempts without confirmation: unknown, or seen."""
    return [number for number, attempt in folded.numbers.items() if attempt.outcome.status in UNCONFIRMED]


class _Auditor:
    """Puts together what a log has about an attempt."""

    def __init__(self, folded: Folded, destination: str) -> None:
        self._events = folded.events
        self._destination = destination
        self._resolved_by = {number: each.by for each in folded.events.resolutions for number in each.words}
        made = ((number, attempt) for number, attempt in folded.numbers.items() if attempt.tries)
        self._following = {attempt.row.replaces: number for number, attempt in made if attempt.row.replaces}

    def entry(self, row: Row, outcome: Outcome, attempt: Attempt | None) -> Entry:
        at, amount = rfc3339(row.at_ms), Decimal(row.amount)
        ending = outcome.status, outcome.code, outcome.text
        found = Entry(self._destination, row.asset, at, amount, *ending, points=row.points)
        if attempt is None:
            return found
        (number, batch), tries = attempt.batch, attempt.tries
        plan = self._events.plans[number]
        result = self._events.results.get(tries[-1]) if tries else None
        seen = result or Result()
        return replace(
            found,
            number=row.number,
            key=row.key,
            replaces=row.replaces,
            replaced_by=self._following.get(row.number, ""),
            supersedes=row.supersedes,
            batch=f"{number}.{batch}",
            run_id=plan.run_id,
            planned_at=plan.created_at,
            requests=len(tries),
            sent_at=time_text(self._events.tries[tries[-1]].sent_at) if tries else "",
            ended_at=time_text(result.ended_at) if result is not None else "",
            http_status=seen.http_status,
            request_id=seen.request_id,
            response_sha256=seen.response_sha256,
            resolved_by=self._resolved_by.get(row.number, ""),
        )
