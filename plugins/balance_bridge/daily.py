"""The day's stages, each from the store to the store. Airflow's operators call them; nothing here knows Airflow.

What is handed from stage to stage is small and readable: keys, sequence numbers and counts. Rows stay in the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal

from balance_bridge import decisions, money
from balance_bridge.decisions import Act, Decision
from balance_bridge.errors import (
    BalanceBridgeError,
    BudgetExhausted,
    ConfigurationError,
    ConnectionFailed,
    Contradiction,
    CredentialsRefused,
    InvalidResponse,
    NotYetAvailable,
    RateLimited,
    ReconciliationBroken,
    RequestRefused,
    RetentionExceeded,
    StoreDamaged,
    SupersededRun,
)
from balance_bridge.extract import raw
from balance_bridge.extract.day import DayExtraction, read_snapshot
from balance_bridge.extract.source import Source
from balance_bridge.points import BalanceRequest
from balance_bridge.store import Store, to_json
from balance_bridge.transform import balances, ledger, reconciliation
from balance_bridge.transform.snapshot import Snapshot

Log = Callable[[str], None]

#: The status of a day that goes on, in place of its proof's.
SO_FAR = "so far"

# Days that the exchange is about to forget: today's last chance, and tomorrow's.
_LAST_CHANCE_DAYS = 2
_MAX_LATE = 100
# What is about the request or the line to the exchange, and not about the day that is being fetched.
_ABOUT_THE_CALLER = (BudgetExhausted, RateLimited, CredentialsRefused, ConfigurationError, ConnectionFailed)


@dataclass(frozen=True)
class Job:
    """One account's day.

    Attributes:
        source: The account at the exchange.
        store: Where every stage's result lies.
        account: The account's name.
        day: The UTC day D.
        run_id: The run; written with what it fetches.
        refetch: Whether to fetch again what the store has.
        log: Called with progress.
    """

    source: Source
    store: Store
    account: str
    day: date
    run_id: str
    refetch: bool = False
    log: Log = lambda _: None

    def extraction(self, again: str | None = None) -> DayExtraction:
        """The day's extraction; with a reason to fetch everything again, if one is given."""
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
    proven = None if job.refetch else _proven(job)
    try:
        if proven is None:
            found = job.extraction().snapshot(day)
        else:
            found = read_snapshot(job.source, job.store, proven[which], day)
    except NotYetAvailable as error:
        raise NotYetAvailable(
            f"the {which} snapshot of {job.day}, dated {day}, is not there yet ({error})", wait_s=error.wait_s
        ) from error
    snapshot = found.snapshot
    job.log(f"{which} snapshot of {job.day}: sn {snapshot.sn}, {len(snapshot.balances)} assets")
    return {"key": found.key, "sn": snapshot.sn, "at_ms": snapshot.at_ms, "assets": len(snapshot.balances)}


def fetch_history(job: Job, tolerance: Mapping[str, Decimal]) -> dict[str, Any]:
    """The next stage: every change of the day, and the proof that it adds up.

    A day that the store has proven is not fetched again. Where what comes does not add up, all of it is fetched once
    more, and on to an empty page, before the break is believed: records can appear late, and pages can be capped.

    Args:
        job: The account's day; its snapshots are in the store.
        tolerance: Per asset, on conservation only.

    Returns:
        The key of the ``manifest``, the ``status`` of the proof, and counts.

    Raises:
        NotYetAvailable: Not all of the day is there yet.
        RetentionExceeded: Neither the store nor the exchange has all of the day.
        InvalidResponse: A response is not what the exchange documents.
        Contradiction: The responses contradict each other, also when fetched once more.
        BudgetExhausted: As the source's budget decides; called again, it goes on where it was.
    """
    proven = None if job.refetch else _proven(job)
    if proven is not None and (proven["status"] == "proven" or proven["tolerance"] == _texts(tolerance)):
        job.log(f"{job.day} is in the store, whole and proven: nothing is fetched")
        return _handed_on(proven, 0)
    # Of this day: fetching one that is about to expire may have needed a second attempt of its own.
    again = job.extraction(again=f"{job.day} did not add up")
    trouble: Contradiction | None = None
    # Where it has begun, this is a retry, and the first attempt is over.
    if not again.begun(job.day):
        try:
            found, message = _fetch_and_prove(job, job.extraction(), tolerance)
            if found["status"] != "broken":
                return found
        except RetentionExceeded as error:
            kept = None if job.refetch else _kept(job)
            if kept is None:
                raise
            job.log(f"{error}: what the store has of {job.day} counts")
            return kept
        except Contradiction as error:
            trouble, message = error, str(error)
        job.log(f"the day does not add up; fetching it once more before that is believed: {message}")
    try:
        return _fetch_and_prove(job, again, tolerance, to_empty=True)[0]
    except (RetentionExceeded, RequestRefused) as error:
        job.log(f"it cannot be fetched again: {error}")
        # Where the exchange still serves the day, or was to be asked anew, what came last counts, not an older proof.
        kept = _kept(job, adds_up=isinstance(error, RetentionExceeded) and not job.refetch)
        if kept is None:
            raise trouble or error from error
        return kept


def rescue_expiring_days(job: Job, since: date, tolerance: Mapping[str, Decimal]) -> list[date]:
    """Fetch the days that the exchange is about to forget, before the job's own.

    Runs mostly come oldest first, but not always: a backfill can run backwards, and a run by hand can come before the
    days that an outage has left out. What is fetched here is not fetched again by those days' own runs.

    Args:
        job: The account's day; only earlier days are looked at, and none if this one is in the store.
        since: The account's first day.
        tolerance: Per asset, on conservation only.

    Returns:
        The days that were fetched. One that could not be is logged, and left to its own run.

    Raises:
        BudgetExhausted: As the source's budget decides; called again, it goes on where it was.
        CredentialsRefused: The exchange does not accept the key.
    """
    oldest = job.source.oldest()
    if oldest is None or (not job.refetch and _proven(job) is not None):
        return []
    rescued = []
    for day in (oldest + timedelta(days=ahead) for ahead in range(_LAST_CHANCE_DAYS)):
        its = replace(job, day=day, refetch=False)
        known = job.store.newest(raw.manifests(job.account, day), ".json") or its.extraction().is_unavailable(day)
        if not since <= day < job.day or known:
            continue
        job.log(f"{job.source.who} is about to forget {day}, which the store does not have: fetching it first")
        try:
            for which in ("opening", "closing"):
                fetch_snapshot(its, which)
            fetch_history(its, tolerance)
            rescued.append(day)
        except _ABOUT_THE_CALLER:
            raise
        except BalanceBridgeError as error:
            job.log(f"{day} could not be fetched ahead of its own run: {error}")
    return rescued


def reconcile(
    job: Job,
    extracted: Mapping[str, Any],
    *,
    tolerance: Mapping[str, Decimal],
    on_break: Literal["hold", "load", "ask"],
    destinations: Sequence[BalanceRequest],
) -> dict[str, Any]:
    """The transformation: from the proven ledger to the balances that each destination is to get.

    Args:
        job: The account's day.
        extracted: What :func:`fetch_history` gave.
        tolerance: Per asset, on conservation only.
        on_break: ``hold`` delivers nothing of a day that does not add up, ``load`` delivers it all the same, ``ask``
            delivers it if somebody has approved this very proof.
        destinations: What each destination asks for.

    Returns:
        ``day``, ``status`` and ``summary`` of the proof, and the keys of ``ledger``, ``reconciliation`` and
        ``balances`` (per destination).

    Raises:
        StoreDamaged: If the ledger is not the one that was proven.
        ReconciliationBroken: If the day does not add up and ``on_break`` is ``hold``. Ledger and report are stored.
    """
    manifest = job.store.read_json(extracted["manifest"])
    opening, closing = _read_snapshots(job, manifest)
    book = ledger.from_parquet(_read_ledger(job.store, manifest))
    proof, summary = manifest["proof"], manifest["summary"]
    if manifest["tolerance"] != _texts(tolerance):
        # The accounts file was changed in between.
        proven = reconciliation.reconcile(opening, closing, book, tolerance)
        proof, summary = proven.to_document(), _summary(proven, manifest["late"])
    job.log(f"{job.account} {job.day}: {summary}")
    # Also of the records: other ones can leave the same gap.
    seen = {**proof, "ledger": manifest["ledger_sha256"], "late": manifest["late"]}
    broken, digest = proof["status"] == "broken", decisions.digest(seen)
    decided = decisions.about(job.store, job.account, job.day, digest) if broken and on_break == "ask" else None
    approval = decided if decided is not None and decided.act is Act.APPROVED else None
    held = broken and on_break != "load" and approval is None
    requests = [] if held else destinations
    due = {request.name: balances.balances_at(opening, closing, book, request) for request in requests}
    # Before the report: what it says is due is there.
    keys = {request.name: _put_balances(job, request, due[request.name]) for request in requests}
    given = None if approval is None else approval.document()
    document = {
        **{name: manifest[name] for name in ("history", "ledger", "late")},
        **{"account": job.account, "day": str(job.day), "manifest": extracted["manifest"]},
        **{"proof": digest, "approval": given, **proof},
        "collisions": {name: each.to_document() for name, each in due.items()},
        "moved": {name: each.moved for name, each in due.items()},
    }
    report_key = job.store.append(f"reconciliation/{job.account}/{job.day}", ".json", to_json(document))
    if held:
        job.log(f"report: {job.store.describe(report_key)}")
        raise _held(job, _first_break(proof, manifest["late"]), decided, asks=on_break == "ask")
    if approval is not None:
        job.log(f"the day does not add up; {approval.by} approved it: {approval.reason}")
    return {
        "day": job.day.isoformat(),
        "status": proof["status"],
        "summary": summary,
        "records": manifest["records"],
        "ledger": manifest["ledger"],
        "reconciliation": report_key,
        "approval": given,
        "balances": keys,
        "collisions": {name: each.collisions for name, each in due.items()},
    }


def refuse_if_held_since(store: Store, account: str, reconciled: Mapping[str, Any], *, on_break: str) -> None:
    """Refuse to deliver what an earlier run worked out of a day, once a later one has held the day.

    Args:
        store: The store.
        account: The account's name.
        reconciled: What :func:`reconcile` gave that run.
        on_break: As the accounts file has it now.

    Raises:
        SupersededRun: If the day is held.
    """
    if on_break == "load" or reconciled["status"] in (SO_FAR, "broken"):
        return
    day = reconciled["day"]
    report = decisions.newest_report(store, account, date.fromisoformat(day))
    if report is not None and report["status"] == "broken" and not report["approval"]:
        raise SupersededRun(
            f"{account} {day}: a later run found that the day does not add up, nothing of it is delivered",
            do="Run the whole day again, or decide about it on the page Balances",
        )


def _held(job: Job, why: str, decided: Decision | None, *, asks: bool) -> ReconciliationBroken:
    what, day = f"{job.account} {job.day} does not add up, so nothing of it is delivered", job.day
    do = f'Once the exchange has corrected it, trigger {{"date": "{day}", "refetch": true}}'
    if asks and decided is None:
        what += ": held, waiting for a decision"
        do = f'Decide on the page "Balances", or: balance-bridge approve {job.account} {day} --by ... --reason ...'
    elif decided is not None:
        what += f": {decided.by} refused it"
        why = f"{decided.reason or 'no reason given'}; {why}"
    return ReconciliationBroken(what, why=why, do=do)


def _put_balances(job: Job, request: BalanceRequest, due: balances.Balances) -> str:
    moved = f", {due.moved} records moved into the day" if due.moved else ""
    collided = f", {due.collisions} instants gave way to another under the same key" if due.collisions else ""
    job.log(f"{request.name}: {len(due.frame)} balances at {', '.join(request.points)}{moved}{collided}")
    prefix = f"balances/{job.account}/{job.day}/{request.name}"
    return job.store.append(prefix, ".parquet", balances.to_parquet(due.frame))


def _fetch_and_prove(
    job: Job, extraction: DayExtraction, tolerance: Mapping[str, Decimal], *, to_empty: bool = False
) -> tuple[dict[str, Any], str]:
    """What the stage hands on, and the proof in words."""
    opening, closing = extraction.snapshot(job.day), extraction.snapshot(job.day + timedelta(days=1))
    history = extraction.history(job.day, opening, closing, to_empty=to_empty)
    book = ledger.build_ledger(history.legs)
    proof = reconciliation.reconcile(opening.snapshot, closing.snapshot, book, tolerance)
    data = ledger.to_parquet(book)
    late = list(history.late[:_MAX_LATE])
    manifest = {
        "opening": opening.key,
        "closing": closing.key,
        "history": history.generation,
        "pages": history.pages,
        "records": proof.records,
        "ledger": job.store.append(f"ledger/{job.account}/{job.day}", ".parquet", data),
        "ledger_sha256": hashlib.sha256(data).hexdigest(),
        "tolerance": _texts(tolerance),
        "status": proof.status,
        "summary": _summary(proof, late),
        "late": late,
        "proof": proof.to_document(),
    }
    key = job.store.append(raw.manifests(job.account, job.day), ".json", to_json(manifest))
    return _handed_on({**manifest, "manifest": key}, history.fetched), _summary(proof, late)


def _kept(job: Job, *, adds_up: bool = True) -> dict[str, Any] | None:
    """The newest whole fetch of a day that cannot be fetched again; preferably one that adds up, if wanted."""
    proven = _proven(job, between_newest=False) if adds_up else None
    newest = job.store.newest(raw.manifests(job.account, job.day), ".json")
    if proven is None and newest is not None:
        proven = {**job.store.read_json(newest), "manifest": newest}
    return None if proven is None else _handed_on(proven, 0)


def _summary(proof: reconciliation.Reconciliation, late: Sequence[int]) -> str:
    """The proof in words; a break also names what was booked too late for the closing snapshot."""
    if proof.status != "broken" or not late:
        return proof.summary()
    sns = ", ".join(map(str, late[:10]))
    return f"{proof.summary()}\n{len(late)} records beyond the closing sn have a time inside the day: sn {sns}"


def _first_break(proof: Mapping[str, Any], late: Sequence[int]) -> str:
    first, count = proof["breaks"][0], proof["break_count"]
    more = f"; {count - 1} more in the report" if count > 1 else ""
    if late:
        more += f"; booked after the closing snapshot: sn {', '.join(map(str, late[:5]))}"
    where = f"between sn {first['last_good_sn']} and {first['first_bad_sn']}"
    return f"{first['asset']}: {first['amount']} unexplained {where}{more}"


def _proven(job: Job, *, between_newest: bool = True) -> dict[str, Any] | None:
    """The newest manifest of the day that adds up, with its key, if what it names is in the store as it was.

    Args:
        job: The account's day.
        between_newest: Whether it must be the proof between the newest snapshots; otherwise a day and the next one,
            proven between different snapshots, would have the same records, or leave some to neither.
    """
    for key in reversed(job.store.series(raw.manifests(job.account, job.day), ".json")):
        try:
            found: dict[str, Any] = job.store.read_json(key)
            if found["status"] != "broken":
                ends = _read_snapshots(job, found)
                _read_ledger(job.store, found)
                if not between_newest or ends == _newest_snapshots(job, ends):
                    return {**found, "manifest": key}
                job.log(f"{job.day} was proven between other snapshots than the newest ones: proving it again")
        except (StoreDamaged, InvalidResponse) as error:
            job.log(f"{job.store.describe(key)} cannot be used: {error}")
    return None


def _read_snapshots(job: Job, manifest: Mapping[str, Any]) -> tuple[Snapshot, Snapshot]:
    opening = read_snapshot(job.source, job.store, manifest["opening"], job.day)
    closing = read_snapshot(job.source, job.store, manifest["closing"], job.day + timedelta(days=1))
    return opening.snapshot, closing.snapshot


def _newest_snapshots(job: Job, known: tuple[Snapshot, Snapshot]) -> tuple[Snapshot, Snapshot]:
    """The newest usable snapshots of the day's two ends: a refetch of this day or the next may have brought others."""
    found = []
    for day, each in zip((job.day, job.day + timedelta(days=1)), known, strict=True):
        newest, _ = job.extraction().stored_snapshot(day)
        found.append(each if newest is None else newest.snapshot)
    return found[0], found[1]


def _read_ledger(store: Store, manifest: Mapping[str, Any]) -> bytes:
    data = store.read(manifest["ledger"])
    if hashlib.sha256(data).hexdigest() != manifest["ledger_sha256"]:
        raise StoreDamaged(
            f"{store.describe(manifest['ledger'])} is not the ledger that was proven",
            why="its digest is not the one in the day's manifest",
            do="Run the day again: the ledger is made again from the raw pages",
        )
    return data


def _handed_on(manifest: Mapping[str, Any], fetched: int) -> dict[str, Any]:
    counts = {name: manifest[name] for name in ("manifest", "status", "history", "pages", "records")}
    return {**counts, "pages_fetched": fetched}


def _texts(tolerance: Mapping[str, Decimal]) -> dict[str, str]:
    return {asset: money.to_text(amount) for asset, amount in sorted(tolerance.items())}
