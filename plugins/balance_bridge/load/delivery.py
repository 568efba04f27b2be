"""Delivery of one account's balances of one day to one destination.

Everything is checked before anything is sent. Then, batch by batch: the receipt of what is planned, the request, the
receipt of what came back. A run that is killed between any two of these, and two copies of it that are alive at the
same time, leave receipts from which the next run goes on:

- What has an acceptance on a receipt is not sent again.
- What is planned, or was sent without an answer, goes out first and unchanged under its number.
- What another live copy was told about the same batch in the meantime is taken as our own answer.
- A request is repeated within seconds only if nothing can have been applied: no connection (three times), or 429
  (as the server asks, for two minutes at most). All else is left to the next run.

Two limits of it. Against Amlyze, a number makes a second acceptance impossible. Elven knows no numbers: if a batch was
accepted and the answer was lost, the very same rows go to the same source once more. And where a refusal (401, 403,
404, a redirect) answers rows that may have been sent before, it says nothing about that earlier request: they stay
unknown and keep their numbers, while rows that had never been sent are rejected, and their numbers used up. (Any
other 4xx judges the content, which is the same as in the earlier request: it rejects the rows in either case.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date

import tenacity

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import (
    AnswerLost,
    BadAnswer,
    BalanceBridgeError,
    CredentialsRefused,
    NotReached,
    OutcomeUnknown,
    PassingError,
    RequestRefused,
    WindowFull,
)
from balance_bridge.load.batches import Batch
from balance_bridge.load.destination import Balance, Candidate, Destination
from balance_bridge.load.history import History, standing
from balance_bridge.load.numbers import Numbering
from balance_bridge.load.outcomes import UNRESOLVED, Outcome, Status
from balance_bridge.load.plan import make_plan, refuse_shared_keys
from balance_bridge.load.receipts import Receipts
from balance_bridge.load.replies import Reply
from balance_bridge.load.summary import DeliverySummary
from balance_bridge.store import Store

_MAX_CONNECTS = 3
_MAX_WAIT_S = 120.0
_MAX_WAITS = 10


def deliver(
    *,
    destination: Destination,
    store: Store,
    account: str,
    day: date,
    namespace: str,
    balances: Iterable[Balance],
    run_id: str,
    clock: Clock = SYSTEM_CLOCK,
    log: Callable[[str], None] = lambda _: None,
    dry_run: bool = False,
) -> DeliverySummary:
    """Deliver what has not been delivered yet.

    Args:
        destination: Where to.
        store: Where the receipts lie.
        account: The account's name in the accounts file.
        day: The UTC day.
        namespace: First part of the communication numbers.
        balances: The day's balances for this destination.
        run_id: Written on the receipts.
        clock: Time and sleep.
        log: Told of each batch.
        dry_run: Do everything except sending and writing.

    Returns:
        What became of each balance.

    Raises:
        ConfigurationError: The namespace cannot be used, or two balances have one key. Nothing was sent or written.
        NumberReused: A number would go out with other content. Nothing was sent or written.
        RecordsRejected: Records were rejected, by the destination or before sending; all others were sent, unless a
            passing error stopped the delivery as well.
        OutcomeUnknown: An answer was lost, or lacked results.
        ServerFault: 5xx; what became of that batch is unknown.
        NotReached: No connection after three attempts; that batch was not sent.
        WindowFull: Too many requests, even after waiting; that batch was not applied.
        CredentialsRefused: 401 or 403.
        RequestRefused: 404 or a redirect: the host is wrong.
        BadAnswer: An answer that is not the API's; what became of that batch is unknown.
        StoreDamaged: A receipt cannot be read.

    Every error that is raised once sending has begun has the :class:`DeliverySummary` as its attribute ``summary``.
    """
    numbering = Numbering(namespace=namespace, account=account, destination=destination.name)
    prepared = destination.prepare(balances)
    refuse_shared_keys(destination, prepared.candidates)
    receipts = Receipts(store, account, destination.name)
    history = receipts.history(day, (candidate.balance.at_ms for candidate in prepared.candidates))
    plan = make_plan(destination, prepared.candidates, history, numbering, day)

    summary = DeliverySummary(account, day.isoformat(), destination.name, dry_run)
    rejected = prepared.rejected + plan.rejected
    summary.rows = len(prepared.candidates) + len(prepared.rejected) + len(prepared.ignored)
    summary.ignored = len(prepared.ignored)
    summary.accepted_before = plan.accepted_before
    summary.seen = plan.seen_before
    summary.covered = plan.covered
    summary.batches = len(plan.batches)
    summary.pending = sum(len(batch.rows) for batch in plan.batches)
    summary.count_local(rejected)
    _tell(log, summary, _left_behind(history, prepared.candidates, day))

    if dry_run:
        for batch in plan.batches:
            summary.count_sent(batch.rows, resend=batch.resend)
    else:
        receipts.local(day, rejected, Counter(balance.asset for balance in prepared.ignored))
        receipts.point(day, (*(row for batch in plan.batches for row in batch.rows), *plan.claims))
        receipts.agree(day, plan.claims)
        sender = _Sender(destination, receipts, history, day, run_id, clock, log, summary)
        sender.send_all(plan.batches)
    failure = summary.failure()
    if failure is not None:
        raise summary.attach(failure)
    return summary


@dataclass
class _Sender:
    destination: Destination
    receipts: Receipts
    history: History
    day: date
    run_id: str
    clock: Clock
    log: Callable[[str], None]
    summary: DeliverySummary

    def send_all(self, batches: Sequence[Batch]) -> None:
        try:
            for index, batch in enumerate(batches, 1):
                self._deliver(batch, f"{self.destination.name}: batch {index} of {len(batches)}")
        except PassingError as error:
            failure = self.summary.failure() if self.summary.rejected else None
            if failure is None:
                self.summary.attach(error)
                raise
            # Were it raised as passing, Airflow would send what was rejected again without being asked.
            raise self.summary.attach(type(failure)(f"{failure}. The delivery stopped early: {error}")) from error
        except BalanceBridgeError as error:
            self.summary.attach(error)
            raise

    def _deliver(self, batch: Batch, label: str) -> None:
        new = self.receipts.plan(
            self.day, batch, kind=self.destination.kind, run_id=self.run_id, now_ms=self.clock.now_ms()
        )
        if not new:
            count, reported = self.receipts.reports(self.day, batch.id)
            if count > self.history.answers.get(batch.id, 0):
                self._settle(batch, reported, f"{label}, sent by another copy of this run", by_another=True)
                return
        self.summary.count_sent(batch.rows, resend=batch.resend)
        reply = self._request(batch)
        if isinstance(reply.stop, (CredentialsRefused, RequestRefused)) and (batch.resend or not new):
            reply = _keep_unknown(reply)
        used = any(outcome.status == Status.SEEN for outcome in reply.outcomes.values())
        if used and new and not batch.resend:
            reply = _not_by_us(reply)
        self.receipts.answer(self.day, batch, reply, run_id=self.run_id)
        self.summary.foreign += reply.foreign
        reported = dict(reply.outcomes)
        if used:
            # "Already used" is an acceptance if another copy's receipt says so.
            _, reported = self.receipts.reports(self.day, batch.id)
        self._settle(batch, reported, label, by_another=False)
        if reply.stop is not None:
            raise reply.stop

    def _settle(self, batch: Batch, reported: dict[str, Outcome], label: str, *, by_another: bool) -> None:
        silent = Outcome(Status.UNKNOWN)
        counts: Counter[str] = Counter()
        for row in batch.rows:
            outcome = reported.get(row.number, silent)
            counts[outcome.status] += 1
            self.summary.count_outcome(row, outcome, by_another=by_another)
        self.log(f"{label}: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}")

    def _request(self, batch: Batch) -> Reply:
        def attempt() -> Reply:
            self.summary.requests += 1
            return self.destination.send(batch)

        started = self.clock.wall()
        repeat = tenacity.Retrying(
            sleep=self.clock.sleep,
            retry=tenacity.retry_if_exception_type((NotReached, WindowFull)),
            wait=_wait_s,
            stop=_give_up,
            before_sleep=self._tell_repeat,
            reraise=True,
        )
        try:
            return repeat(attempt)
        except (AnswerLost, BadAnswer) as error:
            # The request may have been acted upon. BadAnswer here: the answer was too large to be read.
            stop = (
                error
                if isinstance(error, BadAnswer)
                else OutcomeUnknown(
                    f"{self.destination.name}: {error}. What became of {len(batch.rows)} rows is unknown; they go out "
                    f"again under the same numbers"
                )
            )
            outcome = Outcome(Status.UNKNOWN, "NO ANSWER", str(error))
            outcomes = {row.number: outcome for row in batch.rows}
            return Reply(0, "", "", started, self.clock.wall(), outcomes, stop=stop)

    def _tell_repeat(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.log(f"{error}; trying again in {state.upcoming_sleep:g} s")


def _wait_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    doubling = float(2 ** min(state.attempt_number - 1, 5))
    if isinstance(error, WindowFull) and error.retry_after_s is not None:
        return max(1.0, error.retry_after_s)
    return doubling


def _give_up(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, NotReached):
        return state.attempt_number >= _MAX_CONNECTS
    return state.attempt_number >= _MAX_WAITS or state.idle_for + state.upcoming_sleep > _MAX_WAIT_S


def _keep_unknown(reply: Reply) -> Reply:
    return replace(
        reply,
        outcomes={
            number: Outcome(
                Status.UNKNOWN, outcome.code, f"refused now ({outcome.text}), but an earlier request was not answered"
            )
            for number, outcome in reply.outcomes.items()
        },
    )


def _not_by_us(reply: Reply) -> Reply:
    """For numbers that were never sent before: that they are used up says nothing about these balances."""
    return replace(
        reply,
        outcomes={
            number: Outcome(
                Status.REJECTED,
                outcome.code,
                "the number was used before, but not by this store: does another deployment write under the same "
                "[balance_bridge] namespace, or was the store lost or moved? Before the day is run again, make sure "
                "that these balances are not there already",
            )
            if outcome.status == Status.SEEN
            else outcome
            for number, outcome in reply.outcomes.items()
        },
    )


def _left_behind(history: History, candidates: Iterable[Candidate], day: date) -> int:
    asked = {candidate.key for candidate in candidates}
    held = (standing(attempts) for key, attempts in history.keys.items() if key not in asked)
    return sum(1 for each in held if each and each.row.day == day.isoformat() and each.outcome.status in UNRESOLVED)


def _tell(log: Callable[[str], None], summary: DeliverySummary, left_behind: int) -> None:
    verb = "would be sent" if summary.dry_run else "to send"
    log(
        f"{summary.destination}: {summary.rows} balances: {summary.accepted_before} accepted before, "
        f"{summary.seen} seen, {summary.covered} covered by other days, {summary.ignored} ignored, "
        f"{summary.rejected_locally} not sendable, {summary.pending} {verb} in {summary.batches} batches"
    )
    if left_behind:
        log(
            f"{summary.destination}: {left_behind} balances of an earlier run have an unknown outcome and are no "
            f"longer asked for; they are not sent again"
        )
