"""Delivery of one account's balances of one day to one destination: read the log, decide, send, fold.

A run that is killed between any two steps, and two copies of it that are alive at the same time, leave a log from which
the next run goes on: see ``log``, ``plan`` (what to do next) and ``fold`` (what a log means).

A request is repeated within seconds only if nothing can have been applied: no connection (three times), or 429 (as the
server asks, for two minutes at most). Everything else is left to the next run.

Where an API refuses a whole request for one bad record, with one of the destination's ``bisect_codes``, the run plans
again: the records of the request in two halves, until the bad ones are alone. For b bad records among n that takes at
most 2 b log2(n) further requests (log2 rounded up), and never more than 200 in one delivery, besides the halves that an
earlier run had left. Records that may have arrived keep their numbers; the others get new ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

import tenacity

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import (
    BalanceBridgeError,
    ConnectionFailed,
    InvalidResponse,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    ResponseLost,
    StoreDamaged,
    StoreUnwritable,
    SupersededRun,
    TransientError,
)
from balance_bridge.load.destination import Balance, Destination
from balance_bridge.load.documents import Plan, Result, Row, Said, Try, Word, encode
from balance_bridge.load.fold import NO_RESPONSE, Folded, Status, fold
from balance_bridge.load.log import DayLog, Events, time_text
from balance_bridge.load.numbers import number_prefix
from balance_bridge.load.place import Places
from balance_bridge.load.plan import Decider, decides_the_same, refuse_shared_keys
from balance_bridge.load.replies import Reply
from balance_bridge.load.summary import TAKEN_OVER, DeliverySummary, held_otherwise, late
from balance_bridge.store import Store

MAX_DIVISIONS = 100
_POLL_S = 2.0
_MAX_CONNECTS = 3
_MAX_WAIT_S = 120.0
_MAX_WAITS = 10


@dataclass(frozen=True)
class Delivery:
    """What to deliver, where to, and how.

    Attributes:
        destination: Where to.
        store: Holds the log.
        account: The account's name in the accounts file.
        day: The UTC day.
        namespace: First part of the communication numbers.
        generation: The store's object with the balances; the later one of two has the higher number in its name.
        run_id: Written into the log.
        so_far: The day is not over, and these are not all its balances. It never takes over from a whole day's.
        redeliver: Whether to send again, under new numbers, what was delivered under other keys or settings.
        dry_run: Do everything except sending and writing the log; what would be sent is kept in the store.
        clock: Time and sleep.
        log: Called with lines that report progress.
    """

    destination: Destination
    store: Store
    account: str
    day: date
    namespace: str
    generation: str
    run_id: str
    so_far: bool = False
    redeliver: bool = False
    dry_run: bool = False
    clock: Clock = SYSTEM_CLOCK
    log: Callable[[str], None] = lambda _: None


def deliver(delivery: Delivery, balances: Iterable[Balance]) -> DeliverySummary:
    """Deliver what has not been delivered yet.

    Args:
        delivery: Where to, and how.
        balances: The day's balances for this destination.

    Returns:
        What became of each balance.

    Raises:
        ConfigurationError: Two balances have one key. Nothing was sent or written.
        PlaceChanged: The destination leads elsewhere than before. Nothing was sent.
        StoreDamaged: Part of the log cannot be read. Nothing was sent.
        SupersededRun: Another run of the day has taken over.
        RecordsRejected: Records were rejected, by the destination or before sending; all others were sent, unless a
            transient error stopped the delivery as well.
        OutcomeUnknown: A response was lost, or lacked results.
        ServerFault: 5xx; what became of that batch is unknown.
        ConnectionFailed: No connection after three attempts; that batch was not sent.
        RateLimited: Too many requests, even after waiting; that batch was not applied.
        CredentialsRefused: 401 or 403.
        RequestRefused: 404 or a redirect: the host is wrong.
        InvalidResponse: A response that is not the API's; what became of that batch is unknown.

    An error that a delivery ends with has the :class:`DeliverySummary` as its attribute ``summary``.
    """
    due = delivery.destination.prepare(balances)
    refuse_shared_keys(delivery.destination, due)
    places = Places(delivery.store, delivery.account, delivery.destination)
    places.check(delivery.run_id, redeliver=delivery.redeliver, dry_run=delivery.dry_run)
    run = _Run(delivery, due, places)
    try:
        return run.run()
    except BalanceBridgeError as error:
        vars(error)["summary"] = run.summary
        raise


@dataclass
class _Run:
    """One delivery while it runs."""

    delivery: Delivery
    due: list[Row]
    places: Places
    divisions: int = 0
    bodies: dict[int, bytes] = field(default_factory=dict)
    written: int = 0

    def __post_init__(self) -> None:
        its = self.delivery
        self.log = DayLog(its.store, its.account, its.day, its.destination.name)
        self.summary = DeliverySummary(its.account, its.day.isoformat(), its.destination.name, its.dry_run)
        self.name = its.destination.name

    def run(self) -> DeliverySummary:
        planned = self._plan()
        if self.delivery.dry_run:
            return self.summary
        try:
            if planned:
                self._send_all()
        except BalanceBridgeError as error:
            failure = None if isinstance(error, SupersededRun) else self._failure()
            if not isinstance(error, TransientError) or not isinstance(failure, PermanentError):
                raise
            # Were it raised as transient, Airflow's retry would send what was rejected again.
            why = f"{failure.why}; the delivery stopped early: {error}"
            raise type(failure)(str(failure.args[0]), why=why, do=failure.do) from error
        failure = self._failure()
        if failure is None and self.summary.pending:
            # All of ours was sent: another run has decided since, perhaps to send again what was rejected.
            failure = self.summary.superseded_run()
        if failure is not None:
            raise failure
        remark = self.summary.remark(self.delivery.destination.config.max_rejected)
        if remark:
            self.delivery.log(f"{self.name}: {remark}")
        return self.summary

    # --- deciding

    def _plan(self, kept: Sequence[Row] | None = None) -> bool:
        """Decide, and write it down; False if the newest plan says the same and nothing is left to send.

        Args:
            kept: Where a plan of this run is divided, its rows that stay as they are.
        """
        its, number = self.delivery, 0
        while True:
            events = self.log.read() if its.dry_run else self._read_quiet()
            self._refuse_older(events)
            if self.written and self.written != events.newest:
                raise self._superseded()
            if number > events.newest:
                raise StoreDamaged(f"{self.log.place}: plan {number} can neither be written nor read")
            folded = fold(events)
            plan, bodies = self._decide(folded, kept or ())
            newest = events.newest_plan
            if kept is None:
                self._report(plan, folded)
            if its.dry_run:
                self._keep_preview(plan)
                return False
            if newest is not None and not bodies and decides_the_same(plan, newest):
                return False
            # A try that shows now was written before its run could see our plan: its request counts.
            number = events.newest + 1
            if self.log.put_plan(number, plan):
                self.written = number
                if not self.log.has_unread_try():
                    self.bodies = bodies
                    return bool(bodies)

    def _decide(self, folded: Folded, kept: Iterable[Row]) -> tuple[Plan, dict[int, bytes]]:
        its = self.delivery
        prefix = number_prefix(its.namespace, its.account, self.name)
        decider = Decider(its.destination, prefix, folded, its.run_id, its.redeliver, kept)
        rows, bodies = decider.decide(self.due)
        plan = Plan(
            account=its.account,
            day=its.day.isoformat(),
            destination=self.name,
            kind=its.destination.kind,
            # Two dry runs with the same plan leave the same bytes.
            run_id="" if its.dry_run else its.run_id,
            created_at="" if its.dry_run else time_text(its.clock.wall()),
            generation=its.generation,
            so_far=its.so_far,
            read=folded.events.read_so_far(),
            rows=rows,
        )
        return plan, bodies

    def _read_quiet(self) -> Events:
        """Read the log once no request of another process can be under way."""
        clock = self.delivery.clock
        first_seen_s: dict[tuple[int, int], float] = {}
        while True:
            events = self.log.read()
            waiting = {
                at: made
                for at, made in events.tries.items()
                if at not in events.results and self._left_s(made, first_seen_s.setdefault(at, clock.monotonic())) > 0
            }
            if not waiting:
                return events
            longest = max(self._left_s(made, first_seen_s[at]) for at, made in waiting.items())
            self.delivery.log(f"{self.name}: a request of another process may be under way; waiting {longest:.0f} s")
            for at, made in waiting.items():
                while (left_s := self._left_s(made, first_seen_s[at])) > 0 and not self.log.has_result(*at):
                    clock.sleep(min(left_s, _POLL_S))

    def _left_s(self, made: Try, first_seen_s: float) -> float:
        """Seconds for which a request may still be under way: by its sender's clock, or since we first saw it."""
        clock = self.delivery.clock
        return min(made.left_s(clock.wall()), first_seen_s + made.deadline_s - clock.monotonic())

    def _refuse_older(self, events: Events) -> None:
        """Neither older balances nor those of an unfinished day take over from the newest plan's."""
        newest = events.newest_plan
        if newest is None:
            return
        if self.delivery.so_far and not newest.so_far:
            raise self.summary.superseded_run(f"{TAKEN_OVER}: the whole day is being delivered already")
        if self.delivery.so_far == newest.so_far and newest.generation != self.delivery.generation:
            older = _generation(newest.generation) > _generation(self.delivery.generation)
            # A newest one that was pruned cannot be compared: its numbers begin again.
            if older and self.delivery.store.exists(newest.generation):
                raise self.summary.superseded_run(
                    f"Newer balances of the day ({newest.generation}) have been delivered",
                    do="Trigger the day, or clear it from its task reconcile on",
                )

    # --- sending

    def _send_all(self) -> None:
        """Send the batches of the newest plan, which is ours, and what they are divided into."""
        sending = True
        while sending:
            number = self.log.events.newest
            plan = self.log.events.plans[number]
            batches = plan.batches()
            self.summary.batches += len(batches)
            refused = set[int]()
            for batch, rows in batches.items():
                reply = self._request(number, batch, rows, f"request {batch} of {len(batches)}")
                if reply.stop is not None:
                    raise reply.stop
                if self._is_to_be_divided(reply, rows):
                    refused.add(batch)
            sending = bool(refused) and self._plan([row for row in plan.rows if row.batch not in refused])

    def _is_to_be_divided(self, reply: Reply, rows: Sequence[Row]) -> bool:
        whole = reply.result.whole
        if whole is None or whole.said is not Said.REJECTED or len(rows) == 1:
            return False
        if whole.code not in self.delivery.destination.bisect_codes:
            return False
        if self.divisions == MAX_DIVISIONS:
            self.delivery.log(
                f"{self.name}: {2 * MAX_DIVISIONS} requests went into finding bad records; the next run goes on"
            )
            return False
        self.divisions += 1
        self.summary.divided += 1
        self.delivery.log(f"{self.name}: a request with {len(rows)} records was refused as a whole; dividing it")
        return True

    def _request(self, plan: int, batch: int, rows: Sequence[Row], label: str) -> Reply:
        """Send one batch, repeated within seconds only where nothing can have been applied."""
        repeat = tenacity.Retrying(
            sleep=self.delivery.clock.sleep,
            retry=tenacity.retry_if_exception_type((ConnectionFailed, RateLimited)),
            wait=_wait_s,
            stop=_give_up,
            before_sleep=self._report_repeat,
            reraise=True,
        )
        try:
            reply = repeat(self._try, plan, batch, rows)
        except ConnectionFailed as error:
            raise ConnectionFailed(
                f"{self.name}: {error}",
                why="Nothing was sent, and Airflow tries again",
                do="If it stays so, check the connection's host, the network and the proxy",
            ) from error
        counts = Counter(_STATUS[reply.result.word(row.number).said] for row in rows)
        self.delivery.log(f"{self.name}: {label}: {', '.join(f'{count} {status}' for status, count in counts.items())}")
        return reply

    def _try(self, plan: int, batch: int, rows: Sequence[Row]) -> Reply:
        """One request, with its try before it and its result after it, whatever happens."""
        its = self.delivery
        body = self.bodies[batch]
        made = Try(batch, its.clock.wall(), its.destination.deadline_s(len(rows)), _digest(body))
        number = self.log.put_try(plan, made)
        self._stop_if_superseded(plan, number)
        self.summary.requests += 1
        try:
            reply = its.destination.send(body, [row.number for row in rows])
        except (ResponseLost, InvalidResponse) as error:
            self._put_no_response(plan, number, sent=True, text=str(error))
            kind = InvalidResponse if isinstance(error, InvalidResponse) else OutcomeUnknown
            raise kind(f"{self.name}: {error}", why=_UNKNOWN.format(len(rows)), do=error.do or _WAIT) from error
        except (ConnectionFailed, RateLimited, PermanentError) as error:
            self._put_no_response(plan, number, sent=False, text=str(error))
            raise
        except Exception as error:
            # Our own defect after the first byte: the response counts as lost. Its text may hold anything.
            what = f"the response could not be read ({type(error).__name__})"
            self._put_no_response(plan, number, sent=True, text=what)
            raise OutcomeUnknown(f"{self.name}: {what}", why=_UNKNOWN.format(len(rows)), do=_WAIT) from None
        self.summary.foreign += reply.result.foreign
        if self._put(plan, number, reply.result) != plan:
            raise self._superseded()
        return reply

    def _stop_if_superseded(self, plan: int, number: int) -> None:
        try:
            newest = self.log.newest_since(plan)
            if newest == plan and self.places.has_changed():
                # Our own try counts as a delivery, so any other place is refused.
                self.places.check(self.delivery.run_id)
        except BalanceBridgeError as error:
            self._put_no_response(plan, number, sent=False, text=str(error))
            raise
        if newest > plan:
            self._put_no_response(plan, number, sent=False, text=f"plan {newest} has taken over")
            raise self._superseded()

    def _put_no_response(self, plan: int, number: int, *, sent: bool, text: str) -> None:
        word = Word(Said.NOTHING, NO_RESPONSE, text)
        self._put(plan, number, Result(sent, ended_at=self.delivery.clock.wall(), whole=word))

    def _put(self, plan: int, number: int, result: Result) -> int | None:
        """Write what was seen of a request, and the newest plan by then, even if that cannot be found out."""
        trouble = None
        try:
            result.newest = self.log.newest_since(plan) if result.sent else plan
        except StoreUnwritable as error:
            trouble = error
        self.log.put_result(plan, number, result)
        if trouble is not None:
            raise trouble
        return result.newest

    def _superseded(self) -> SupersededRun:
        folded = fold(self.log.read())
        self.summary.count(folded)
        return self.summary.superseded_run(late=late(folded))

    # --- reporting

    def _failure(self) -> BalanceBridgeError | None:
        config = self.delivery.destination.config
        # What another process has written meanwhile may put a balance in doubt.
        self.summary.count(fold(self.log.read() if self.log.has_news() else self.log.events))
        return self.summary.failure(max_rejected=config.max_rejected, on_unconfirmed=config.on_unconfirmed)

    def _report(self, plan: Plan, folded: Folded) -> None:
        """Report what is about to be done, and count it."""
        summary = self.summary
        summary.count(folded, plan)
        requests = max((row.batch for row in plan.rows), default=0)
        verb = "would be sent" if self.delivery.dry_run else "to send"
        resent = f", {summary.resent} of them again under the same numbers" if summary.resent else ""
        self.delivery.log(
            f"{self.name}: {summary.rows} balances: {summary.accepted_before} accepted before, {summary.seen} seen, "
            f"{summary.ignored} ignored, {summary.rejected_locally} rejected before sending, {summary.pending} {verb} "
            f"in {requests} requests{resent}"
        )
        if summary.other_keys:
            self.delivery.log(f"{self.name}: {held_otherwise(summary.other_keys, summary.example, plan)}")

    def _keep_preview(self, plan: Plan) -> None:
        its = self.delivery
        key = its.store.append(f"dry/{its.account}/{its.day}/{self.name}", ".jsonl.gz", encode(plan))
        self.summary.preview = key
        its.log(f"{self.name}: a dry run; what would be sent is in {its.store.describe(key)}")

    def _report_repeat(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.delivery.log(f"{error}; trying again in {state.upcoming_sleep:g} s")


_STATUS = {
    Said.ACCEPTED: Status.ACCEPTED,
    Said.REJECTED: Status.REJECTED,
    Said.USED: Status.SEEN,
    Said.NOTHING: Status.UNKNOWN,
}
_UNKNOWN, _WAIT = "What became of {} balances is unknown", "Wait: Airflow sends the same rows again"


def _generation(key: str) -> str:
    """What orders the objects of one series: they are numbered with leading zeros."""
    return key.rpartition("/")[2]


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _wait_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    doubling = float(2 ** min(state.attempt_number - 1, 5))
    if isinstance(error, RateLimited) and error.wait_s is not None:
        return max(1.0, error.wait_s)
    return doubling


def _give_up(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ConnectionFailed):
        return state.attempt_number >= _MAX_CONNECTS
    return state.attempt_number >= _MAX_WAITS or state.idle_for + state.upcoming_sleep > _MAX_WAIT_S
