"""The day that is still going on: its changes so far, and the balances that are settled by now.

What is fetched lies where the daily run of that day looks for it, so it goes on from there and fetches nothing twice;
and what is delivered is on the receipts of that day, so it delivers only what is new or has turned out differently.

A balance is settled once no later instant can have its key and its instant has been over for a minute, by the
exchange's clock: the exchange books a record some time after it happened. A record that is booked later still is a
correction, which the next run delivers as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from balance_bridge.daily import SO_FAR, Job
from balance_bridge.errors import Contradiction, NotYetAvailable, ReconciliationBroken
from balance_bridge.extract.day import StoredHistory, StoredSnapshot
from balance_bridge.localtime import local_seconds
from balance_bridge.points import BalanceRequest, known_so_far
from balance_bridge.store import to_json
from balance_bridge.transform import balances, ledger, reconciliation
from balance_bridge.transform.snapshot import Snapshot

SETTLED_S = 60
_DAY_MS = 86_400_000


def asked_by(day: object) -> str:
    """Who fetches: the same for all runs of a day, so that a broken chain is fetched again once, not each time."""
    return f"intraday {day}"


def run(job: Job, destinations: Sequence[BalanceRequest]) -> dict[str, Any] | None:
    """Fetch what is new and work out what each destination is to get.

    Args:
        job: The account and the UTC day that is going on.
        destinations: What each destination asks for; only its points for a day that is going on count.

    Returns:
        ``status`` and ``summary`` of the chain, counts, the instant ``until_ms`` (UTC milliseconds) before which
        balances can be settled, and the keys of the ``balances`` per destination. None where the day has no opening
        snapshot (of files: no file of changes) yet, or is over.

    Raises:
        RequestRefused: The exchange does not have changes that it should have.
        ReconciliationBroken: If the chain of balances does not hold, also when fetched once more.
        BudgetExhausted: As the source's budget decides; called again, it goes on where it was.
    """
    if job.source.today() != job.day:
        job.log(f"{job.day} is over: its daily run takes it from here")
        return None
    try:
        first, history, book, proof = _fetch(job)
    except NotYetAvailable as error:
        job.log(f"there is nothing of {job.day} to follow yet: {error}")
        return None
    opening = first.snapshot
    # The closing instant is the day's, so that the balances at steps are those after the records before them.
    closing = Snapshot(proof.closing.sn, opening.at_ms + _DAY_MS, proof.closing.balances)
    # By the exchange's clock, whatever ours says; and the closing instant is the daily run's.
    until_ms = (int(history.known_at or 0) - SETTLED_S) * 1000
    until_ms = min(max(until_ms, opening.at_ms), closing.at_ms)
    place = f"intraday/{job.account}/{job.day}"
    keys: dict[str, str] = {}
    counts: dict[str, int] = {}
    for request in destinations:
        known = replace(request, points=known_so_far(request.points))
        if not known.points:
            continue
        frame = balances.balances_at(opening, closing, book, known).frame
        frame = _settled(frame, known, until_ms, closing.at_ms)
        counts[request.name] = len(frame)
        keys[request.name] = job.store.append(f"{place}/{request.name}", ".parquet", balances.to_parquet(frame))
    summary = f"the chain holds up to sn {closing.sn} ({proof.records} records)"
    job.log(f"{job.account} {job.day} so far: {summary}; balances: {counts}")
    document = {"account": job.account, "day": job.day.isoformat(), "until_ms": until_ms, "balances": keys}
    report = {**document, "opening": first.key, "history": history.generation}
    return {
        "day": job.day.isoformat(),
        "status": SO_FAR,
        "summary": summary,
        "sn": closing.sn,
        "records": proof.records,
        "pages_fetched": history.fetched,
        "until_ms": until_ms,
        "report": job.store.append(place, ".json", to_json({**report, **proof.to_document()})),
        "balances": keys,
        "counts": counts,
    }


def _settled(frame: pd.DataFrame, request: BalanceRequest, until_ms: int, close_ms: int) -> pd.DataFrame:
    """The balances before an instant whose keys no instant from then on has."""
    at = frame["at"].astype("int64[pyarrow]").to_numpy(np.int64)
    settled = at < until_ms
    if request.key == "local_second":
        # A clock that goes back will show again what it has shown already.
        ahead = local_seconds(np.arange(until_ms, close_ms + 1, 1000), request.zone)
        settled = local_seconds(at, request.zone) < ahead.min()
    return frame.loc[settled].reset_index(drop=True)


def _fetch(job: Job) -> tuple[StoredSnapshot, StoredHistory, pd.DataFrame, reconciliation.Reconciliation]:
    """The opening snapshot, the changes so far, they as a ledger, and the chain of balances up to the last record."""
    message = ""
    for again in (None, "the chain did not hold"):
        extraction = job.extraction(again)
        try:
            opening = extraction.snapshot(job.day)
            history = extraction.history(job.day, opening, None, to_empty=again is not None)
            book = ledger.build_ledger(history.legs)
            proof = reconciliation.reconcile_so_far(opening.snapshot, book, opening.snapshot.at_ms + _DAY_MS)
            if proof.status != "broken":
                return opening, history, book, proof
            message = proof.summary()
        except Contradiction as error:
            message = str(error)
        job.log(f"the chain of balances does not hold; fetching the day once more before that is believed: {message}")
    raise ReconciliationBroken(
        f"{job.account} {job.day} so far does not add up, nothing more of it is delivered",
        why=message,
        do="Wait for the day's own run, which fetches it again before it believes that",
    )
