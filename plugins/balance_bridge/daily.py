"""The day's stages, each from the store to the store. Airflow's operators call them; nothing here knows Airflow.

What is handed from stage to stage is small and readable: keys, sequence numbers and counts. Rows stay in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal

from balance_bridge.errors import (
    BadAnswer,
    Contradiction,
    NotYetAvailable,
    ReconciliationBroken,
    RetentionExceeded,
    StoreDamaged,
)
from balance_bridge.extract import raw
from balance_bridge.extract.day import DayExtraction, read_legs
from balance_bridge.extract.source import SnapshotAnswer, Source
from balance_bridge.store import Store, to_json
from balance_bridge.transform import balances, ledger, reconciliation

Log = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One account's day.

    Attributes:
        source: The account at the exchange.
        store: Where every stage's result lies.
        account: The account's name.
        day: The UTC day D.
        retention_days: How far back the exchange answers.
        run_id: Who asks; written with what is asked.
        refetch: Whether to ask anew for what the store has.
        log: Told of progress.
    """

    source: Source
    store: Store
    account: str
    day: date
    retention_days: int
    run_id: str
    refetch: bool = False
    log: Log = lambda _: None

    def extraction(self, again: str | None = None) -> DayExtraction:
        """The day's extraction; with a reason to ask again for everything, if one is given."""
        return DayExtraction(
            self.source,
            self.store,
            self.account,
            retention_days=self.retention_days,
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
    """
    day = job.day if which == "opening" else job.day + timedelta(days=1)
    try:
        key, answer = job.extraction().snapshot(day)
    except NotYetAvailable as error:
        raise NotYetAvailable(f"the {which} snapshot of {job.day}, dated {day}, is not there yet ({error})") from error
    job.log(f"{which} snapshot of {job.day}: sn {answer.snapshot.sn}, {len(answer.snapshot.balances)} assets")
    return {
        "key": key,
        "sn": answer.snapshot.sn,
        "at_ms": answer.snapshot.at_ms,
        "assets": len(answer.snapshot.balances),
    }


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
        BadAnswer: An answer is not what the exchange documents.
        Contradiction: The answers contradict each other, also when asked for once more.
    """
    if not job.refetch:
        proven = _proven_before(job, tolerance)
        if proven is not None:
            return proven
    given = _Fetched(
        str(opening["key"]),
        _stored_snapshot(job, opening["key"], job.day),
        str(closing["key"]),
        _stored_snapshot(job, closing["key"], job.day + timedelta(days=1)),
    )
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
        anew = _Fetched(*again.snapshot(job.day), *again.snapshot(job.day + timedelta(days=1)))
        return _fetch_and_prove(job, again, anew, tolerance)[0]
    except RetentionExceeded as error:
        job.log(f"it cannot be asked for again: {error}")
        if found is None:
            raise trouble or error from error
        return found


def reconcile(
    job: Job,
    extracted: Mapping[str, Any],
    *,
    tolerance: Mapping[str, Decimal],
    on_break: Literal["hold", "load"],
    destinations: Sequence[Wanted],
) -> dict[str, Any]:
    """The transformation: ledger, proof, and the balances that each destination is to get.

    Args:
        job: The account's day.
        extracted: What :func:`fetch_history` gave.
        tolerance: Per asset, on conservation only.
        on_break: ``hold`` delivers nothing of a day that does not add up, ``load`` delivers it all the same.
        destinations: What is wanted where.

    Returns:
        ``status`` and ``summary`` of the proof, and the keys of ``ledger``, ``reconciliation`` and ``balances`` (per
        destination).

    Raises:
        ReconciliationBroken: If the day does not add up and ``on_break`` is ``hold``. Ledger and report are stored.
    """
    fetched = _Fetched(
        extracted["opening"],
        _stored_snapshot(job, extracted["opening"], job.day),
        extracted["closing"],
        _stored_snapshot(job, extracted["closing"], job.day + timedelta(days=1)),
    )
    book, proof = _prove(job, fetched, extracted["history"], tolerance)
    job.log(f"{job.account} {job.day}: {proof.summary()}")
    held = proof.status == "broken" and on_break == "hold"
    due = {} if held else _balances(fetched, book, destinations)
    place = f"{job.account}/{job.day}"
    ledger_key = job.store.append(f"ledger/{place}", ".parquet", ledger.to_parquet(book))
    document = {
        "account": job.account,
        "day": job.day.isoformat(),
        "opening": fetched.opening_key,
        "closing": fetched.closing_key,
        "history": extracted["history"],
        "ledger": ledger_key,
        "collisions": {name: each.to_document() for name, each in due.items()},
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
    for wanted in destinations:
        each = due[wanted.name]
        keys[wanted.name] = job.store.append(
            f"balances/{place}/{wanted.name}", ".parquet", balances.to_parquet(each.frame)
        )
        told = f", {each.collisions} instants gave way to another under the same key" if each.collisions else ""
        job.log(f"{wanted.name}: {len(each.frame)} balances at {', '.join(wanted.points)}{told}")
    return {
        "status": proof.status,
        "summary": proof.summary(),
        "records": extracted["records"],
        "ledger": ledger_key,
        "reconciliation": report_key,
        "balances": keys,
        "collisions": {name: each.collisions for name, each in due.items()},
    }


@dataclass(frozen=True)
class Wanted:
    """What a destination asks for.

    Attributes:
        name: The destination's name in the accounts file.
        points: The configured points.
        zone: IANA zone for local midnights and, where keys are local, for the keys.
        key: ``instant`` where a balance's key is its instant, ``local_second`` where it is the local text.
    """

    name: str
    points: Sequence[str]
    zone: str
    key: Literal["instant", "local_second"]


@dataclass(frozen=True)
class _Fetched:
    opening_key: str
    opening: SnapshotAnswer
    closing_key: str
    closing: SnapshotAnswer


def _balances(fetched: _Fetched, book: Any, destinations: Sequence[Wanted]) -> dict[str, balances.Balances]:
    opening, closing = fetched.opening.snapshot, fetched.closing.snapshot
    return {
        wanted.name: balances.balances_at(opening, closing, book, wanted.points, wanted.zone, wanted.key)
        for wanted in destinations
    }


def _stored_snapshot(job: Job, key: str, day: date) -> SnapshotAnswer:
    return job.source.read_snapshot(raw.read(job.store, key).body, day)


def _newest_whole(job: Job) -> dict[str, Any] | None:
    key = job.store.newest(_whole(job), ".json")
    return None if key is None else {**job.store.read_json(key), "pages_asked": 0}


def _proven_before(job: Job, tolerance: Mapping[str, Decimal]) -> dict[str, Any] | None:
    """The newest whole fetch of the day that the store has and that adds up."""
    for key in reversed(job.store.series(_whole(job), ".json")):
        found: dict[str, Any] = job.store.read_json(key)
        try:
            fetched = _Fetched(
                found["opening"],
                _stored_snapshot(job, found["opening"], job.day),
                found["closing"],
                _stored_snapshot(job, found["closing"], job.day + timedelta(days=1)),
            )
            proof = _prove(job, fetched, found["history"], tolerance)[1]
        except (BadAnswer, StoreDamaged) as error:
            job.log(f"{key} cannot be used: {error}")
            continue
        if proof.status != "broken":
            job.log(f"{job.day} is in the store, whole and proven: nothing is asked for")
            return {**found, "pages_asked": 0}
    return None


def _fetch_and_prove(
    job: Job, extraction: DayExtraction, fetched: _Fetched, tolerance: Mapping[str, Decimal]
) -> tuple[dict[str, Any], reconciliation.Reconciliation]:
    history = extraction.history(job.day, fetched.opening, fetched.closing)
    found = {
        "opening": fetched.opening_key,
        "closing": fetched.closing_key,
        "history": history.generation,
        "pages": history.pages,
        "records": history.records,
    }
    # Which snapshots and pages belong together, and that they are all there.
    job.store.append(_whole(job), ".json", to_json(found))
    proof = _prove(job, fetched, history.generation, tolerance)[1]
    return {**found, "pages_asked": history.asked}, proof


def _whole(job: Job) -> str:
    return f"raw/{job.account}/{job.day}/whole"


def _prove(
    job: Job, fetched: _Fetched, history: str, tolerance: Mapping[str, Decimal]
) -> tuple[Any, reconciliation.Reconciliation]:
    opening, closing = fetched.opening.snapshot, fetched.closing.snapshot
    legs = read_legs(job.source, job.store, history, opening_sn=opening.sn, closing_sn=closing.sn)
    try:
        book = ledger.build_ledger(legs)
        return book, reconciliation.reconcile(opening, closing, book, tolerance)
    except BadAnswer as error:
        # Each page was found good when it came.
        raise Contradiction(str(error)) from error
