"""The day's stages, each from the store to the store. Airflow's operators call them; nothing here knows Airflow.

What is handed from stage to stage is small and readable: keys, sequence numbers and counts. Rows stay in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal

from balance_bridge.errors import (
    BalanceBridgeError,
    BudgetExhausted,
    Contradiction,
    InvalidResponse,
    NotYetAvailable,
    ReconciliationBroken,
    RetentionExceeded,
    StoreDamaged,
)
from balance_bridge.extract.day import DayExtraction, StoredSnapshot, read_snapshot
from balance_bridge.extract.pages import newest_pages, read_legs
from balance_bridge.extract.source import Source
from balance_bridge.points import BalanceRequest
from balance_bridge.store import Store, to_json
from balance_bridge.transform import balances, ledger, reconciliation

Log = Callable[[str], None]

#: The status of a day that goes on, in place of its proof's.
SO_FAR = "so far"

# Days that the exchange is about to forget: today's last chance, and tomorrow's.
_LAST_CHANCE_DAYS = 2


@dataclass(frozen=True)
class Job:
    """One account's day.

    Attributes:
        source: The account at the exchange.
        store: Where every stage's result lies.
        account: The account's name.
        day: The UTC day D.
        run_id: Who asks; written with what is asked.
        refetch: Whether to ask anew for what the store has.
        log: Told of progress.
    """

    source: Source
    store: Store
    account: str
    day: date
    run_id: str
    refetch: bool = False
    log: Log = lambda _: None

    def extraction(self, again: str | None = None) -> DayExtraction:
        """The day's extraction; with a reason to ask again for everything, if one is given."""
        return DayExtraction(
            self.source,
            self.store,
            self.account,
            asked_by=self.run_id,
            again=again or ("refetch" if self.refetch else None),
            log=self.log,
        )


def fetch_snapshot(job: Job, which: Literal["opening", "closing"]) -> dict[str, Any]:
    """The first stages: the snapshot that opens, or that closes, the day.

    Returns:
        ``key`` of the raw object, ``sn``, ``at_ms`` and the number of ``assets``.

    Raises:
        NotYetAvailable: The closing snapshot of a day that has just ended is not there yet.
        BudgetExhausted: As the source's budget decides.
    """
    day = job.day if which == "opening" else job.day + timedelta(days=1)
    try:
        found = job.extraction().snapshot(day)
    except NotYetAvailable as error:
        raise NotYetAvailable(f"the {which} snapshot of {job.day}, dated {day}, is not there yet ({error})") from error
    snapshot = found.snapshot
    job.log(f"{which} snapshot of {job.day}: sn {snapshot.sn}, {len(snapshot.balances)} assets")
    return {"key": found.key, "sn": snapshot.sn, "at_ms": snapshot.at_ms, "assets": len(snapshot.balances)}


def fetch_history(
    job: Job, opening: Mapping[str, Any], closing: Mapping[str, Any], tolerance: Mapping[str, Decimal]
) -> dict[str, Any]:
    """The next stage: every change of the day.

    A day that the store has whole and that adds up is not asked for again. Where what comes does not add up, the
    exchange is asked once more for all of it before the break is believed: records can appear late.

    Args:
        job: The account's day.
        opening: What :func:`fetch_snapshot` gave for the opening.
        closing: What it gave for the closing.
        tolerance: Per asset, on conservation only.

    Returns:
        The keys of both snapshots, the ``history`` folder of the pages, and counts.

    Raises:
        RetentionExceeded: Neither the store nor the exchange has all of the day.
        InvalidResponse: An answer is not what the exchange documents.
        Contradiction: The answers contradict each other, also when asked for once more.
        BudgetExhausted: As the source's budget decides; called again, it goes on where it was.
    """
    if not job.refetch:
        proven = _proven_before(job, tolerance)
        if proven is not None:
            return proven
    given = _fetched(job, opening["key"], closing["key"])
    again = job.extraction(again="it did not add up")
    trouble: Contradiction | None = None
    found: dict[str, Any] | None = None
    if again.begun(job.day):
        # A retry: what was given belongs to the asking before, the newest pages to this one.
        found = _newest_whole(job)
    else:
        try:
            found, proof = _fetch_and_prove(job, job.extraction(), given, tolerance)
            if proof.status != "broken":
                return found
            told = proof.summary()
        except Contradiction as error:
            trouble, told = error, str(error)
        job.log(f"what came does not add up; asking once more before it is believed: {told}")
    try:
        anew = _Fetched(again.snapshot(job.day), again.snapshot(job.day + timedelta(days=1)))
        return _fetch_and_prove(job, again, anew, tolerance)[0]
    except RetentionExceeded as error:
        job.log(f"it cannot be asked for again: {error}")
        if found is None:
            raise trouble or error from error
        return found


def rescue_expiring_days(job: Job, since: date, tolerance: Mapping[str, Decimal]) -> list[date]:
    """Fetch the days that the exchange is about to forget, before the job's own.

    Runs mostly come oldest first, but not always: a backfill can run backwards, and a run by hand can come before the
    days that an outage has left out. What is fetched here is not asked for again by those days' own runs.

    Args:
        job: The account's day; only earlier days are looked at.
        since: The account's first day.
        tolerance: Per asset, on conservation only.

    Returns:
        The days that were fetched. One that could not be is told, and left to its own run.

    Raises:
        BudgetExhausted: As the source's budget decides; called again, it goes on where it was.
    """
    oldest = job.source.oldest()
    saved = []
    for ahead in range(_LAST_CHANCE_DAYS if oldest is not None else 0):
        day = (oldest or since) + timedelta(days=ahead)
        its = replace(job, day=day, refetch=False)
        if not since <= day < job.day or job.store.newest(_whole(its), ".json") is not None:
            continue
        job.log(f"{job.source.who} is about to forget {day}, which the store does not have: fetching it first")
        try:
            fetch_history(its, fetch_snapshot(its, "opening"), fetch_snapshot(its, "closing"), tolerance)
            saved.append(day)
        except BudgetExhausted:
            raise
        except BalanceBridgeError as error:
            job.log(f"{day} could not be fetched ahead of its own run: {error}")
    return saved


def reconcile(
    job: Job,
    extracted: Mapping[str, Any],
    *,
    tolerance: Mapping[str, Decimal],
    on_break: Literal["hold", "load"],
    destinations: Sequence[BalanceRequest],
) -> dict[str, Any]:
    """The transformation: ledger, proof, and the balances that each destination is to get.

    Args:
        job: The account's day.
        extracted: What :func:`fetch_history` gave.
        tolerance: Per asset, on conservation only.
        on_break: ``hold`` delivers nothing of a day that does not add up, ``load`` delivers it all the same.
        destinations: What each destination asks for.

    Returns:
        ``day``, ``status`` and ``summary`` of the proof, and the keys of ``ledger``, ``reconciliation`` and
        ``balances`` (per destination).

    Raises:
        ReconciliationBroken: If the day does not add up and ``on_break`` is ``hold``. Ledger and report are stored.
    """
    fetched = _fetched(job, extracted["opening"], extracted["closing"])
    opening, closing = fetched.opening.snapshot, fetched.closing.snapshot
    legs = read_legs(job.source, job.store, extracted["history"], opening_sn=opening.sn, closing_sn=closing.sn)
    book = ledger.build_ledger(legs)
    proof = reconciliation.reconcile(opening, closing, book, tolerance)
    job.log(f"{job.account} {job.day}: {proof.summary()}")
    held = proof.status == "broken" and on_break == "hold"
    requests = [] if held else destinations
    due = {request.name: balances.balances_at(opening, closing, book, request) for request in requests}
    place = f"{job.account}/{job.day}"
    ledger_key = job.store.append(f"ledger/{place}", ".parquet", ledger.to_parquet(book))
    document = {
        "account": job.account,
        "day": job.day.isoformat(),
        "opening": fetched.opening.key,
        "closing": fetched.closing.key,
        "history": extracted["history"],
        "ledger": ledger_key,
        "collisions": {name: each.to_document() for name, each in due.items()},
        "moved": {name: each.moved for name, each in due.items()},
        **proof.to_document(),
    }
    report_key = job.store.append(f"reconciliation/{place}", ".json", to_json(document))
    if held:
        raise ReconciliationBroken(
            f"{job.account} {job.day} does not add up, nothing of it is delivered: {proof.summary()} "
            f"(report: {job.store.describe(report_key)}). If the exchange has corrected its records, trigger the DAG "
            f'with {{"date": "{job.day}", "refetch": true}}; to deliver all the same, set on_break: load'
        )
    keys: dict[str, str] = {}
    for request in destinations:
        each = due[request.name]
        keys[request.name] = job.store.append(
            f"balances/{place}/{request.name}", ".parquet", balances.to_parquet(each.frame)
        )
        moved = f", {each.moved} records moved into the day" if each.moved else ""
        collided = f", {each.collisions} instants gave way to another under the same key" if each.collisions else ""
        job.log(f"{request.name}: {len(each.frame)} balances at {', '.join(request.points)}{moved}{collided}")
    return {
        "day": job.day.isoformat(),
        "status": proof.status,
        "summary": proof.summary(),
        "records": extracted["records"],
        "ledger": ledger_key,
        "reconciliation": report_key,
        "balances": keys,
        "collisions": {name: each.collisions for name, each in due.items()},
    }


@dataclass(frozen=True)
class _Fetched:
    opening: StoredSnapshot
    closing: StoredSnapshot


def _fetched(job: Job, opening_key: str, closing_key: str) -> _Fetched:
    return _Fetched(
        read_snapshot(job.source, job.store, opening_key, job.day),
        read_snapshot(job.source, job.store, closing_key, job.day + timedelta(days=1)),
    )


def _newest_whole(job: Job) -> dict[str, Any] | None:
    key = job.store.newest(_whole(job), ".json")
    return None if key is None else {**job.store.read_json(key), "pages_asked": 0}


def _proven_before(job: Job, tolerance: Mapping[str, Decimal]) -> dict[str, Any] | None:
    """The newest whole fetch of the day that the store has and that adds up."""
    for key in reversed(job.store.series(_whole(job), ".json")):
        try:
            found: dict[str, Any] = job.store.read_json(key)
            proof = _prove(job, _fetched(job, found["opening"], found["closing"]), found["history"], tolerance)
        except (InvalidResponse, StoreDamaged) as error:
            job.log(f"{job.store.describe(key)} cannot be used: {error}")
            continue
        if proof.status != "broken":
            job.log(f"{job.day} is in the store, whole and proven: nothing is asked for")
            return {**found, "pages_asked": 0}
    return None


def _fetch_and_prove(
    job: Job, extraction: DayExtraction, fetched: _Fetched, tolerance: Mapping[str, Decimal]
) -> tuple[dict[str, Any], reconciliation.Reconciliation]:
    history = extraction.history(job.day, fetched.opening, fetched.closing)
    try:
        proof = _prove(job, fetched, history.generation, tolerance)
    except StoreDamaged as error:
        job.log(f"the stored pages of {job.day} are not whole ({error}): going through them from the first")
        history = extraction.history(job.day, fetched.opening, fetched.closing, verify_all=True)
        proof = _prove(job, fetched, history.generation, tolerance)
    found = {
        "opening": fetched.opening.key,
        "closing": fetched.closing.key,
        "history": history.generation,
        "pages": len(newest_pages(job.store, history.generation)),
        "records": proof.records,
    }
    # Which snapshots and pages belong together, and that they are all there.
    job.store.append(_whole(job), ".json", to_json(found))
    return {**found, "pages_asked": history.asked}, proof


def _whole(job: Job) -> str:
    return f"raw/{job.account}/{job.day}/whole"


def _prove(
    job: Job, fetched: _Fetched, history: str, tolerance: Mapping[str, Decimal]
) -> reconciliation.Reconciliation:
    opening, closing = fetched.opening.snapshot, fetched.closing.snapshot
    try:
        legs = read_legs(job.source, job.store, history, opening_sn=opening.sn, closing_sn=closing.sn)
        return reconciliation.reconcile(opening, closing, ledger.build_ledger(legs), tolerance)
    except InvalidResponse as error:
        # Each page was found good when it came.
        raise Contradiction(str(error)) from error
