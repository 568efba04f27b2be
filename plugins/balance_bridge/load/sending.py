"""Sending batches: receipt, request, receipt; several at a time if wanted; divided where one bad record refuses all.

**Dividing.** Where an API refuses a whole request for a bad record, with one of the codes that the destination's policy
names, the batch is divided into halves, under new numbers that name the old ones, until the bad records are alone. Of a
batch of n rows with b bad ones that takes at most 2 b log2(n) further requests (log2 rounded up), and never more than
200 in one delivery; what is still together by then stays rejected as it is. A kill in between leaves rejected rows,
which a repeated run sends under new numbers.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from threading import Lock

import msgspec
import tenacity

from balance_bridge.clock import Clock
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
from balance_bridge.load.batches import Batch, Row, pack
from balance_bridge.load.destination import Destination
from balance_bridge.load.history import History
from balance_bridge.load.numbers import split
from balance_bridge.load.outcomes import NOT_SENT, SENT_AGAIN, Outcome, Status, Weak
from balance_bridge.load.receipts import Receipts
from balance_bridge.load.replies import Reply
from balance_bridge.load.summary import DeliverySummary

MAX_DIVISIONS = 100
_MAX_CONNECTS = 3
# More attempts than anybody makes to deliver one balance.
_FAR = 1000
_MAX_WAIT_S = 120.0
_MAX_WAITS = 10


@dataclass
class Sender:
    """Sends the batches of one delivery.

    Args:
        destination: Where to.
        receipts: Where they lie.
        history: What the receipts told when the delivery began.
        day: The UTC day.
        run_id: Written on the receipts.
        clock: Time and sleep.
        log: Told of each batch.
        summary: Counts what becomes of each row.
        mark: Of the receipt for which balances this delivery stands.
        executor: Makes what so many requests are sent with at the same time.
    """

    destination: Destination
    receipts: Receipts
    history: History
    day: date
    run_id: str
    clock: Clock
    log: Callable[[str], None]
    summary: DeliverySummary
    mark: str
    executor: Callable[[int], Executor] = ThreadPoolExecutor
    _late: int = 0
    _late_days: set[str] = field(default_factory=set)
    _queue: deque[tuple[str, Batch]] = field(default_factory=deque)
    _divisions: int = 0
    _counting: Lock = field(default_factory=Lock)

    def send_all(self, batches: Sequence[Batch]) -> None:
        """Send each batch, and what it is divided into.

        Raises:
            BalanceBridgeError: What stopped the delivery; the summary is its attribute ``summary``.
        """
        label = f"{self.destination.name}: batch"
        self._queue.extend((f"{label} {index} of {len(batches)}", batch) for index, batch in enumerate(batches, 1))
        try:
            self._send_queue()
        except PassingError as error:
            failure = self.summary.failure(self.destination.policy) if self.summary.rejected else None
            if failure is None:
                self.summary.attach(error)
                raise
            # Were it raised as passing, Airflow would send what was rejected again without being asked.
            raise self.summary.attach(type(failure)(f"{failure}. The delivery stopped early: {error}")) from error
        except BalanceBridgeError as error:
            self.summary.attach(error)
            raise

    def _send_queue(self) -> None:
        at_once = self.destination.policy.max_in_flight
        with self.executor(at_once) as pool:
            while self._queue:
                if self._is_overtaken():
                    raise self.summary.overtaken()
                wave = [_Sending(*self._queue.popleft()) for _ in range(min(at_once, len(self._queue)))]
                due = [sending for sending in wave if self._begin(sending)]
                if len(due) == 1:
                    # In this thread: a crash is then a crash, wherever it happens.
                    due[0].reply = self._request(due[0].batch)
                else:
                    for sending, reply in zip(due, pool.map(lambda each: self._request(each.batch), due), strict=True):
                        sending.reply = reply
                late, trouble = self._look()
                stops = [stop for stop in (self._end(sending, late=late) for sending in due) if stop is not None]
                if trouble is not None:
                    raise trouble
                if late:
                    raise self.summary.overtaken(self._late, self._late_days)
                if stops:
                    # All of a wave is on receipts before the first of them is raised; what is final counts more.
                    raise next((stop for stop in stops if not isinstance(stop, PassingError)), stops[0])

    def _is_overtaken(self) -> bool:
        return self.receipts.is_overtaken(self.day, self.mark)

    def _look(self) -> tuple[bool, Exception | None]:
        """Whether another run has overtaken this one; if that cannot be found out, as if it had, and why."""
        try:
            return self._is_overtaken(), None
        except Exception as error:
            return True, error

    def _begin(self, sending: _Sending) -> bool:
        """Write down what is about to be sent; whether it still has to be."""
        batch = sending.batch
        sending.new = self.receipts.plan(
            self.day, batch, kind=self.destination.kind, run_id=self.run_id, now_ms=self.clock.now_ms()
        )
        if not sending.new:
            count, reported = self.receipts.reports(self.day, batch.id)
            # That another copy has withdrawn it is no answer.
            sent = any(each.code != NOT_SENT.code for each in reported.values())
            if sent and count > self.history.answers.get(batch.id, 0):
                label = f"{sending.label}, sent by another copy of this run"
                if not self._divide(batch, label, self.receipts.last_refusal(self.day, batch.id)):
                    self._settle(batch, reported, label, by_another=True)
                return False
            # Whoever planned it may be alive, and has to know that it is not alone.
            self._tell_resend(batch)
        self.summary.count_sent(batch.rows, resend=batch.resend)
        return True

    def _tell_resend(self, batch: Batch) -> None:
        now = self.clock.wall()
        outcome = Outcome(Status.UNKNOWN, SENT_AGAIN, "about to be sent again; written before the request")
        reply = Reply(0, "", "", now, now, {row.number: outcome for row in batch.rows})
        self.receipts.answer(self.day, batch, reply, run_id=self.run_id)

    def _end(self, sending: _Sending, *, late: bool) -> BalanceBridgeError | None:
        """Write down what became of a request, and count it.

        Args:
            sending: The batch with its answer.
            late: Whether another run has overtaken this one meanwhile.

        Returns:
            What stops the delivery, or None.
        """
        batch, reply = sending.batch, sending.reply
        if not isinstance(reply, Reply):
            if late and sending.new:
                self._withdraw(batch)
            return reply
        refused = isinstance(reply.stop, (CredentialsRefused, RequestRefused))
        used = any(outcome.status == Status.SEEN for outcome in reply.outcomes.values())
        if refused or used:
            # A report that is there already is another live copy's: it may have sent these rows before us.
            alone = sending.new and not batch.resend and self.receipts.reports(self.day, batch.id)[0] == 0
            if refused and not alone:
                reply = _keep_unknown(reply)
            if used and alone:
                reply = _not_by_us(reply)
        after = self._last_attempts(batch, reply) if late else None
        self.receipts.answer(self.day, batch, reply, run_id=self.run_id, after=after)
        self.summary.foreign += reply.foreign
        reported = dict(reply.outcomes)
        if used:
            # "Already used" is an acceptance if another copy's receipt says so.
            _, reported = self.receipts.reports(self.day, batch.id)
        if late or not self._divide(batch, sending.label, reported[batch.rows[0].number] if reply.whole else None):
            self._settle(batch, reported, sending.label, by_another=False)
        return reply.stop

    def _withdraw(self, batch: Batch) -> None:
        """Write down that a batch was planned and is not sent, so that its numbers are not taken for used."""
        now = self.clock.wall()
        reply = Reply(0, "", "", now, now, {row.number: NOT_SENT for row in batch.rows})
        self.receipts.answer(self.day, batch, reply, run_id=self.run_id)

    def _last_attempts(self, batch: Batch, reply: Reply) -> dict[str, int]:
        """Per number the last attempt under its key that there is by now; and count what may have come too late."""
        try:
            history = self.receipts.history(self.day, {row.at_ms for row in batch.rows})
        except Exception:
            self.log(f"{self.destination.name}: the receipts cannot be read, to see what this may have come after")
            self._late += len(batch.rows)
            return {row.number: split(row.number)[1] + _FAR for row in batch.rows}
        after = {}
        for row in batch.rows:
            attempts = history.keys[row.key]
            after[row.number] = attempts[-1].place[0]
            if reply.outcomes[row.number].status != Status.REJECTED:
                days = {
                    each.row.day
                    for each in attempts
                    if each.row.amount != row.amount
                    and each.outcome.status != Status.REJECTED
                    and each.place[0] >= split(row.number)[1]
                }
                self._late += bool(days)
                self._late_days |= days
        return after

    def _divide(self, batch: Batch, label: str, refusal: Outcome | None) -> bool:
        if refusal is None or len(batch.rows) == 1 or refusal.code not in self.destination.policy.bisect_codes:
            return False
        if self._divisions == MAX_DIVISIONS:
            self.log(f"{label}: refused as a whole, and {2 * MAX_DIVISIONS} requests went into finding bad records")
            return False
        self._divisions += 1
        self.summary.count_divided(batch.rows, resend=batch.resend)
        middle = len(batch.rows) // 2
        self.log(f"{label}: refused as a whole ({refusal.code}: {refusal.text}); dividing its {len(batch.rows)} rows")
        halves = (batch.rows[:middle], batch.rows[middle:])
        for part, rows in reversed(list(enumerate(halves, 1))):
            self._queue.appendleft((f"{label}.{part}", self._renumbered(rows)))
        return True

    def _renumbered(self, rows: Iterable[Row]) -> Batch:
        again = []
        for row in rows:
            number = self.history.next_number(row.number)
            wire = self.destination.numbered(row.wire, number, replaces=row.number, supersedes=row.supersedes)
            following = msgspec.structs.replace(row, number=number, wire=wire, replaces=row.number)
            again.append((following, self.destination.encode_row(wire)))
        # A number can be a digit longer than the one before, but half a batch stays within the limits of the whole.
        limits = replace(self.destination.limits, max_bytes=1 << 60)
        (batch,) = pack(again, limits, self.destination.envelope, resend=False)
        return batch

    def _settle(self, batch: Batch, reported: dict[str, Outcome], label: str, *, by_another: bool) -> None:
        silent = Outcome(Status.UNKNOWN)
        counts: Counter[str] = Counter()
        for row in batch.rows:
            outcome = reported.get(row.number, silent)
            counts[outcome.status] += 1
            self.summary.count_outcome(row, outcome, by_another=by_another)
        self.log(f"{label}: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}")

    def _request(self, batch: Batch) -> Reply | BalanceBridgeError:
        def attempt() -> Reply:
            with self.destination.place():
                # Once more after every wait: for an answer that asks for it, for a connection, for a place.
                if self._is_overtaken():
                    raise self.summary.overtaken()
                with self._counting:
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
        except NotReached as error:
            return NotReached(
                f"{self.destination.name}: {error}. Nothing was sent; it is tried again by itself. If it stays so, "
                f"look at the connection's host, the network and a proxy"
            )
        except BalanceBridgeError as error:
            return error

    def _tell_repeat(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.log(f"{error}; trying again in {state.upcoming_sleep:g} s")


@dataclass
class _Sending:
    """A batch on its way.

    Attributes:
        label: What the log calls it.
        batch: The batch.
        new: Whether it was planned for the first time.
        reply: The answer, or the error for which there is no receipt.
    """

    label: str
    batch: Batch
    new: bool = False
    reply: Reply | BalanceBridgeError | None = None


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
                Weak.USED,
            )
            if outcome.status == Status.SEEN
            else outcome
            for number, outcome in reply.outcomes.items()
        },
    )
