"""Seeded histories of faults, deaths and corrections, against a tenant that remembers everything."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import AnswerLost, BalanceBridgeError, NotReached
from balance_bridge.load.audit import outcomes
from balance_bridge.load.numbers import rfc3339

DAY_MS = 86_400_000
FAULTS = ["none", "none", "lost", "unsent", "busy", "fault", "garbage", "no results", "refused", "killed"]


class Killed(BaseException):
    """The process is gone."""


class FaultyTenant:
    """Each request meets the next fault; some faults strike after the tenant has taken the balances."""

    def __init__(self, kit, server) -> None:
        self.kit = kit
        self.server = server
        self.faults: list[tuple[str, bool]] = []
        self.contents: dict[str, dict] = {}

    def __call__(self, body):
        kit = self.kit
        fault, applied = self.faults.pop(0) if self.faults else ("none", True)
        if fault in ("unsent", "busy", "refused"):
            unapplied = {"unsent": NotReached("down"), "busy": kit.answer({}, 429), "refused": kit.answer({}, 401)}
            return unapplied[fault]
        whole = self.server(body) if applied or fault in ("none", "no results") else None
        after = {
            "lost": AnswerLost("gone"),
            "fault": kit.answer({}, 500),
            "garbage": kit.answer(body=b"<html>"),
            "no results": kit.answer({"results": []}),
            "killed": Killed(),
        }
        return after.get(fault, whole)

    def check(self, transport) -> None:
        for index in range(len(transport.requests)):
            for record in transport.rows(index):
                known = self.contents.setdefault(record["communicationNumber"], record)
                assert known == record, "a number went out with two contents"


def balances_of(kit, day_index: int, amounts: list[int]):
    """Both days have the midnight between them, and an instant of which each thinks that it is its own."""
    close = kit.CLOSE_MS + day_index * DAY_MS
    rows = [
        kit.balance("A", str(amounts[0]), at_ms=close),
        kit.balance("A", str(amounts[1]), at_ms=close - DAY_MS, points="open"),
        kit.balance("B", str(amounts[2]), at_ms=close - DAY_MS // 2, points="changes"),
        kit.balance("C", str(amounts[3]), at_ms=kit.CLOSE_MS + 5, points="changes"),
    ]
    return [row for row in rows if row.amount]


def run_once(kit, tenant, store, day_index, balances, faults) -> bool:
    tenant.faults = list(faults)
    transport = kit.FakeTransport(tenant)
    try:
        kit.run(kit.amlyze(transport, max_rows=2), store, balances, day=kit.DAY + timedelta(days=day_index))
    except (Killed, BalanceBridgeError):
        return False
    finally:
        tenant.check(transport)
    return True


def finish(kit, tenant, store, day_index, balances) -> None:
    for _ in range(3):
        if run_once(kit, tenant, store, day_index, balances, []):
            return
    raise AssertionError("a run without faults does not end")


SCRIPT = st.lists(st.tuples(st.sampled_from(FAULTS), st.booleans()), max_size=4)
AMOUNTS = st.lists(st.integers(0, 3), min_size=4, max_size=4)
ORDER = st.sampled_from([(0, 1), (1, 0)])


# Slow: hundreds of whole histories, each of up to nine deliveries.
@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), SCRIPT), max_size=6), ORDER)
def test_without_corrections_every_key_is_accepted_exactly_once(kit, runs, order):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    tenant = FaultyTenant(kit, server)
    # The balance at the shared midnight is the same for both days.
    balances = [balances_of(kit, 0, [1, 2, 3, 4]), balances_of(kit, 1, [5, 1, 6, 4])]
    for day_index, faults in runs:
        run_once(kit, tenant, store, day_index, balances[day_index], faults)
    for day_index in order:
        finish(kit, tenant, store, day_index, balances[day_index])
    keys = {(f"CASH-{row.asset}", row.at_ms) for rows in balances for row in rows}
    assert len(server.delivered()) == len(set(server.delivered())) == len(keys)


# Slow: as above.
@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), AMOUNTS, SCRIPT), max_size=6), AMOUNTS, AMOUNTS, ORDER)
def test_with_corrections_the_destination_holds_the_last_balance_of_the_day_that_ranks_highest(
    kit, runs, first, second, order
):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    tenant = FaultyTenant(kit, server)
    for day_index, amounts, faults in runs:
        run_once(kit, tenant, store, day_index, balances_of(kit, day_index, amounts), faults)
    final = [balances_of(kit, 0, first), balances_of(kit, 1, second)]
    for day_index in order:
        finish(kit, tenant, store, day_index, final[day_index])
    # A day that no longer has a balance leaves what it delivered before; those keys say nothing here.
    had = {(i, row.asset, row.at_ms) for i, a, _ in runs for row in balances_of(kit, i, a)}
    now = {(i, row.asset, row.at_ms): row.amount for i in (0, 1) for row in final[i]}
    held = {(record["accountExtId"], record["balanceAt"]): record["value"] for record in server.accepted}
    days = [kit.DAY + timedelta(days=i) for i in (0, 1)]
    told = {row.key: row.outcome for day in days for row in outcomes(store, "main_cash", day, "amlyze")}
    for asset, at_ms in {(asset, at_ms) for _, asset, at_ms in now}:
        days = [i for i in (0, 1) if (i, asset, at_ms) in now]
        if any((i, asset, at_ms) in had and i not in days for i in (0, 1)):
            continue
        # The day to which the instant belongs: the first one for the shared midnight, the second for C's.
        owner = days[0] if len(days) == 1 or asset == "A" else 1
        (key,) = [key for key in told if key.startswith(f"CASH-{asset} ") and key.endswith(rfc3339(at_ms))]
        account, at = key.split(" ")
        assert held[account, at] == now[owner, asset, at_ms]
        assert told[key] in ("accepted", "seen")
        assert isinstance(held[account, at], Decimal)
