from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from balance_bridge import money
from balance_bridge.errors import InvalidAmount, InvalidResponse
from balance_bridge.transform.ledger import build_ledger
from balance_bridge.transform.reconciliation import (
    MAX_BREAKS,
    Break,
    Reconciliation,
    Snapshot,
    reconcile,
    reconcile_so_far,
)
from balance_bridge.transform.schema import LEDGER

DAY_MS = 86_400_000
QUICK = settings(max_examples=20, deadline=None)


def amount(units: int) -> Decimal:
    return Decimal(units).scaleb(-18, money.EXACT)


def prove(history: Any, **changes: Any) -> Reconciliation:
    ledger = build_ledger(history.legs())
    return reconcile(changes.get("opening", history.opening), changes.get("closing", history.closing), ledger)


def expected(opening: Snapshot, closing: Snapshot, records: Any, tolerance: dict[str, Decimal]) -> tuple[Any, Any, str]:
    """Breaks as a set, drift, and status, asset by asset and record by record."""
    assets = {asset for snapshot in (opening, closing) for asset, value in snapshot.balances.items() if value}
    assets |= {asset for record in records for asset in record.after}
    breaks, drift = set(), {}
    for asset in assets:
        balance, good, total = opening.balances.get(asset, Decimal(0)), opening.sn, Decimal(0)
        for record in records:
            if asset not in record.after:
                continue
            delta, found = amount(record.delta(asset)), amount(record.after[asset])
            missing = money.EXACT.subtract(found, money.EXACT.add(balance, delta))
            if missing:
                breaks.add(("chain", asset, missing, good, record.sn))
            balance, good, total = found, record.sn, money.EXACT.add(total, delta)
        end = closing.balances.get(asset, Decimal(0))
        missing = money.EXACT.subtract(end, balance)
        if missing.copy_abs() > tolerance.get(asset, Decimal(0)):
            breaks.add(("conservation", asset, missing, good, closing.sn))
        off = money.EXACT.subtract(end, money.EXACT.add(opening.balances.get(asset, Decimal(0)), total))
        if off:
            drift[asset] = off
    return breaks, drift, "broken" if breaks else "tolerated" if drift else "proven"


@given(st.data())
@QUICK
def test_every_true_history_is_proven(world: SimpleNamespace, data: st.DataObject) -> None:
    history = data.draw(world.histories())
    proof = prove(history)
    touched = {asset for record in history.records for asset in record.after}
    assert (proof.status, proof.drift, proof.breaks, proof.break_count) == ("proven", {}, (), 0)
    assert proof.records == len(history.records)
    assert proof.assets == len(touched | {asset for asset, units in history.before.items() if units})
    assert proof.summary().startswith("proven: opening + changes = closing")


@given(st.data())
@QUICK
def test_records_whose_time_is_not_the_days_are_named_and_are_no_break(
    world: SimpleNamespace, data: st.DataObject
) -> None:
    history = data.draw(world.histories())
    proof = prove(history)
    sns = [r.sn for r in history.records if not history.open_ms < r.at <= history.open_ms + DAY_MS]
    assert (proof.outside_count, list(proof.outside)) == (len(sns), sns)
    assert proof.status == "proven"


@given(st.data())
@QUICK
def test_a_dropped_record_is_caught_between_the_named_sequence_numbers(
    world: SimpleNamespace, data: st.DataObject
) -> None:
    history = data.draw(world.histories())
    assume(history.records)
    dropped = data.draw(st.sampled_from(history.records))
    moved = {asset for asset in dropped.after if dropped.delta(asset)}
    assume(moved)
    proof = prove(history.without(dropped), closing=history.closing)
    assert proof.status == "broken"
    assert {found.asset for found in proof.breaks} == moved
    assert len(proof.breaks) == len(moved)
    for found in proof.breaks:
        assert found.last_good_sn < dropped.sn <= found.first_bad_sn
        assert found.amount == amount(dropped.delta(found.asset))
        assert found.asset in proof.summary()


@given(st.data())
@QUICK
def test_an_altered_change_or_balance_is_caught_at_its_record(world: SimpleNamespace, data: st.DataObject) -> None:
    history = data.draw(world.histories())
    ledger = build_ledger(history.legs())
    assume(len(ledger))
    row = data.draw(st.integers(0, len(ledger) - 1))
    column = data.draw(st.sampled_from(["delta", "balance"]))
    value = data.draw(world.UNITS.map(amount))
    assume(value != ledger[column].iloc[row])
    ledger[column] = pd.Series(
        [*ledger[column].iloc[:row], value, *ledger[column].iloc[row + 1 :]], dtype=ledger[column].dtype
    )
    proof = reconcile(history.opening, history.closing, ledger, {asset: Decimal(10**19) for asset in world.ASSETS})
    sn, asset = ledger["sn"].iloc[row], ledger["asset"].iloc[row]
    assert proof.status == "broken"
    assert any(b.asset == asset and b.kind == "chain" and b.last_good_sn < sn == b.first_bad_sn for b in proof.breaks)
    assert {found.asset for found in proof.breaks} == {asset}


@pytest.mark.slow  # random histories, each proven a second time in plain Python
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_proof_is_what_a_record_by_record_check_gives_for_any_corruption(
    world: SimpleNamespace, data: st.DataObject
) -> None:
    history = data.draw(world.histories())
    small = st.integers(-3, 3)
    records = []
    for record in history.records:
        off = data.draw(st.sampled_from([0, 0, 0, 1]))
        after = {
            a: max(-(10**38) + 1, min(10**38 - 1, u + (data.draw(small) if off else 0)))
            for a, u in record.after.items()
        }
        if not data.draw(st.sampled_from([False, False, False, True])):
            records.append(replace(record, after=after))
    corrupt = replace(history, records=tuple(records))
    closing = history.closing
    if data.draw(st.booleans()):
        asset = data.draw(st.sampled_from(world.ASSETS))
        closing = replace(closing, balances={**closing.balances, asset: amount(data.draw(small))})
    tolerance = data.draw(st.dictionaries(st.sampled_from(world.ASSETS), st.integers(0, 4).map(amount)))

    proof = reconcile(corrupt.opening, closing, build_ledger(corrupt.legs()), tolerance)
    breaks, drift, status = expected(corrupt.opening, closing, corrupt.records, tolerance)
    assert {(b.kind, b.asset, b.amount, b.last_good_sn, b.first_bad_sn) for b in proof.breaks} == breaks
    assert (proof.drift, proof.status, proof.break_count) == (drift, status, len(breaks))
    assert [(b.first_bad_sn, b.asset) for b in proof.breaks] == sorted((b.first_bad_sn, b.asset) for b in proof.breaks)


@given(st.data())
@QUICK
def test_what_is_missing_adds_up_to_the_drift_and_is_reported_exactly(
    world: SimpleNamespace, data: st.DataObject
) -> None:
    history = data.draw(world.histories())
    kept = [record for record in history.records if data.draw(st.booleans())]
    proof = prove(replace(history, records=tuple(kept)), closing=history.closing)
    missing: dict[str, Decimal] = {}
    for found in proof.breaks:
        missing[found.asset] = money.EXACT.add(missing.get(found.asset, Decimal(0)), found.amount)
    assert {asset: value for asset, value in missing.items() if value} == proof.drift
    # The same in the report, whose amounts are text.
    document = json.loads(json.dumps(proof.to_document()))
    assert document["version"] == 1
    assert document["status"] == proof.status
    assert {asset: money.parse(text) for asset, text in document["drift"].items()} == proof.drift
    assert [money.parse(found["amount"]) for found in document["breaks"]] == [b.amount for b in proof.breaks]
    assert not any("E" in found["amount"] for found in document["breaks"])


def chain(*steps: tuple[int, str, str, str], at_ms: int = 1) -> pd.DataFrame:
    """A ledger of (sn, asset, delta, balance)."""
    frame = pd.DataFrame(
        {
            "sn": [step[0] for step in steps],
            "at": pd.to_datetime([at_ms] * len(steps), unit="ms", utc=True),
            "kind": "order",
            "event": "Limit",
            "order_id": "x",
            "asset": [step[1] for step in steps],
            "delta": [Decimal(step[2]) for step in steps],
            "fee": [Decimal(0)] * len(steps),
            "balance": [Decimal(step[3]) for step in steps],
        }
    )
    return frame.astype({field.name: pd.ArrowDtype(field.type) for field in LEDGER})


def snapshot(sn: int, at_ms: int, **balances: str) -> Snapshot:
    return Snapshot(sn, at_ms, {asset: Decimal(text) for asset, text in balances.items()})


OPEN = snapshot(10, 0, BTC="1", USDT="5")
TRUE_CHAIN = (
    (12, "BTC", "0.5", "1.5"),
    (14, "BTC", "-0.25", "1.25"),
    (17, "BTC", "1", "2.25"),
)


def test_a_days_last_record_that_is_missing_is_one_break_at_its_end() -> None:
    proof = reconcile(OPEN, snapshot(20, 100, BTC="2.25", USDT="5"), chain(*TRUE_CHAIN[:2]))
    assert proof.breaks == (Break("conservation", "BTC", Decimal(1), 14, 20),)
    assert proof.drift == {"BTC": Decimal(1)}
    assert proof.summary().splitlines() == [
        "broken: opening + changes is not closing, or not at every record (2 records, 2 assets, sn 10 to 20)",
        "BTC: 1 unexplained between sn 14 (last good) and sn 20 (first bad): "
        "the closing snapshot is not the balance after the last record",
    ]


def test_a_record_missing_in_the_middle_is_one_break_where_it_was() -> None:
    proof = reconcile(OPEN, snapshot(20, 100, BTC="2.25", USDT="5"), chain(TRUE_CHAIN[0], TRUE_CHAIN[2]))
    assert proof.breaks == (Break("chain", "BTC", Decimal("-0.25"), 12, 17),)
    assert proof.drift == {"BTC": Decimal("-0.25")}
    assert "BTC: -0.25 unexplained between sn 12 (last good) and sn 17 (first bad)" in proof.summary()


def test_a_wrong_balance_breaks_two_links_though_the_sums_agree() -> None:
    wrong = (TRUE_CHAIN[0], (14, "BTC", "-0.25", "1.26"), TRUE_CHAIN[2])
    proof = reconcile(OPEN, snapshot(20, 100, BTC="2.25", USDT="5"), chain(*wrong))
    assert proof.breaks == (
        Break("chain", "BTC", Decimal("0.01"), 12, 14),
        Break("chain", "BTC", Decimal("-0.01"), 14, 17),
    )
    assert (proof.status, proof.drift) == ("broken", {})


def test_an_asset_that_moved_without_a_record_breaks_between_the_snapshots() -> None:
    proof = reconcile(OPEN, snapshot(20, 100, BTC="1", USDT="4"), chain())
    assert proof.breaks == (Break("conservation", "USDT", Decimal(-1), 10, 20),)


def test_absent_is_zero_in_both_snapshots() -> None:
    ledger = chain((12, "BTC", "-1", "0"), (13, "ETH", "2", "2"))
    proof = reconcile(OPEN, snapshot(20, 100, USDT="5", ETH="2", XRP="0"), ledger)
    assert (proof.status, proof.assets) == ("proven", 3)


def test_a_drift_within_the_tolerance_is_let_pass_and_recorded() -> None:
    closing = snapshot(20, 100, BTC="2.26", USDT="5")
    proof = reconcile(OPEN, closing, chain(*TRUE_CHAIN), {"BTC": Decimal("0.01"), "USDT": Decimal(0)})
    assert (proof.status, proof.breaks) == ("tolerated", ())
    assert proof.to_document()["drift"] == {"BTC": "0.01"}
    assert proof.to_document()["tolerance"] == {"BTC": "0.01"}
    assert proof.summary().splitlines()[1] == "BTC: drift 0.01, tolerance 0.01"
    less = reconcile(OPEN, closing, chain(*TRUE_CHAIN), {"BTC": Decimal("0.009999999999999999"), "USDT": Decimal(9)})
    assert (less.status, less.drift) == ("broken", {"BTC": Decimal("0.01")})


def test_a_tolerance_never_excuses_the_chain() -> None:
    proof = reconcile(
        OPEN, snapshot(20, 100, BTC="2.25", USDT="5"), chain(TRUE_CHAIN[0], TRUE_CHAIN[2]), {"BTC": Decimal(100)}
    )
    assert (proof.status, [found.kind for found in proof.breaks]) == ("broken", ["chain"])


def test_a_day_without_records_is_proven_by_equal_snapshots() -> None:
    assert reconcile(OPEN, replace(OPEN, at_ms=100), chain()).status == "proven"


def test_amounts_that_fill_every_digit_do_not_hide_a_break() -> None:
    largest = "99999999999999999999.99"
    proof = reconcile(snapshot(1, 0, A=largest), snapshot(9, 1, A=largest), chain((2, "A", largest, largest)))
    assert [(found.kind, found.amount) for found in proof.breaks] == [("chain", -Decimal(largest))]
    below = "-" + largest
    proof = reconcile(snapshot(1, 0, A=largest), snapshot(9, 1, A=below), chain((2, "A", largest, below)))
    assert proof.breaks[0].amount == Decimal("-299999999999999999999.97")
    assert "-299999999999999999999.97 unexplained" in proof.summary()


def test_a_gap_of_twice_the_largest_amount_is_told() -> None:
    largest = "99999999999999999999.99"
    proof = reconcile(snapshot(1, 0, A=largest), snapshot(9, 1, A="-" + largest), chain())
    assert proof.breaks == (Break("conservation", "A", Decimal("-199999999999999999999.98"), 1, 9),)
    assert proof.drift == {"A": Decimal("-199999999999999999999.98")}


def test_a_flood_of_breaks_is_counted_and_cut() -> None:
    steps = [(sn, "A", "1", "0") for sn in range(2, MAX_BREAKS + 502)]
    proof = reconcile(snapshot(1, 0), snapshot(MAX_BREAKS + 600, 100, A="7"), chain(*steps))
    assert (proof.break_count, len(proof.breaks)) == (len(steps) + 1, MAX_BREAKS)
    assert [found.first_bad_sn for found in proof.breaks] == list(range(2, MAX_BREAKS + 2))
    assert proof.summary().splitlines()[-1] == f"and {len(steps) + 1 - 10} more"
    assert len(proof.summary().splitlines()) == 12


def test_times_outside_the_day_are_counted_and_cut() -> None:
    steps = [(sn, "A", "0", "0") for sn in range(2, 302)]
    proof = reconcile(snapshot(1, 50), snapshot(400, 100), chain(*steps, at_ms=50))
    assert (proof.outside_count, proof.outside, proof.status) == (300, tuple(range(2, 102)), "proven")
    assert proof.summary().endswith("2, 3, 4, 5, 6, 7, 8, 9, 10, 11, and 290 more")


@pytest.mark.parametrize(
    ("closing", "text"),
    [
        (snapshot(9, 100), "sn 9 is below the opening one's 10"),
        (snapshot(20, 0), "time 0 is not after the opening one's 0"),
        (snapshot(20, -1), "time -1 is not after the opening one's 0"),
    ],
)
def test_snapshots_in_the_wrong_order_are_refused(closing: Snapshot, text: str) -> None:
    with pytest.raises(InvalidResponse, match=text):
        reconcile(OPEN, closing, chain())


@pytest.mark.parametrize("sn", [10, 21])
def test_a_record_that_is_not_between_the_snapshots_is_refused(sn: int) -> None:
    with pytest.raises(InvalidResponse, match=rf"sn {sn}, which is not in \(10, 20\]"):
        reconcile(OPEN, snapshot(20, 100), chain((sn, "BTC", "0", "1")))


def test_a_snapshots_amount_that_cannot_be_held_is_refused() -> None:
    with pytest.raises(InvalidAmount):
        reconcile(snapshot(1, 0, A="1E+20"), snapshot(2, 1), chain())


LARGEST = 10**38 - 1
UNITS = st.integers(-LARGEST, LARGEST) | st.integers(-9, 9) | st.sampled_from([LARGEST, -LARGEST, 2**64, -(2**126)])


@given(
    st.lists(st.tuples(UNITS, st.sampled_from([0, 0, 1, -1, 2**64, 2**127, 2**128]) | UNITS), min_size=1, max_size=8),
    UNITS,
)
@settings(max_examples=60, deadline=None)
def test_a_link_is_a_break_exactly_where_its_integers_do_not_add_up(steps: list[tuple[int, int]], first: int) -> None:
    """Over all 38 digits: no sum wraps around, and none is rounded."""
    before, rows, breaks = first, [], {}
    for sn, (delta, off) in enumerate(steps, start=2):
        after = max(-LARGEST, min(LARGEST, before + delta + off))
        if after != before + delta:
            breaks[sn] = amount(after - before - delta)
        rows.append((sn, "A", str(amount(delta)), str(amount(after))))
        before = after
    proof = reconcile(Snapshot(1, 0, {"A": amount(first)}), Snapshot(99, 100, {"A": amount(before)}), chain(*rows))
    assert {found.first_bad_sn: found.amount for found in proof.breaks} == breaks
    drift = before - first - sum(delta for delta, _ in steps)
    assert proof.drift == ({"A": amount(drift)} if drift else {})


@pytest.mark.slow  # each example is proven three times
@given(st.data())
@QUICK
def test_a_day_so_far_is_proven_like_a_day_that_ends_with_its_last_record(
    world: SimpleNamespace, data: st.DataObject
) -> None:
    history = data.draw(world.histories())
    records = []
    for record in history.records:
        off = data.draw(st.sampled_from([0, 0, 0, 1]))
        if data.draw(st.sampled_from([True, True, True, False])):
            records.append(replace(record, after={a: max(u - off, 1 - 10**38) for a, u in record.after.items()}))
    so_far = replace(history, records=tuple(records))
    ledger = build_ledger(so_far.legs())
    proof = reconcile_so_far(history.opening, ledger, history.closing.at_ms)
    held = {asset: amount(units) for asset, units in so_far.after.items() if units}
    last = max([history.open_sn, *(record.sn for record in records)])
    assert proof.closing == Snapshot(last, max([history.open_ms, *(record.at for record in records)]), held)
    whole = reconcile(history.opening, replace(history.closing, sn=last, balances=held), ledger)
    assert replace(proof, closing=whole.closing) == whole
    assert {found.kind for found in proof.breaks} <= {"chain"}
    assert proof.status == ("broken" if proof.breaks else "proven")


def test_a_day_so_far_is_dated_by_the_latest_time_whatever_its_place_and_names_what_is_outside_the_day() -> None:
    rows = [chain((sn, "BTC", "1", str(sn - 10)), at_ms=at) for sn, at in ((11, 40), (12, 170), (13, 50))]
    proof = reconcile_so_far(Snapshot(10, 0, {}), pd.concat(rows, ignore_index=True), 100)
    assert (proof.closing, proof.status) == (Snapshot(13, 170, {"BTC": Decimal(3)}), "proven")
    assert proof.outside == (12,)


def test_a_day_so_far_without_a_record_is_its_opening_snapshot() -> None:
    opening = Snapshot(10, 7, {"BTC": Decimal("1.5"), "ETH": Decimal(0)})
    proof = reconcile_so_far(opening, chain(), 100)
    assert (proof.status, proof.closing, proof.records) == ("proven", Snapshot(10, 7, {"BTC": Decimal("1.5")}), 0)


def test_a_record_of_the_day_before_is_refused_in_a_day_so_far() -> None:
    with pytest.raises(InvalidResponse, match=r"sn 10, which is not in \(10, 12\]"):
        reconcile_so_far(OPEN, chain((10, "BTC", "0", "1"), (12, "BTC", "0", "1")), 100)


def test_amounts_are_reported_without_trailing_zeros() -> None:
    proof = reconcile(OPEN, snapshot(20, 100, BTC="101", USDT="5.50"), chain())
    assert [str(found.amount) for found in proof.breaks] == ["1E+2", "0.5"]
    assert proof.to_document()["breaks"][0]["amount"] == "100"
