"""What is decided about each balance, and in which requests it goes."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import delivery_kit as kit
from balance_bridge.errors import BalanceBridgeError, ConfigurationError, InvalidAmount, ResponseLost
from balance_bridge.load.documents import Action, Row
from balance_bridge.load.fold import fold
from balance_bridge.load.log import DayLog
from balance_bridge.load.numbers import number_prefix
from balance_bridge.load.plan import OTHER_KEY, OTHER_SETTINGS, Decider, decides_the_same, refuse_shared_keys
from doubles import Killed, MemoryStore, examples

SOME = settings(max_examples=examples(30), deadline=None)
OK = {"status": "success", "data": True}


def decide(store, destination, balances, account="main_cash", **options) -> tuple[list[Row], dict[int, bytes]]:
    folded = fold(DayLog(store, "main_cash", kit.DAY, destination.name).read())
    prefix = number_prefix("bb", account, destination.name)
    return Decider(destination, prefix, folded, **options).decide(destination.prepare(balances))


def attempt(row: Row) -> str:
    return row.number.rpartition("-")[2]


def history(*steps: tuple[str, str], **options) -> Any:
    """A log in which BTC's balance was sent with an amount and an ending, once per step."""
    store = MemoryStore()
    for ending, amount in steps:
        server = kit.FakeAmlyzeServer()
        if ending == "rejected":
            server.refuse["CASH-BTC"] = "404"
        if ending == "seen":
            # The request before this one was lost.
            server.used |= {f"bb-main_cash.amlyze-BTC-20261121T000000000Z-{count}" for count in range(1, 9)}
        transport = kit.FakeTransport(ResponseLost("gone") if ending == "unknown" else server)
        if ending == "unsent":
            store.before_put = lambda key: kill(key)
        with suppress(BalanceBridgeError, Killed):
            kit.run(kit.amlyze(transport, **options), store, [kit.balance(amount=amount)])
        store.before_put = lambda _: None
    return store


def kill(key: str) -> None:
    if key.endswith(".try.jsonl"):
        raise Killed


SEND, KEEP = Action.SEND, Action.KEEP
NEW_KEY, NEW_SETTINGS = {"account_ext_id": "NEW-{asset}"}, {"balance_type": "other"}


@pytest.mark.parametrize(
    ("steps", "changed", "redeliver", "action", "number", "replaces", "supersedes", "text"),
    [
        # Nothing may have arrived: it is sent, under its next number.
        ([], {}, False, SEND, "1", "", "", ""),
        ([("unsent", "1")], {}, False, SEND, "1", "", "", ""),
        ([("unsent", "2")], {}, False, SEND, "2", "", "", ""),
        ([("unsent", "1")], NEW_KEY, False, SEND, "2", "", "", ""),
        ([("rejected", "1")], {}, False, SEND, "2", "1", "", ""),
        ([("rejected", "1")], NEW_KEY, False, SEND, "2", "1", "", ""),
        ([("rejected", "1"), ("unsent", "1")], {}, False, SEND, "2", "1", "", ""),
        # The same amount is held, settled: it is kept.
        ([("accepted", "1")], {}, False, KEEP, "1", "", "", ""),
        ([("accepted", "1")], {}, True, KEEP, "1", "", "", ""),
        ([("unknown", "1"), ("seen", "1")], {}, False, KEEP, "1", "", "", ""),
        ([("accepted", "1"), ("rejected", "2")], {}, False, KEEP, "1", "", "", ""),
        # The same amount is held, unknown: the very same record again.
        ([("unknown", "1")], {}, False, SEND, "1", "", "", ""),
        ([("unknown", "1")], NEW_KEY, False, SEND, "1", "", "", OTHER_KEY),
        ([("unknown", "1")], NEW_SETTINGS, False, SEND, "1", "", "", OTHER_SETTINGS),
        # Another amount is held: the next number, which names the one before.
        ([("accepted", "2")], {}, False, SEND, "2", "1", "2", ""),
        ([("unknown", "2")], {}, False, SEND, "2", "1", "", ""),
        ([("accepted", "1"), ("unknown", "2")], {}, False, SEND, "3", "2", "1", ""),
        ([("accepted", "1"), ("accepted", "2")], {}, False, SEND, "3", "2", "2", ""),
        ([("accepted", "2"), ("rejected", "3")], {}, False, SEND, "3", "2", "2", ""),
        ([("accepted", "2")], NEW_KEY, False, SEND, "2", "1", "2", ""),
        # Delivered under another key or with other settings: kept and said, or with redeliver sent again.
        ([("accepted", "1")], NEW_KEY, False, KEEP, "1", "", "", OTHER_KEY),
        ([("accepted", "1")], NEW_KEY, True, SEND, "2", "1", "1", ""),
        ([("unknown", "1")], NEW_KEY, True, SEND, "2", "1", "", ""),
        ([("accepted", "1")], NEW_SETTINGS, False, KEEP, "1", "", "", OTHER_SETTINGS),
        ([("accepted", "1")], NEW_SETTINGS, True, SEND, "2", "1", "1", ""),
        ([("unknown", "1")], NEW_SETTINGS, True, SEND, "2", "1", "", ""),
    ],
)
def test_each_balance_is_treated_as_the_decision_table_says(
    steps, changed, redeliver, action, number, replaces, supersedes, text
):
    store = history(*steps)
    (row,), _ = decide(store, kit.amlyze(None, **changed), [kit.balance(amount="1")], redeliver=redeliver)
    found = row.action, attempt(row), row.replaces.rpartition("-")[2], row.supersedes, row.text
    assert found == (action, number, replaces, supersedes, text)


def test_what_goes_again_under_its_number_is_the_very_same_record_whatever_the_settings_are_by_now():
    store = history(("unknown", "1"))
    first = kit.folded(store).numbers["bb-main_cash.amlyze-BTC-20261121T000000000Z-1"].row
    for changed in ({}, NEW_KEY, NEW_SETTINGS, {"requester": "somebody else"}):
        (row,), _ = decide(store, kit.amlyze(None, **changed), [kit.balance(amount="1")])
        assert (row.number, row.wire, row.key) == (first.number, first.wire, first.key)


def test_every_balance_is_in_the_plan_once_in_order_of_instant_and_asset():
    destination = kit.amlyze(None, account_ext_id={"A": "1", "B": "2"}, assets={"SPAM": "ignore"})
    due = [kit.balance(asset, at_ms=at) for at in (7, 3) for asset in ("SPAM", "B", "NONE", "A")]
    rows, _ = decide(MemoryStore(), destination, due)
    assert [row.balance for row in rows] == sorted(
        (each.asset, each.at_ms) for each in due if each.at_ms == 3
    ) + sorted((each.asset, each.at_ms) for each in due if each.at_ms == 7)
    assert [str(row.action) for row in rows[:4]] == ["send", "send", "reject", "ignore"]


def test_a_number_that_would_be_too_long_is_rejected_before_sending():
    (row,), bodies = decide(MemoryStore(), kit.amlyze(None), [kit.balance("X" * 255)])
    assert (row.action, bodies) == (Action.REJECT, {})
    assert "255 are allowed" in row.text


def test_two_balances_with_one_key_are_refused_by_name():
    destination = kit.elven(None, assets={"XBT": {"symbol": "BTC"}})
    rows = destination.prepare([kit.balance("BTC"), kit.balance("XBT")])
    with pytest.raises(ConfigurationError, match=r"BTC at .* and XBT at .* have one key"):
        refuse_shared_keys(destination, rows)


def test_plans_of_other_balances_never_decide_the_same():
    store = history(("accepted", "1"))
    plan = kit.folded(store).events.newest_plan
    assert decides_the_same(plan, plan)
    for name, value in (("generation", "balances/0002"), ("so_far", True), ("rows", [])):
        other = type(plan)(**{each: getattr(plan, each) for each in plan.__struct_fields__} | {name: value})
        assert not decides_the_same(plan, other)


# --- packing ---


@SOME
@given(st.lists(st.integers(1, 200), max_size=60, unique=True), st.integers(1, 9), st.integers(1000, 1600))
def test_no_row_is_lost_or_doubled_and_no_limit_is_exceeded(lengths, max_rows, max_bytes):
    destination = kit.elven(None, max_rows=max_rows, max_bytes=max_bytes)
    rows, bodies = decide(MemoryStore(), destination, [kit.balance("X" * length) for length in lengths])
    sent = [row for row in rows if row.action is SEND]
    assert [row.batch for row in sent] == sorted(row.batch for row in sent)
    assert set(bodies) == {row.batch for row in sent} == set(range(1, len(bodies) + 1))
    for batch, body in bodies.items():
        wires = [row.wire for row in sent if row.batch == batch]
        assert body == destination.encode(wires)
        assert len(body) <= max_bytes
        assert 1 <= len(wires) <= max_rows
    # No request ends early: the next row would not have fitted.
    for row, following in pairwise(sent):
        if following.batch > row.batch:
            more = len(bodies[row.batch]) + 1 + len(destination.encode_row(following.wire))
            assert sum(each.batch == row.batch for each in sent) == max_rows or more > max_bytes


def test_a_row_fits_up_to_the_last_byte_and_one_that_does_not_is_rejected_before_sending():
    destination = kit.elven(None)
    (row,), bodies = decide(MemoryStore(), destination, [kit.balance()])
    destination.max_bytes = len(bodies[1])
    assert decide(MemoryStore(), destination, [kit.balance()]) == ([row], bodies)
    destination.max_bytes -= 1
    (row,), bodies = decide(MemoryStore(), destination, [kit.balance()])
    assert (row.action, bodies) == (Action.REJECT, {})
    assert f"exceeds max_bytes ({destination.max_bytes})" in row.text


@SOME
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 4), st.integers(0, 5))
def test_a_whole_batch_that_is_sent_again_is_the_very_same_request_and_goes_first(count, max_rows, lost, more):
    """Rows that were added since, before or between, do not change what may have arrived."""
    store, bodies = MemoryStore(), []

    def serve(body):
        bodies.append(body)
        return ResponseLost("gone") if len(bodies) > lost else kit.response(OK)

    due = [kit.balance(f"M{index:02d}") for index in range(count)]
    with suppress(BalanceBridgeError):
        kit.run(kit.elven(kit.FakeTransport(serve), max_rows=max_rows), store, due)
    added = [kit.balance(f"{name}{index:02d}") for index in range(more) for name in ("A", "M0", "Z")]
    rows, again = decide(store, kit.elven(None, max_rows=max_rows), [*added, *due])
    if len(bodies) > lost:
        assert again[1] == bodies[-1]
    sent = {row.asset for row in rows if row.action is SEND}
    accepted = {f"M{index:02d}" for index in range(min(count, lost * max_rows))}
    assert sent == {each.asset for each in (*added, *due)} - accepted


def refused_as_a_whole(count: int, max_rows: int, *, lost: bool) -> Any:
    """A log in which every request was refused for a bad record, and none was divided."""
    store, due = MemoryStore(), [kit.balance(f"A{index:02d}") for index in range(count)]
    refused = kit.response({"status": "failed", "data": {"code": 19734, "message": "no"}}, 400)
    for reply in [ResponseLost("gone"), refused] if lost else [refused]:
        with suppress(BalanceBridgeError):
            kit.run(kit.elven(kit.FakeTransport(reply), max_rows=max_rows, bisect_codes=()), store, due)
    return store, due, kit.folded(store, "elven").events.newest_plan


@SOME
@given(st.integers(2, 40), st.integers(1, 40), st.booleans())
def test_the_halves_of_a_divided_request_hold_its_rows_in_order_and_nothing_else(count, max_rows, lost):
    """Those that were refused alone go together, behind everything else."""
    store, due, plan = refused_as_a_whole(count, max_rows, lost=lost)
    batches = [[row.asset for row in rows] for rows in plan.batches().values()]
    rows, bodies = decide(store, kit.elven(None, max_rows=max_rows), due)
    expected = [half for each in batches if len(each) > 1 for half in halved(each)]
    alone = [asset for each in batches if len(each) == 1 for asset in each]
    expected += [alone[start : start + max_rows] for start in range(0, len(alone), max_rows)]
    assert sent_together(rows) == expected
    assert len(bodies) == len(expected)
    # What may have arrived keeps its number; a number that was refused for certain is used up.
    before = {row.asset: row.number for row in plan.rows}
    kept = {row.asset for row in rows if row.number == before[row.asset]}
    assert kept == (set(batches[0]) if lost else set())


@SOME
@given(st.integers(2, 40), st.integers(2, 40), st.booleans())
def test_a_run_that_divides_sends_nothing_else_again(count, max_rows, lost):
    store, due, plan = refused_as_a_whole(count, max_rows, lost=lost)
    first = plan.batches()[1]
    kept = [row for row in plan.rows if row not in first]
    rows, _ = decide(store, kit.elven(None, max_rows=max_rows), due, kept=kept)
    assert sent_together(rows) == halved([row.asset for row in first])
    others = [row.number for row in plan.rows if row.batch != 1]
    assert [row.number for row in rows if not row.batch] == others


def halved(assets: list[str]) -> list[list[str]]:
    middle = len(assets) - len(assets) // 2
    return [assets[:middle], assets[middle:]]


def sent_together(rows: list[Row]) -> list[list[str]]:
    found: dict[int, list[str]] = {}
    for row in rows:
        if row.batch:
            found.setdefault(row.batch, []).append(row.asset)
    return [found[batch] for batch in sorted(found)]


def test_what_may_have_arrived_goes_again_as_it_was_even_if_it_exceeds_a_lowered_limit():
    store = MemoryStore()
    lost = kit.FakeTransport(ResponseLost("gone"))
    with suppress(BalanceBridgeError):
        kit.run(kit.elven(lost), store, [kit.balance("A")])
    lowered = kit.elven(None)
    lowered.max_bytes = len(lost.requests[0].body) - 1
    rows, bodies = decide(store, lowered, [kit.balance("A"), kit.balance("B")])
    assert [(row.asset, row.action) for row in rows] == [("A", SEND), ("B", Action.REJECT)]
    assert bodies == {1: lost.requests[0].body}


# --- within one run, what it had rejected stays rejected ---


@pytest.mark.parametrize(("run_id", "action", "later"), [("run-a", KEEP, 0), ("run-b", SEND, 1)])
@pytest.mark.parametrize("before", [[], [("accepted", "1")]])
def test_what_a_run_had_rejected_goes_again_only_in_another_run(before, run_id, action, later):
    """A first delivery as well as a correction."""
    store, server = history(*before), kit.FakeAmlyzeServer()
    server.refuse["CASH-BTC"] = "404"
    with suppress(BalanceBridgeError):
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance()], run_id="run-a")
    (row,), _ = decide(store, kit.amlyze(None), [kit.balance()], run_id=run_id)
    assert (row.action, attempt(row)) == (action, str(1 + len(before) + later))


def test_what_a_run_is_dividing_goes_on_when_the_same_run_is_tried_again():
    store, due, _ = refused_as_a_whole(5, 4, lost=False)
    (run_id,) = {plan.run_id for plan in kit.folded(store, "elven").events.plans.values()}
    rows, _ = decide(store, kit.elven(None), due, run_id=run_id)
    # The fifth was refused alone: it waits for another run.
    assert sent_together(rows) == [["A00", "A01"], ["A02", "A03"]]
    assert [row.action for row in rows][-1] is KEEP


# --- what is held under another key ---


MAPS = {"BTC": "X", "ETH": "Y"}, {"BTC": "Y", "ETH": "X"}


def test_two_mappings_that_change_places_send_both_under_their_new_keys_once_one_is_sent():
    store, transport = MemoryStore(), kit.FakeTransport(kit.FakeAmlyzeServer())
    before, after = (kit.amlyze(transport, account_ext_id=each) for each in MAPS)
    kit.run(before, store, [kit.balance("BTC", "1"), kit.balance("ETH", "7")])
    # As long as nothing is corrected, both stay where they are.
    rows, _ = decide(store, after, [kit.balance("BTC", "1"), kit.balance("ETH", "7")])
    assert [(row.action, row.text) for row in rows] == [(KEEP, OTHER_KEY)] * 2
    rows, _ = decide(store, after, [kit.balance("BTC", "2"), kit.balance("ETH", "7")])
    assert [(row.action, row.key[0], row.supersedes) for row in rows] == [(SEND, "Y", "1"), (SEND, "X", "7")]


def test_two_mappings_that_change_places_end_right_also_if_their_request_is_divided():
    """In the parts as well, nothing stays under a key that something else takes."""
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    due = [kit.balance("BTC", "1"), kit.balance("ETH", "7")]
    kit.run(kit.amlyze(kit.FakeTransport(server), account_ext_id=MAPS[0]), store, due)
    refused = kit.response({"resultType": "REQUEST_REJECTED", "errorCode": "O001"}, 400)
    corrected = [kit.balance("BTC", "2"), kit.balance("ETH", "7")]
    destination = kit.amlyze(kit.FakeTransport(refused, server), account_ext_id=MAPS[1])
    summary = kit.run(destination, store, corrected)
    assert (summary.divided, summary.accepted_now) == (1, 2)
    assert {each["accountExtId"]: str(each["value"]) for each in server.accepted} == {"Y": "2", "X": "7"}


def test_what_is_unknown_under_a_key_that_another_balance_takes_is_sent_under_its_own():
    store = MemoryStore()
    with suppress(BalanceBridgeError):
        lost = kit.FakeTransport(ResponseLost("gone"))
        kit.run(kit.amlyze(lost, account_ext_id=MAPS[0]), store, [kit.balance("ETH", "7")])
    rows, _ = decide(store, kit.amlyze(None, account_ext_id=MAPS[1]), [kit.balance("BTC"), kit.balance("ETH", "7")])
    assert [(row.action, row.key[0], attempt(row)) for row in rows] == [(SEND, "Y", "1"), (SEND, "X", "2")]


def test_what_another_balance_has_overwritten_under_an_old_key_is_sent_under_its_own():
    """A redelivery under swapped keys that stopped half way: the first balance stands where the second one stood."""
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    due = [kit.balance("BTC", "1"), kit.balance("ETH", "7")]
    kit.run(kit.amlyze(kit.FakeTransport(server), account_ext_id=MAPS[0]), store, due)
    cut = kit.FakeTransport(server, kit.response({}, 401))
    with suppress(BalanceBridgeError):
        kit.run(kit.amlyze(cut, account_ext_id=MAPS[1], max_rows=1), store, due, redeliver=True)
    kit.run(kit.amlyze(kit.FakeTransport(server), account_ext_id=MAPS[1]), store, due)
    assert {each["accountExtId"]: str(each["value"]) for each in server.accepted} == {"Y": "1", "X": "7"}


# --- what stands on the wire ---

AMOUNTS = st.decimals(min_value=-(10**19), max_value=10**19, places=18, allow_nan=False, allow_infinity=False) | (
    st.integers(-(10**37), 10**37).map(lambda units: Decimal(units).scaleb(-18))
)


@SOME
@given(st.lists(AMOUNTS, min_size=1, max_size=5))
def test_the_wire_carries_the_identical_amounts_without_float_or_exponent(amounts):
    for make in (kit.elven, kit.amlyze):
        destination = make(None)
        balances = [kit.balance(f"A{index}", str(amount)) for index, amount in enumerate(amounts)]
        rows, bodies = decide(MemoryStore(), destination, balances)
        # Whatever is neither text nor an integer passes through Decimal; nothing may have an exponent.
        found = json.loads(bodies[1], parse_float=Decimal, parse_int=Decimal)
        records = found if isinstance(found, list) else found["accountBalances"]
        assert [each[destination.amount_field] for each in records] == amounts
        assert all(f'"{destination.amount_field}":{row.amount}' in bodies[1].decode() for row in rows)
        assert not any("e" in row.amount.lower() or row.amount == "-0" for row in rows)


@pytest.mark.parametrize("text", ["1e5", "NaN", "", "01", "+1", "1.", '1,"x":2', "1\n", "--1", "Infinity"])
def test_nothing_but_plain_digits_stands_unquoted_in_a_request(text):
    with pytest.raises(InvalidAmount):
        kit.amlyze(None).encode_row({"value": text})
