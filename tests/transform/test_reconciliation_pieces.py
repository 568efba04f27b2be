"""A day proven in pieces is the day proven at once."""

from __future__ import annotations

import pickle
from decimal import Decimal
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge import money
from balance_bridge.errors import InvalidResponse
from balance_bridge.transform.ledger import build_ledger
from balance_bridge.transform.reconciliation import MAX_BREAKS, MAX_OUTSIDE, Outside, Prover, Snapshot, reconcile
from balance_bridge.transform.schema import LEDGER


def bent(ledger: pd.DataFrame, data: st.DataObject) -> pd.DataFrame:
    """Some balances and changes made wrong, some records lost."""
    table = pa.Table.from_pandas(ledger, schema=LEDGER, preserve_index=False)
    rows = table.to_pylist()
    for row in rows:
        if data.draw(st.integers(0, 5)) == 0:
            name = data.draw(st.sampled_from(["delta", "balance"]))
            wrong = money.EXACT.add(row[name], data.draw(st.sampled_from([Decimal("1E-18"), Decimal(-7)])))
            row[name] = wrong if wrong.copy_abs() < money.LIMIT else Decimal(0)
    lost = data.draw(st.sets(st.sampled_from([row["sn"] for row in rows] or [0]), max_size=2))
    kept = pa.Table.from_pylist([row for row in rows if row["sn"] not in lost], schema=LEDGER)
    frame: pd.DataFrame = kept.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def pieces(ledger: pd.DataFrame, cuts: list[int]) -> list[pd.DataFrame]:
    """The ledger, divided before these sequence numbers; some pieces may be empty."""
    edges = [-1, *sorted(cuts), 1 << 62]
    sn = ledger["sn"].astype("int64[pyarrow]")
    return [ledger[(sn >= low) & (sn < high)].reset_index(drop=True) for low, high in pairwise(edges)]


@pytest.mark.slow  # eighty random histories, each proven at once and in pieces
@given(st.data())
@settings(max_examples=80, deadline=None)
def test_however_a_day_is_divided_the_proof_is_the_same(world: SimpleNamespace, data: st.DataObject) -> None:
    history = data.draw(world.histories())
    ledger = bent(build_ledger(history.legs()), data)
    sns = sorted(set(ledger["sn"].tolist()))
    cuts = data.draw(st.lists(st.sampled_from([*sns, 0]), max_size=4))
    allowed = st.sampled_from([Decimal(0), Decimal("1E-18"), Decimal(7), Decimal(10) ** 19])
    tolerance = data.draw(st.dictionaries(st.sampled_from(world.ASSETS), allowed))
    balances = dict(data.draw(st.sampled_from([history.closing, history.opening])).balances)
    if data.draw(st.booleans()):
        balances[data.draw(st.sampled_from([*world.ASSETS, "NEW"]))] = data.draw(allowed)
    closing = Snapshot(history.closing.sn, history.closing.at_ms, balances)
    prover = Prover(history.opening, closing.at_ms)
    for piece in pieces(ledger, cuts):
        prover.add(piece)
    assert prover.conclude(closing, tolerance) == reconcile(history.opening, closing, ledger, tolerance)


@pytest.mark.slow  # eighty random histories
@given(st.data())
@settings(max_examples=80, deadline=None)
def test_what_is_known_so_far_is_the_chain_up_to_its_last_record(world: SimpleNamespace, data: st.DataObject) -> None:
    history = data.draw(world.histories())
    ledger = bent(build_ledger(history.legs()), data)
    sns = sorted(set(ledger["sn"].tolist()))
    first, _ = pieces(ledger, [data.draw(st.sampled_from([*sns, 1 << 61]))])
    prover = Prover(history.opening, history.closing.at_ms)
    prover.add(first)
    so_far = prover.interim()
    # A snapshot of those very balances would break nothing more.
    closing = Snapshot(so_far.closing.sn, history.closing.at_ms, so_far.closing.balances)
    whole = reconcile(history.opening, closing, first)
    assert (so_far.breaks, so_far.break_count, so_far.records) == (whole.breaks, whole.break_count, whole.records)
    assert (so_far.status, so_far.outside) == ("broken" if whole.breaks else "proven", whole.outside)
    assert (so_far.drift, so_far.tolerance, so_far.assets) == ({}, {}, whole.assets)
    assert so_far.closing.sn == max([history.opening.sn, *first["sn"].tolist()])
    after = dict(history.opening.balances)
    after |= dict(zip(first["asset"], first["balance"], strict=True))
    assert so_far.closing.balances == {asset: balance for asset, balance in after.items() if balance}


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_look_in_between_changes_nothing(world: SimpleNamespace, data: st.DataObject) -> None:
    history = data.draw(world.histories())
    ledger = bent(build_ledger(history.legs()), data)
    prover = Prover(history.opening, history.closing.at_ms)
    for piece in pieces(ledger, sorted(set(ledger["sn"].tolist()))):
        prover.interim()
        prover.conclude(Snapshot(history.close_sn, history.closing.at_ms, {}))
        prover.add(piece)
    assert prover.conclude(history.closing) == reconcile(history.opening, history.closing, ledger)


def broken_and_late(first_sn: int, count: int) -> pd.DataFrame:
    """Records of two assets whose balances do not follow and whose times lie outside the day."""
    return pd.concat(
        [row(first_sn + index, asset="BTC" if index % 2 else "ETH", at=-5 if index % 3 else 500)
         for index in range(count)],
        ignore_index=True,
    )  # fmt: skip


def test_the_lists_of_breaks_and_of_records_outside_are_cut_where_those_of_the_whole_are() -> None:
    opening, closing = Snapshot(10, 0, {}), Snapshot(5000, 100, {"BTC": Decimal(5)})
    whole = broken_and_late(11, MAX_BREAKS + 50)
    prover = Prover(opening, closing.at_ms)
    for piece in pieces(whole, [12, 60, 11 + MAX_BREAKS, 11 + MAX_BREAKS + 20]):
        prover.add(piece)
    proof = prover.conclude(closing)
    assert proof == reconcile(opening, closing, whole)
    # The first record of each asset is right; the closing snapshot is not, for either.
    assert (len(proof.breaks), proof.break_count) == (MAX_BREAKS, MAX_BREAKS + 50 - 2 + 2)
    assert proof.outside == Outside(MAX_BREAKS + 50, tuple(range(11, 11 + MAX_OUTSIDE)))


def test_what_is_held_does_not_grow_with_the_records() -> None:
    prover, piece, held = Prover(Snapshot(10, 0, {}), 100), broken_and_late(0, 60), []
    for number in range(60):
        prover.add(piece.assign(sn=piece["sn"] + 11 + 60 * number))
        held.append(len(pickle.dumps(vars(prover))))
    assert prover.interim().records == 3600
    assert held[-1] < held[29] + 50  # a few numbers have become longer


def test_what_is_known_so_far_is_dated_by_the_latest_time_whatever_its_place() -> None:
    prover = Prover(Snapshot(10, 0, {}), 100)
    for sn, at in ((11, 40), (12, 70), (13, 50)):
        prover.add(row(sn, at=at))
    assert prover.interim().closing.at_ms == 70


def test_without_a_closing_instant_no_record_is_after_the_day() -> None:
    prover = Prover(Snapshot(10, 0, {}))
    prover.add(row(11, at=0))
    prover.add(row(12, at=86_400_001, balance=Decimal(2)))
    assert prover.interim().outside == Outside(1, (11,))


def test_a_piece_that_is_refused_leaves_no_trace() -> None:
    prover = Prover(Snapshot(10, 0, {}), 100)
    prover.add(row(11))
    before = prover.interim()
    with pytest.raises(InvalidResponse):
        prover.add(pd.concat([row(12, asset="ETH"), row(11)], ignore_index=True))
    assert prover.interim() == before


def test_pieces_must_follow_each_other() -> None:
    prover = Prover(Snapshot(10, 0, {}))
    prover.add(row(11))
    for sn in (11, 5):
        with pytest.raises(InvalidResponse, match=f"sn {sn}, which is not above sn 11"):
            prover.add(row(sn))
    with pytest.raises(InvalidResponse, match=r"sn 11, which is not in \(10, 10\]"):
        prover.conclude(Snapshot(10, 1, {}))


def row(sn: int, **changes: Any) -> pd.DataFrame:
    made = {
        "sn": sn,
        "at": 5,
        "kind": "balance",
        "event": "Deposit",
        "order_id": None,
        "asset": "BTC",
        "delta": Decimal(1),
        "fee": Decimal(0),
        "balance": Decimal(1),
    }
    frame: pd.DataFrame = pa.Table.from_pylist([made | changes], schema=LEDGER).to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def test_a_day_without_a_piece_is_proven_by_its_snapshots_alone() -> None:
    opening = Snapshot(10, 0, {"BTC": Decimal("1.5"), "ETH": Decimal(0)})
    assert Prover(opening, 9).conclude(Snapshot(10, 9, {"BTC": Decimal("1.50")})).status == "proven"
    assert Prover(opening, 9).conclude(Snapshot(10, 9, {})).status == "broken"
    assert Prover(opening).interim().closing == Snapshot(10, 0, {"BTC": Decimal("1.5")})
