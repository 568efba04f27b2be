"""The day's stages, each from the store to the store. Airflow's operators call them; nothing here knows Airflow.

What is handed from stage to stage is small and readable: keys, sequence numbers and counts. Rows stay in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal

from balance_bridge.errors import NotYetAvailable, ReconciliationBroken, RetentionExceeded
from balance_bridge.extract import raw
from balance_bridge.extract.day import DayExtraction, StoredHistory, read_legs
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

    Where what came does not add up, the exchange is asked once more for all of it before the break is believed: records
    can appear late.

    Args:
        job: The account's day.
        opening: What :func:`fetch_snapshot` gave for the opening.
        closing: What it gave for the closing.
        tolerance: Per asset, on conservation only.

    Returns:
        The keys of both snapshots, the ``history`` folder of the pages, and counts.
    """
    extraction = job.extraction()
    fetched = _Fetched(
        str(opening["key"]),
        _stored_snapshot(job, opening["key"], job.day),
        str(closing["key"]),
        _stored_snapshot(job, closing["key"], job.day + timedelta(days=1)),
    )
    if not job.refetch and extraction.generations(job.day) > 1:
        # A retry after the day was asked for again: all three belong together.
        fetched = _snapshots(extraction, job.day)
    history = extraction.history(job.day, fetched.opening, fetched.closing)
    # A day without records has no pages, and so no generation.
    if extraction.generations(job.day) <= 1:
        proof = _prove(job, fetched, history, tolerance)[1]
        if proof.status == "broken":
            job.log(f"what came does not add up; asking once more before it is believed: {proof.summary()}")
            fetched, history = _ask_once_more(job, fetched, history)
    return {
        "opening": fetched.opening_key,
        "closing": fetched.closing_key,
        "history": history.generation,
        "pages": history.pages,
        "pages_asked": history.asked,
        "records": history.records,
    }


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
    history = StoredHistory(extracted["history"], extracted["pages"], extracted["records"], 0)
    book, proof = _prove(job, fetched, history, tolerance)
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
        "history": history.generation,
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
        "records": history.records,
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


def _snapshots(extraction: DayExtraction, day: date) -> _Fetched:
    return _Fetched(*extraction.snapshot(day), *extraction.snapshot(day + timedelta(days=1)))


def _balances(fetched: _Fetched, book: Any, destinations: Sequence[Wanted]) -> dict[str, balances.Balances]:
    opening, closing = fetched.opening.snapshot, fetched.closing.snapshot
    return {
        wanted.name: balances.balances_at(opening, closing, book, wanted.points, wanted.zone, wanted.key)
        for wanted in destinations
    }


def _stored_snapshot(job: Job, key: str, day: date) -> SnapshotAnswer:
    return job.source.read_snapshot(raw.read(job.store, key).body, day)


def _ask_once_more(job: Job, fetched: _Fetched, history: StoredHistory) -> tuple[_Fetched, StoredHistory]:
    again = job.extraction(again="it did not add up")
    try:
        anew = _snapshots(again, job.day)
        return anew, again.history(job.day, anew.opening, anew.closing)
    except RetentionExceeded as error:
        job.log(f"it cannot be asked for again: {error}")
        return fetched, history


def _prove(
    job: Job, fetched: _Fetched, history: StoredHistory, tolerance: Mapping[str, Decimal]
) -> tuple[Any, reconciliation.Reconciliation]:
    opening, closing = fetched.opening.snapshot, fetched.closing.snapshot
    legs = read_legs(job.source, job.store, history.generation, opening_sn=opening.sn, closing_sn=closing.sn)
    book = ledger.build_ledger(legs)
    return book, reconciliation.reconcile(opening, closing, book, tolerance)
