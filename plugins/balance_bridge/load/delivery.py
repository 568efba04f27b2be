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
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import date

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.load import preview
from balance_bridge.load.destination import Balance, Candidate, Destination
from balance_bridge.load.history import History, rival, standing
from balance_bridge.load.numbers import Numbering
from balance_bridge.load.outcomes import UNRESOLVED
from balance_bridge.load.plan import make_plan, refuse_shared_keys
from balance_bridge.load.receipts import Receipts
from balance_bridge.load.sending import Sender
from balance_bridge.load.summary import DeliverySummary
from balance_bridge.store import Store


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
    so_far: bool = False,
    is_stale: Callable[[], bool] = lambda: False,
    executor: Callable[[int], Executor] = ThreadPoolExecutor,
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
        dry_run: Do everything except sending and writing receipts; what would be sent is kept in the store.
        so_far: The day goes on, and these are not all its balances. Once a delivery of the whole day has begun, this
            one is overtaken.
        is_stale: Whether the day was worked out anew since these balances were; asked before and after this delivery
            stands for them.
        executor: Makes what so many requests are sent with at the same time.

    Returns:
        What became of each balance.

    Raises:
        ConfigurationError: The namespace cannot be used, or two balances have one key. Nothing was sent or written.
        NumberReused: A number would go out with other content. Nothing was sent.
        Overtaken: Another delivery of the day began later, with other balances.
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
    summary = DeliverySummary(account, day.isoformat(), destination.name, dry_run)
    # Before the receipts are read: whoever began earlier with other balances stops, and what it had sent by then shows.
    if is_stale():
        raise summary.stale()
    mark = "" if dry_run else receipts.begin(day, prepared, so_far=so_far)
    # Whoever works the day out anew does so before it begins to deliver: after this look our mark shows it.
    if is_stale():
        raise summary.stale()
    history = receipts.history(day, (candidate.balance.at_ms for candidate in prepared.candidates))
    plan = make_plan(destination, prepared.candidates, history, numbering, day)
    rejected = prepared.rejected + plan.rejected
    summary.rows = len(prepared.candidates) + len(prepared.rejected) + len(prepared.ignored)
    summary.ignored = len(prepared.ignored)
    summary.accepted_before = plan.accepted_before
    summary.seen = plan.seen_before
    summary.covered = plan.covered
    summary.batches = len(plan.batches)
    summary.pending = sum(len(batch.rows) for batch in plan.batches)
    summary.count_local(rejected)
    again = sum(len(batch.rows) for batch in plan.batches if batch.resend)
    _tell(log, summary, again, _left_behind(history, prepared.candidates, day))

    if dry_run:
        for batch in plan.batches:
            summary.count_sent(batch.rows, resend=batch.resend)
        summary.preview = preview.keep(
            store,
            account,
            day,
            destination=destination.name,
            kind=destination.kind,
            batches=plan.batches,
            rejected=rejected,
            ignored=Counter(balance.asset for balance in prepared.ignored),
        )
        log(f"{destination.name}: a dry run; what would be sent is in {store.describe(summary.preview)}")
    else:
        if receipts.is_overtaken(day, mark):
            raise summary.overtaken(*_in_doubt(history, prepared.candidates))
        receipts.local(day, mark, rejected, Counter(balance.asset for balance in prepared.ignored))
        receipts.point(day, (*(row for batch in plan.batches for row in batch.rows), *plan.claims))
        receipts.agree(day, mark, plan.claims)
        sender = Sender(destination, receipts, history, day, run_id, clock, log, summary, mark, executor)
        sender.send_all(plan.batches)
    failure = summary.failure(destination.policy)
    if failure is not None:
        raise summary.attach(failure)
    remark = summary.remark(destination.policy)
    if remark:
        log(f"{destination.name}: to look at: {remark}")
    return summary


def _in_doubt(history: History, candidates: Iterable[Candidate]) -> tuple[int, set[str]]:
    """How many balances a run may have sent too late, and the days that have another amount for them."""
    found = [history.keys[each.key] for each in candidates if each.key in history.keys]
    rivals = [rival(attempts, held) for attempts in found if (held := standing(attempts))]
    return sum(each is not None for each in rivals), {each.row.day for each in rivals if each is not None}


def _left_behind(history: History, candidates: Iterable[Candidate], day: date) -> int:
    asked = {candidate.key for candidate in candidates}
    held = (standing(attempts) for key, attempts in history.keys.items() if key not in asked)
    return sum(1 for each in held if each and each.row.day == day.isoformat() and each.outcome.status in UNRESOLVED)


def _tell(log: Callable[[str], None], summary: DeliverySummary, again: int, left_behind: int) -> None:
    verb = "would be sent" if summary.dry_run else "to send"
    log(
        f"{summary.destination}: {summary.rows} balances: {summary.accepted_before} accepted before, "
        f"{summary.seen} seen, {summary.covered} covered by other days, {summary.ignored} ignored, "
        f"{summary.rejected_locally} not sendable, {summary.pending} {verb} in {summary.batches} batches"
        f"{f', {again} of them again under the same numbers' if again else ''}"
    )
    if left_behind:
        log(
            f"{summary.destination}: {left_behind} balances of an earlier run have an unknown outcome and are no "
            f"longer asked for; they are not sent again"
        )
