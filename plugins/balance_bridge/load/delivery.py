"""Delivery of one account's balances of one day to one destination: read the log, decide, send, fold.

A run that is killed between any two steps, and two copies of it that are alive at the same time, leave a log from which
the next run goes on: see ``log``, ``plan`` (what to do next) and ``fold`` (what a log means).

Where an API refuses a whole request for one bad record, with one of the destination's ``bisect_codes``, the run plans
again: the records of the request in two halves, until the bad ones are alone. Records that may have arrived keep their
numbers; the others get new ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

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
from balance_bridge.load.plan import Decider, decides_the_same, refuse_shared_keys, refuses_bad_record
from balance_bridge.load.repeating import repeating
from balance_bridge.load.replies import Reply
from balance_bridge.load.summary import TAKEN_OVER, DeliverySummary, held_otherwise, late
from balance_bridge.store import Store

MAX_DIVISIONS = 100
_POLL_S = 2.0


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
        ServerFault, InvalidResponse: What became of a batch is unknown.
        ConnectionFailed, RateLimited: A batch was not applied, even after waiting.
        CredentialsRefused, RequestRefused: 401 or 403; 404 or a redirect, because the host is wrong.

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
    written: int = 0

    def __post_init__(self) -> None:
        its = self.delivery
        self.log = DayLog(its.store, its.account, its.day, its.destination.name)
        self.summary = DeliverySummary(its.account, its.day.isoformat(), its.destination.name, its.dry_run)
        self.name = its.destination.name

    def run(self) -> DeliverySummary:
        bodies = self._plan()
        if self.delivery.dry_run:
            return self.summary
        try:
            self._send_all(bodies)
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
            self._log(remark)
        return self.summary

    def _log(self, line: str) -> None:
        self.delivery.log(f"{self.name}: {line}")

    # --- deciding

    def _plan(self, kept: Sequence[Row] | None = None) -> dict[int, bytes]:
        """Decide, and write it down unless the newest plan says the same; the body of each request that is to be made.

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
                return {}
            if newest is not None and not bodies and decides_the_same(plan, newest):
                return {}
            # A try that shows now was written before its run could see our plan: its request counts.
            number = events.newest + 1
            if self.log.put_plan(number, plan):
                self.written = number
                if not self.log.has_unread_try():
                    return bodies

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
            self._log(f"a request of another process may be under way; waiting {longest:.0f} s")
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

    def _send_all(self, bodies: dict[int, bytes]) -> None:
        """Send the batches of the newest plan, which is ours, and what they are divided into."""
        while bodies:
            number = self.log.events.newest
            plan = self.log.events.plans[number]
            self.summary.batches += len(bodies)
            refused = set[int]()
            for batch, rows in plan.batches().items():
                reply = self._request((number, batch), bodies[batch], rows, f"request {batch} of {len(bodies)}")
                if reply.stop is not None:
                    raise reply.stop
                if self._is_to_be_divided(reply, rows):
                    refused.add(batch)
            bodies = self._plan([row for row in plan.rows if row.batch not in refused]) if refused else {}

    def _is_to_be_divided(self, reply: Reply, rows: Sequence[Row]) -> bool:
        if len(rows) == 1 or not refuses_bad_record(reply.result, self.delivery.destination.bisect_codes):
            return False
        if self.summary.divided == MAX_DIVISIONS:
            self._log(f"{2 * MAX_DIVISIONS} requests went into finding bad records; the next run goes on")
            return False
        self.summary.divided += 1
        self._log(f"a request with {len(rows)} records was refused as a whole; dividing it")
        return True

    def _request(self, batch: tuple[int, int], body: bytes, rows: Sequence[Row], label: str) -> Reply:
        """Send one batch, repeated within seconds only where nothing can have been applied."""
        try:
            reply = repeating(self.delivery.clock, self.delivery.log)(self._try, batch, body, rows)
        except ConnectionFailed as error:
            raise ConnectionFailed(
                f"{self.name}: {error}",
                why="Nothing was sent, and Airflow tries again",
                do="If it stays so, check the connection's host, the network and the proxy",
            ) from error
        counts = Counter(_STATUS[reply.result.word(row.number).said] for row in rows)
        self._log(f"{label}: {', '.join(f'{count} {status}' for status, count in counts.items())}")
        return reply

    def _try(self, batch: tuple[int, int], body: bytes, rows: Sequence[Row]) -> Reply:
        """One request, with its try before it and its result after it, whatever happens."""
        destination, digest = self.delivery.destination, hashlib.sha256(body).hexdigest()
        made = Try(batch[1], self.delivery.clock.wall(), destination.deadline_s(len(rows)), digest)
        at = batch[0], self.log.put_try(batch[0], made)
        self._stop_if_superseded(at)
        self.summary.requests += 1
        why, do = f"What became of {len(rows)} balances is unknown", "Wait: Airflow sends the same rows again"
        try:
            reply = destination.send(body, [row.number for row in rows])
        except (ResponseLost, InvalidResponse) as error:
            self._put_no_response(at, sent=True, text=str(error))
            kind = InvalidResponse if isinstance(error, InvalidResponse) else OutcomeUnknown
            raise kind(f"{self.name}: {error}", why=why, do=error.do or do) from error
        except (ConnectionFailed, RateLimited, PermanentError) as error:
            self._put_no_response(at, sent=False, text=str(error))
            raise
        except Exception as error:
            # Our own defect after the first byte: the response counts as lost. Its text may hold anything.
            what = f"the response could not be read ({type(error).__name__})"
            self._put_no_response(at, sent=True, text=what)
            raise OutcomeUnknown(f"{self.name}: {what}", why=why, do=do) from None
        self.summary.foreign += reply.result.foreign
        if self._put(at, reply.result) != batch[0]:
            raise self._superseded()
        return reply

    def _stop_if_superseded(self, at: tuple[int, int]) -> None:
        try:
            newest = self.log.newest_since(at[0])
            if newest == at[0] and self.places.has_changed():
                # Our own try counts as a delivery, so any other place is refused.
                self.places.check(self.delivery.run_id)
        except BalanceBridgeError as error:
            self._put_no_response(at, sent=False, text=str(error))
            raise
        if newest > at[0]:
            self._put_no_response(at, sent=False, text=f"plan {newest} has taken over")
            raise self._superseded()

    def _put_no_response(self, at: tuple[int, int], *, sent: bool, text: str) -> None:
        word = Word(Said.NOTHING, NO_RESPONSE, text)
        self._put(at, Result(sent, ended_at=self.delivery.clock.wall(), whole=word))

    def _put(self, at: tuple[int, int], result: Result) -> int | None:
        """Write what was seen of a try, and the newest plan by then, even if that cannot be found out."""
        trouble = None
        try:
            result.newest = self.log.newest_since(at[0]) if result.sent else at[0]
        except StoreUnwritable as error:
            trouble = error
        self.log.put_result(*at, result)
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
        self._log(
            f"{summary.rows} balances: {summary.accepted_before} accepted before, {summary.seen} seen, "
            f"{summary.ignored} ignored, {summary.rejected_locally} rejected before sending, {summary.pending} {verb} "
            f"in {requests} requests{resent}"
        )
        if summary.other_keys:
            self._log(f"{held_otherwise(summary.other_keys, summary.example, plan)}")

    def _keep_preview(self, plan: Plan) -> None:
        its = self.delivery
        key = its.store.append(f"dry/{its.account}/{its.day}/{self.name}", ".jsonl.gz", encode(plan))
        self.summary.preview = key
        its.log(f"{self.name}: a dry run; what would be sent is in {its.store.describe(key)}")


_STATUS = {
    Said.ACCEPTED: Status.ACCEPTED,
    Said.REJECTED: Status.REJECTED,
    Said.USED: Status.SEEN,
    Said.NOTHING: Status.UNKNOWN,
}


def _generation(key: str) -> str:
    """What orders the objects of one series: they are numbered with leading zeros."""
    return key.rpartition("/")[2]
