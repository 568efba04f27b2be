"""Balances at points in time: what one destination is to get of one day, one row per key.

Points are instants. The balance at an instant is a snapshot's at that snapshot's time, else the one after the last
record, by sequence number, among those whose time is not later; before the first, the opening one. Times need not rise
with sequence numbers, so "the last record by time" would be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from balance_bridge.errors import ConfigurationError
from balance_bridge.localtime import local_midnights, local_seconds, local_texts
from balance_bridge.points import POINT_NAMES, parse_step_ms
from balance_bridge.transform import parquet
from balance_bridge.transform.columns import (
    Int64,
    LedgerColumns,
    Mask,
    group_starts,
    ledger_columns,
    pair_keys,
    sort_order,
)
from balance_bridge.transform.decimals import array_of
from balance_bridge.transform.schema import BALANCES, INSTANT
from balance_bridge.transform.snapshot import Snapshot, check_order

FORMAT = "balances/1"
MAX_COLLIDED = 100
_MAX_POINTS = 62


@dataclass(frozen=True)
class Collision:
    """A balance that is not delivered, because another one has its key.

    Attributes:
        asset: The asset.
        at_ms: Its instant, UTC milliseconds.
        local_text: The instant in the destination's zone, cut to the second.
        kept_at_ms: The instant that is delivered instead; None where the key is the opening instant's and belongs to
            the day before.
    """

    asset: str
    at_ms: int
    local_text: str
    kept_at_ms: int | None


@dataclass(frozen=True)
class Balances:
    """What one destination is to get.

    Attributes:
        frame: Columns as ``schema.BALANCES``, all of them Arrow's, sorted by (at, asset), one row per key.
        collisions: How many instants lost their key to another one.
        collided: The first of them by (at, asset), at most 100.
    """

    frame: pd.DataFrame
    collisions: int = 0
    collided: tuple[Collision, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """The collisions as JSON can hold them, for the report."""
        return {"count": self.collisions, "first": [vars(collision) for collision in self.collided]}


@dataclass(frozen=True)
class _Candidates:
    """Pairs of asset and instant that some point asks for: each once, sorted by (code, at)."""

    code: Int64
    at: Int64
    asked: Int64  # one bit per point, by its place in the sequence of points


def balances_at(
    opening: Snapshot,
    closing: Snapshot,
    ledger: pd.DataFrame,
    points: Sequence[str],
    zone: str,
    key: Literal["instant", "local_second"],
) -> Balances:
    """The balances of every asset at the points that a destination asks for.

    Assets are those that are not zero in either snapshot, and those that the ledger touches.

    Args:
        opening: The day's first snapshot.
        closing: Its last one.
        ledger: As ``build_ledger`` makes it, of the records between the snapshots.
        points: ``open``, ``close``, ``changes``, ``local_midnight`` and steps such as ``every 1h``.
        zone: The destination's IANA zone: for ``local_midnight``, and for the key ``local_second``.
        key: What identifies a balance at the destination besides its asset: the instant, or its local text, cut to
            the second. Where several instants share a text, a snapshot's wins, else the latest. The key of the opening
            instant belongs to the day before and is left to it, unless ``open`` is asked for.

    Raises:
        ConfigurationError: If a point or the zone is unknown.
        BadAnswer: If the snapshots do not follow each other, or a time lies outside the years 1 to 9999.
        InvalidAmount: If a snapshot holds an amount that cannot be held exactly.
    """
    check_order(opening, closing)
    asked = list(dict.fromkeys(points))
    grid = _grid(opening, closing, asked, zone)
    held = {asset for snapshot in (opening, closing) for asset, amount in snapshot.balances.items() if amount}
    columns = ledger_columns(ledger, held)
    pool = pa.concat_arrays([columns.balance, *(_amounts(snapshot, columns.assets) for snapshot in (opening, closing))])
    candidates, source = _candidates(columns, grid, _changes_bit(asked), opening.at_ms, closing.at_ms)
    winner = _winners(candidates, opening.at_ms, closing.at_ms, zone, key, keep_open="open" in asked)

    kept = np.flatnonzero(winner == np.arange(len(winner)))
    order = sort_order(pair_keys(candidates.at[kept], candidates.code[kept]))
    kept = kept if order is None else kept[order]
    frame = _frame(candidates, columns.assets, kept, pool.take(pa.array(source[kept])), asked)
    return Balances(frame, len(winner) - len(kept), _collided(candidates, columns.assets, winner, zone))


def to_parquet(frame: pd.DataFrame) -> bytes:
    """Write the frame of :class:`Balances`; the same frame gives the same bytes."""
    return parquet.write(frame, BALANCES, FORMAT)


def from_parquet(data: bytes) -> pd.DataFrame:
    """Read the frame of :class:`Balances`.

    Raises:
        StoreDamaged: If the data is not one that this release can read.
    """
    return parquet.read(data, BALANCES, FORMAT)


def _grid(opening: Snapshot, closing: Snapshot, asked: list[str], zone: str) -> dict[int, int]:
    """The instants that are asked for of every asset, each with the bits of the points that do."""
    if len(asked) > _MAX_POINTS:
        raise ConfigurationError(f"{len(asked)} points are asked for: {_MAX_POINTS} is the most")
    grid: dict[int, int] = {}
    for place, point in enumerate(asked):
        for instant in _instants(opening.at_ms, closing.at_ms, point, zone):
            grid[instant] = grid.get(instant, 0) | 1 << place
    return grid


def _instants(open_ms: int, close_ms: int, point: str, zone: str) -> Sequence[int]:
    if point == "open":
        return [open_ms]
    if point == "close":
        return [close_ms]
    if point == "changes":
        return []
    if point == "local_midnight":
        return local_midnights(open_ms, close_ms, zone)
    try:
        step_ms = parse_step_ms(point)
    except ValueError as error:
        raise ConfigurationError(f"{point!r} is no point: {', '.join(POINT_NAMES)} or a step; {error}") from error
    # A step divides the day, and the epoch is a midnight: its multiples are the steps counted from each UTC midnight.
    return range((open_ms // step_ms + 1) * step_ms, close_ms + 1, step_ms)


def _changes_bit(asked: list[str]) -> int:
    return 1 << asked.index("changes") if "changes" in asked else 0


def _candidates(
    columns: LedgerColumns, grid: dict[int, int], changes_bit: int, open_ms: int, close_ms: int
) -> tuple[_Candidates, Int64]:
    """What is asked for, and where its balance lies: a ledger's row, else the opening ones, else the closing ones."""
    rows, count = len(columns), len(columns.assets)
    code = np.concatenate([columns.code, np.repeat(np.arange(count), len(grid))])
    at = np.concatenate([columns.at, np.tile(np.array(list(grid), np.int64), count)])
    bits = np.concatenate([np.full(rows, changes_bit), np.tile(np.array(list(grid.values()), np.int64), count)])
    keys = pair_keys(code, at)

    order = sort_order(keys[:rows])
    in_time = np.arange(rows) if order is None else order
    # Rows are sorted by (asset, sn): the largest row among those up to an instant is the last one by sn.
    newest = np.maximum.accumulate(in_time) if rows else in_time
    record_keys = keys[:rows][in_time]

    wanted = np.arange(0 if changes_bit else rows, len(keys))
    by_key = sort_order(keys[wanted])
    wanted = wanted if by_key is None else wanted[by_key]
    starts = group_starts(keys[wanted])
    unique = wanted[starts]
    asked = np.bitwise_or.reduceat(bits[wanted], starts) if len(starts) else bits[:0]
    candidates = _Candidates(code[unique], at[unique], asked)

    source = rows + candidates.code
    found = np.searchsorted(record_keys, keys[unique], side="right") - 1
    has_record = np.flatnonzero(found >= 0)
    row = newest[found[has_record]]
    same = columns.code[row] == candidates.code[has_record]
    source[has_record[same]] = row[same]
    for instant, place in ((open_ms, rows), (close_ms, rows + count)):
        at_snapshot = candidates.at == instant
        source[at_snapshot] = place + candidates.code[at_snapshot]
    return candidates, source


def _winners(candidates: _Candidates, open_ms: int, close_ms: int, zone: str, key: str, *, keep_open: bool) -> Int64:
    """Per candidate the place of the one that is delivered under its key, or -1 if none is."""
    places = np.arange(len(candidates.at))
    if key == "instant":
        return places if keep_open else np.where(candidates.at == open_ms, -1, places)
    local = local_seconds(candidates.at, zone)
    keys = pair_keys(candidates.code, local)
    order = sort_order(keys)
    order = places if order is None else order
    starts = group_starts(keys[order])
    group = np.empty(len(places), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(places))))

    # Equal keys are left in order of time, so the last of each group is the latest; snapshots go before it.
    best = order[np.append(starts[1:], len(places))[: len(starts)] - 1]
    for instant in (close_ms, open_ms):
        at_snapshot = np.flatnonzero(candidates.at == instant)
        best[group[at_snapshot]] = at_snapshot
    winner: Int64 = best[group]
    if not keep_open:
        winner[local == local_seconds([open_ms], zone)[0]] = -1
    return winner


def _frame(
    candidates: _Candidates, assets: list[str], kept: Int64, balance: pa.Array, asked: list[str]
) -> pd.DataFrame:
    sets = pa.array(candidates.asked[kept]).dictionary_encode()
    texts = [
        ",".join(point for place, point in enumerate(asked) if bits >> place & 1)
        for bits in sets.dictionary.to_pylist()
    ]
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(candidates.code[kept]), pa.array(assets, pa.string())).cast(
            pa.string()
        ),
        pa.array(candidates.at[kept]).cast(INSTANT),
        balance,
        pa.DictionaryArray.from_arrays(sets.indices, pa.array(texts, pa.string())).cast(pa.string()),
    ]
    return parquet.to_frame(pa.table(columns, schema=BALANCES))


def _collided(candidates: _Candidates, assets: list[str], winner: Int64, zone: str) -> tuple[Collision, ...]:
    lost: Mask = winner != np.arange(len(winner))
    losers = np.flatnonzero(lost)
    losers = losers[np.lexsort((candidates.code[losers], candidates.at[losers]))][:MAX_COLLIDED]
    texts = local_texts(candidates.at[losers], zone)
    return tuple(
        Collision(
            asset=assets[candidates.code[place]],
            at_ms=int(candidates.at[place]),
            local_text=text,
            kept_at_ms=int(candidates.at[winner[place]]) if winner[place] >= 0 else None,
        )
        for place, text in zip(losers.tolist(), texts, strict=True)
    )


def _amounts(snapshot: Snapshot, assets: list[str]) -> pa.Array:
    return array_of(snapshot.balances.get(asset, Decimal(0)) for asset in assets)
