"""The day that is still going on: its changes so far, and the balances that are settled by now.

What is fetched lies where the daily run of that day looks for it, so it goes on from there and asks for nothing twice;
and what is delivered is on the receipts of that day, so it delivers only what is new or has turned out differently.

A balance is settled once no later instant can have its key and its instant has been over for a minute: the exchange
books a record some time after it happened. A record that is booked later still is a correction, which the next run
delivers as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from balance_bridge.daily import SO_FAR, Job
from balance_bridge.errors import Contradiction, InvalidResponse, NotYetAvailable, ReconciliationBroken, StoreDamaged
from balance_bridge.extract.day import DayExtraction, StoredSnapshot
from balance_bridge.extract.pages import read_legs
from balance_bridge.localtime import local_seconds
from balance_bridge.points import BalanceRequest, known_so_far
from balance_bridge.store import to_json
from balance_bridge.transform import balances, ledger, reconciliation
from balance_bridge.transform.snapshot import Snapshot

SETTLED_S = 60
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class SoFar:
    """A day's changes so far, as the store has them.

    Attributes:
        opening: The snapshot at its start.
        history: The folder of the pages.
        proof: The chain of balances up to the last record.
        asked: Number of pages that had to be asked for now.
    """

    opening: StoredSnapshot
    history: str
    proof: reconciliation.Reconciliation
    asked: int


def asked_by(day: object) -> str:
    """Who asks: the same for all runs of a day, so that a broken chain is asked about once a day, not each time."""
    return f"intraday {day}"


def run(job: Job, destinations: Sequence[BalanceRequest]) -> dict[str, Any] | None:
    """Fetch what is new and work out what each destination is to get.

    Args:
        job: The account and the UTC day that is going on.
        destinations: What each destination asks for; only its points for a day that is going on count.

    Returns:
        ``status`` and ``summary`` of the chain, counts, the instant ``until_ms`` (UTC milliseconds) before which
        balances can be settled, and the keys of the ``balances`` per destination. None where the day has no opening
        snapshot yet, or is over.

    Raises:
        ReconciliationBroken: If the chain of balances does not hold, also when asked for once more.
        BudgetExhausted: As the source's budget decides; called again, it goes on where it was.
    """
    if job.source.today() != job.day:
        job.log(f"{job.day} is over: its daily run takes it from here")
        return None
    # Before anything is asked for: what is booked meanwhile may be in the answers or not.
    until_ms = (int(job.source.now()) - SETTLED_S) * 1000
    try:
        found = _fetch(job)
    except NotYetAvailable as error:
        job.log(f"the day has no opening snapshot yet ({error}): nothing to do")
        return None
    opening = found.opening.snapshot
    legs = read_legs(job.source, job.store, found.history, opening_sn=opening.sn)
    book = ledger.build_ledger(legs)
    # The closing instant is the day's, so that the balances at steps are those after the records before them.
    closing = Snapshot(found.proof.closing.sn, opening.at_ms + _DAY_MS, found.proof.closing.balances)
    place = f"intraday/{job.account}/{job.day}"
    keys: dict[str, str] = {}
    counts: dict[str, int] = {}
    for request in destinations:
        known = replace(request, points=known_so_far(request.points))
        frame = _settled(balances.balances_at(opening, closing, book, known).frame, known, until_ms, closing.at_ms)
        counts[request.name] = len(frame)
        keys[request.name] = job.store.append(f"{place}/{request.name}", ".parquet", balances.to_parquet(frame))
    summary = f"the chain holds up to sn {closing.sn} ({found.proof.records} records)"
    job.log(f"{job.account} {job.day} so far: {summary}; balances: {counts}")
    document = {"account": job.account, "day": job.day.isoformat(), "until_ms": until_ms, "balances": keys}
    report = {**document, "opening": found.opening.key, "history": found.history, **found.proof.to_document()}
    return {
        "day": job.day.isoformat(),
        "status": SO_FAR,
        "summary": summary,
        "sn": closing.sn,
        "records": found.proof.records,
        "pages_asked": found.asked,
        "until_ms": until_ms,
        "report": job.store.append(place, ".json", to_json(report)),
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


def _fetch(job: Job) -> SoFar:
    told = ""
    for extraction in (job.extraction(), job.extraction(again="the chain did not hold")):
        try:
            found = _extend(job, extraction)
            if found.proof.status != "broken":
                return found
            told = found.proof.summary()
        except Contradiction as error:
            told = str(error)
        job.log(f"the chain of balances does not hold; asking once more before it is believed: {told}")
    raise ReconciliationBroken(
        f"{job.account} {job.day} so far does not add up, nothing more of it is delivered before its daily run: {told}"
    )


def _extend(job: Job, extraction: DayExtraction) -> SoFar:
    opening = extraction.snapshot(job.day)
    history = extraction.history(job.day, opening, None)
    try:
        proof = _chain(job, opening.snapshot, history.generation)
    except StoreDamaged as error:
        job.log(f"the stored pages of {job.day} are not whole ({error}): going through them from the first")
        history = extraction.history(job.day, opening, None, verify_all=True)
        proof = _chain(job, opening.snapshot, history.generation)
    return SoFar(opening, history.generation, proof, history.asked)


def _chain(job: Job, opening: Snapshot, history: str) -> reconciliation.Reconciliation:
    try:
        legs = read_legs(job.source, job.store, history, opening_sn=opening.sn)
        return reconciliation.reconcile_so_far(opening, ledger.build_ledger(legs), opening.at_ms + _DAY_MS)
    except InvalidResponse as error:
        raise Contradiction(str(error)) from error
