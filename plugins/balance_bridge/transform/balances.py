"""Balances at points in time: what one destination is to get of one day, one row per key.

A day is (open, close]. Its records are those between the sequence numbers of its snapshots; one whose time lies outside
the day is moved to the nearest instant inside.

Points are instants. The balance at an instant is the one after the last record, by sequence number, among those whose
time is not later; before the first, the opening snapshot's, and at the closing instant the closing one's. Times need
not rise with sequence numbers, so "the last record by time" would be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from balance_bridge.errors import ConfigurationError
from balance_bridge.localtime import Int64, local_midnights, local_seconds, new_seconds
from balance_bridge.points import POINT_NAMES, BalanceRequest, parse_step_ms
from balance_bridge.transform import parquet
from balance_bridge.transform.ledger import snapshot_rows
from balance_bridge.transform.schema import BALANCES
from balance_bridge.transform.snapshot import Snapshot, check_order

FORMAT = parquet.Format("balances/2", BALANCES)
to_parquet, from_parquet = FORMAT.write, FORMAT.read
MAX_COLLIDED = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Balances:
    """What one destination is to get.

    Attributes:
        frame: Columns as ``schema.BALANCES``, all of them Arrow's, sorted by (at, asset), one row per key.
        collisions: How many instants lost their key to another one.
        collided: The first of them by (at, asset), at most 100: ``asset``, ``at_ms`` (UTC), ``local_text`` (its key, in
            the destination's zone), and ``kept_at_ms``, the instant that is delivered instead; None where the key
            belongs to another day.
        moved: How many records were moved into the day, or to a key of its own.
    """

    frame: pd.DataFrame
    collisions: int = 0
    collided: tuple[dict[str, Any], ...] = ()
    moved: int = 0

    def to_document(self) -> dict[str, Any]:
        """The collisions as JSON can hold them, for the report."""
        return {"count": self.collisions, "first": list(self.collided)}


def balances_at(opening: Snapshot, closing: Snapshot, ledger: pd.DataFrame, request: BalanceRequest) -> Balances:
    """The balances of every asset at the points that a destination asks for.

    Assets are those that are not zero in either snapshot, and those that the ledger touches.

    Args:
        opening: The day's first snapshot.
        closing: Its last one.
        ledger: As ``build_ledger`` makes it, of the records between the snapshots.
        request: What the destination asks for. Where several instants of the day share a local text that is the key, a
            snapshot's wins, else the latest. A key of another day is left to it.

    Raises:
        ConfigurationError: If a point or the zone is unknown.
        InvalidResponse: If the snapshots do not follow each other, or a time lies outside the years 1 to 9999.
        InvalidAmount: If a snapshot holds an amount that cannot be held exactly.
    """
    check_order(opening, closing)
    seconds = new_seconds(opening.at_ms, closing.at_ms, request.zone) if request.key == "local_second" else None
    records, moved = _in_day(ledger, opening.at_ms, closing.at_ms, seconds)
    held = {asset for snapshot in (opening, closing) for asset, amount in snapshot.balances.items() if amount}
    assets = sorted(held.union(records["asset"].unique()))
    asked = _asked(_grid(opening.at_ms, closing.at_ms, request), request, assets, records)
    found = pd.merge_asof(asked, _timeline(opening, closing, records, assets), on="at", by="asset")
    kept, collided = found, found.head(0)
    if seconds is not None:
        found["snapshot"] = found["at"].isin([opening.at_ms, closing.at_ms])
        found["local"] = local_seconds(found["at"].to_numpy(), request.zone)
        # Under each of the day's own local texts a snapshot's balance is delivered, or else the latest.
        own = (found["at"] == opening.at_ms) | (found["at"] // 1000).isin(seconds)
        best = found[own].sort_values(["snapshot", "at"]).drop_duplicates(["asset", "local"], keep="last")
        kept, collided = found.loc[found.index.isin(best.index)], found.loc[~found.index.isin(best.index)]
    kept = _left_to_others(kept, opening.at_ms, closing.at_ms, request)
    table = pa.Table.from_pandas(kept[BALANCES.names], schema=BALANCES, preserve_index=False)
    return Balances(parquet.to_frame(table), len(collided), _collisions(collided, kept), moved)


def _grid(open_ms: int, close_ms: int, request: BalanceRequest) -> dict[int, list[str]]:
    """The instants in [open, close] at which every asset is asked for, and the points that ask, in their order."""
    grid: dict[int, list[str]] = {}
    for point in dict.fromkeys(request.points):
        for at in _instants(open_ms, close_ms, point, request.zone):
            grid.setdefault(at, []).append(point)
    if not request.delivers_opening(_day(open_ms)):
        grid.pop(open_ms, None)
    if not request.delivers_closing(_day(open_ms)):
        # The next day's opening; until the end it holds its key against the day's other instants.
        grid[close_ms] = ["open"]
    return grid


def _instants(open_ms: int, close_ms: int, point: str, zone: str) -> Sequence[int]:
    if point == "open":
        return [open_ms]
    if point == "close":
        return [close_ms]
    if point == "changes":
        return []
    if point == "local_midnight":
        return local_midnights(open_ms - 1, close_ms, zone)
    try:
        step_ms = parse_step_ms(point)
    except ValueError as error:
        raise ConfigurationError(f"{point!r} is no point: {', '.join(POINT_NAMES)} or a step; it {error}") from error
    # A step divides the day, and a day begins at midnight.
    return range(open_ms, close_ms + 1, step_ms)


def _in_day(ledger: pd.DataFrame, open_ms: int, close_ms: int, seconds: Int64 | None) -> tuple[pd.DataFrame, int]:
    """The ledger's balances with each time moved into the day, in the ledger's order, and how many records moved."""
    booked = ledger["at"].astype("int64[pyarrow]").astype("int64")
    at = booked.clip(open_ms + 1, close_ms)
    if seconds is not None:
        # The first second, from its own on, that is the day's; the closing one where there is none.
        own = pd.Index(seconds).union([close_ms // 1000])
        nearest = own[own.get_indexer(pd.Index(at // 1000), method="bfill")]
        at = at.where(at // 1000 == nearest, (nearest * 1000).to_series(index=at.index).clip(upper=close_ms))
    records = ledger[["sn", "asset", "balance"]].astype({"sn": "int64"}).assign(at=at)
    return records, records["sn"][at != booked].nunique()


def _timeline(opening: Snapshot, closing: Snapshot, records: pd.DataFrame, assets: list[str]) -> pd.DataFrame:
    """The balances that count: each is the newest by sequence number up to its instant."""
    first, last = (snapshot_rows(each, assets).astype({"sn": "int64", "at": "int64"}) for each in (opening, closing))
    # In order of sequence numbers; a stable sort keeps that among equal instants.
    timeline = pd.concat([first, records, last], ignore_index=True).sort_values("at", kind="stable")
    newest = timeline["sn"] == timeline.groupby("asset", sort=False)["sn"].cummax()
    return timeline.loc[newest, ["asset", "at", "balance"]]


def _asked(
    grid: dict[int, list[str]], request: BalanceRequest, assets: list[str], records: pd.DataFrame
) -> pd.DataFrame:
    """Each asset and instant that some point asks for, once, in order of instants, and the points that do."""
    instants = pd.DataFrame({"at": list(grid), "points": [",".join(points) for points in grid.values()]})
    instants = instants.astype({"at": "int64"})
    asked = pd.DataFrame({"asset": assets}, dtype=records["asset"].dtype).merge(instants, how="cross")
    if "changes" in request.points:
        order = dict.fromkeys(request.points)
        texts = {
            at: ",".join(point for point in order if point in {"changes", *grid[at]})
            for at in grid.keys() & set(records["at"])
        }
        changes = records[["asset", "at"]].drop_duplicates()
        changes["points"] = [texts.get(at, "changes") for at in changes["at"]]
        asked = pd.concat([asked, changes]).drop_duplicates(["at", "asset"], keep="last")
    return asked.sort_values(["at", "asset"], ignore_index=True)


def _left_to_others(found: pd.DataFrame, open_ms: int, close_ms: int, request: BalanceRequest) -> pd.DataFrame:
    """What this day delivers of its two midnights.

    Where the next day delivers a midnight as its opening, this one still delivers what has come to nothing by then: the
    next day may know nothing of it. So only the account's first day delivers a zero at its opening.
    """
    day, nothing = _day(open_ms), found["balance"] == 0
    opens = nothing & (found["at"] == open_ms) & (day != request.start)
    closes = ~(nothing & (_day(close_ms) != request.start)) & (found["at"] == close_ms)
    return found[~(opens | (closes & (not request.delivers_closing(day))))]


def _collisions(collided: pd.DataFrame, kept: pd.DataFrame) -> tuple[dict[str, Any], ...]:
    if collided.empty:
        return ()
    first = collided.head(MAX_COLLIDED)
    # As Arrow's integers, because numpy's would become floats where no instant is kept.
    winners = kept.loc[kept["local"].isin(first["local"]), ["asset", "local", "at"]].astype({"at": "int64[pyarrow]"})
    pairs = first.merge(winners, on=["asset", "local"], how="left", suffixes=("", "_kept"))
    return tuple(
        {
            "asset": pair["asset"],
            "at_ms": pair["at"],
            "local_text": str(pair["local"]),
            "kept_at_ms": None if pd.isna(pair["at_kept"]) else pair["at_kept"],
        }
        for pair in pairs.to_dict("records")
    )


def _day(at_ms: int) -> date:
    return (_EPOCH + timedelta(milliseconds=at_ms)).date()
