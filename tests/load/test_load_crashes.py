"""A delivery that is killed at every step or meets every fault, and is run again until it ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import delivery_kit as kit
from balance_bridge.errors import BalanceBridgeError, ConnectionFailed, ResponseLost
from balance_bridge.load.fold import outcomes
from doubles import FakeClock, Killed, MemoryStore, examples


class Steps:
    """Counts the steps that have an effect and kills at one of them."""

    def __init__(self, kill_at: int) -> None:
        self.left = kill_at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


def balances_of():
    far = kit.balance("F", at_ms=kit.CLOSE_MS + 5 * 86_400_000, points="changes")
    return [*(kit.balance(f"A{index}", f"{index}.000000001") for index in range(5)), far]


# A place, its owner, a plan, and for each of three requests a try, a death before it, one after it, and a result.
STEPS = 3 + 3 * 4


@pytest.mark.parametrize("kill_at", range(1, STEPS + 2))
def test_wherever_a_delivery_is_killed_everything_is_accepted_once_in_the_end(kill_at):
    store, server, clock = MemoryStore(), kit.FakeAmlyzeServer(), FakeClock().clock
    steps = Steps(kill_at)
    store.before_put = lambda _: steps.step()

    def serve(body):
        steps.step()
        response = server(body)
        steps.step()
        return response

    transport = kit.FakeTransport(serve)
    balances = balances_of()
    killed = 0
    for _ in range(3):
        try:
            summary = kit.run(kit.amlyze(transport, max_rows=2), store, balances, clock=clock)
            break
        except Killed:
            killed += 1
    assert killed == (kill_at <= STEPS)
    assert {account for account, _ in server.delivered()} == {f"CASH-{each.asset}" for each in balances}
    assert len(server.accepted) == len(balances)
    assert summary.accepted_now + summary.accepted_before + summary.seen == len(balances)
    assert {str(record["value"]) for record in server.accepted} == {str(each.amount) for each in balances}
    # Once more: nothing is left to do.
    count = len(transport.requests)
    kit.run(kit.amlyze(transport, max_rows=2), store, balances, clock=clock)
    assert len(transport.requests) == count


@pytest.mark.parametrize("fault", [ResponseLost("gone"), ConnectionFailed("down"), ValueError("?"), "503", "cut"])
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_whatever_happens_to_one_request_everything_is_accepted_once_in_the_end(fault, applied, which):
    store, server, clock = MemoryStore(), kit.FakeAmlyzeServer(), FakeClock().clock
    asked = 0

    def serve(body):
        nonlocal asked
        asked += 1
        if asked != which:
            return server(body)
        if applied and not isinstance(fault, ConnectionFailed):
            server(body)
        if fault == "503":
            return kit.response({"resultType": "REQUEST_REJECTED", "status": 500}, 503)
        return kit.response(body=b'{"results": [') if fault == "cut" else fault

    transport = kit.FakeTransport(serve)
    balances = balances_of()
    for _ in range(3):
        try:
            summary = kit.run(kit.amlyze(transport, max_rows=2), store, balances, clock=clock)
            break
        except BalanceBridgeError:
            continue
    assert len(server.accepted) == len(set(server.delivered())) == len(balances)
    assert summary.accepted_now + summary.accepted_before + summary.seen == len(balances)
    assert summary.seen == (2 if applied and not isinstance(fault, ConnectionFailed) else 0)


def test_elven_gets_the_very_same_rows_again_after_a_lost_response():
    bodies = []

    def serve(body):
        bodies.append(body)
        return ResponseLost("gone") if len(bodies) == 2 else kit.response({"success": True})

    store, transport, clock = MemoryStore(), kit.FakeTransport(serve), FakeClock().clock
    balances = balances_of()
    for _ in range(2):
        try:
            kit.run(kit.elven(transport, max_rows=2), store, balances, clock=clock)
        except BalanceBridgeError:
            continue
    assert bodies[1] == bodies[2]
    assert len(set(bodies)) == 3
    assert len(bodies) == 4


# --- seeded histories of faults, deaths and corrections, against a tenant that remembers everything ---

FAULTS = [
    "none",
    "none",
    "lost",
    "unsent",
    "busy",
    "fault",
    "garbage",
    "no results",
    "no access",
    "gateway",
    "divides",
    "killed",
]


class FaultyTenant:
    """Each request meets the next fault; some faults strike after the tenant has taken the balances."""

    def __init__(self, server) -> None:
        self.server = server
        self.faults: list[tuple[str, bool]] = []
        self.contents: dict[str, dict] = {}

    def __call__(self, body):
        fault, applied = self.faults.pop(0) if self.faults else ("none", True)
        unapplied = {
            "unsent": ConnectionFailed("down"),
            "busy": kit.response({}, 429),
            "no access": kit.response({}, 401),
            "gateway": kit.response(None, 413, body=b"<html>too large</html>"),
            "divides": kit.response({"resultType": "REQUEST_REJECTED", "errorCode": "O001"}, 400),
        }
        if fault in unapplied:
            return unapplied[fault]
        whole = self.server(body) if applied or fault in ("none", "no results") else None
        after = {
            "lost": ResponseLost("gone"),
            "fault": kit.response({}, 500),
            "garbage": kit.response(body=b"<html>"),
            "no results": kit.response({"results": []}),
            "killed": Killed(),
        }
        return after.get(fault, whole)

    def check(self, transport) -> None:
        for index in range(len(transport.requests)):
            for record in transport.rows(index):
                known = self.contents.setdefault(record["communicationNumber"], record)
                assert known == record, "a number went out with two contents"


class History:
    """Runs of one day, at one tenant, with one store."""

    def __init__(self) -> None:
        self.store, self.server = MemoryStore(), kit.FakeAmlyzeServer()
        self.tenant, self.clock = FaultyTenant(self.server), FakeClock().clock
        self.generation = 0

    def run(self, balances, faults) -> bool:
        self.tenant.faults = list(faults)
        transport = kit.FakeTransport(self.tenant)
        options = {"clock": self.clock, "generation": f"balances/{self.generation:04}.parquet"}
        try:
            kit.run(kit.amlyze(transport, max_rows=2), self.store, balances, **options)
        except (Killed, BalanceBridgeError):
            return False
        finally:
            self.tenant.check(transport)
        reported = [each.outcome.status for each in outcomes(kit.folded(self.store))]
        assert len(reported) == len(balances)
        assert set(reported) <= {"accepted", "seen"}
        return True

    def finish(self, balances) -> None:
        for _ in range(3):
            if self.run(balances, []):
                return
        raise AssertionError("a run without faults does not end")


def due(amounts: list[int]):
    return [kit.balance(asset, str(amount)) for asset, amount in zip("ABCDE", amounts, strict=True)]


SCRIPT = st.lists(st.tuples(st.sampled_from(FAULTS), st.booleans()), max_size=4)
AMOUNTS = st.lists(st.integers(1, 3), min_size=5, max_size=5)


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(SCRIPT, max_size=6), AMOUNTS)
def test_without_corrections_every_key_is_accepted_exactly_once(scripts, amounts):
    history = History()
    for faults in scripts:
        history.run(due(amounts), faults)
    history.finish(due(amounts))
    assert len(history.server.delivered()) == len(set(history.server.delivered())) == 5


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(st.tuples(AMOUNTS, SCRIPT), max_size=6), AMOUNTS)
def test_with_corrections_the_destination_holds_the_last_balances_in_the_end(runs, last):
    history = History()
    for amounts, faults in runs:
        history.generation += 1
        history.run(due(amounts), faults)
    history.generation += 1
    history.finish(due(last))
    held = {record["accountExtId"][-1]: int(record["value"]) for record in history.server.accepted}
    assert held == dict(zip("ABCDE", last, strict=True))
