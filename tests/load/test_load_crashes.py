"""A delivery killed at every step, by every kind of death, and done again until it ends."""

from __future__ import annotations

import pytest

from balance_bridge.errors import AnswerLost, BalanceBridgeError, NotReached


class Killed(BaseException):
    """The process is gone: nothing can catch it and tidy up."""


class Steps:
    """Counts the steps that have an effect and kills at one of them."""

    def __init__(self, kill_at: int) -> None:
        self.left = kill_at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


def balances_of(kit):
    far = kit.balance("F", at_ms=kit.CLOSE_MS + 5 * 86_400_000, points="changes")
    return [*(kit.balance(f"A{index}", f"{index}.000000001") for index in range(5)), far]


# A mark, a pointer, and for each of three batches two receipts and a request with a death before and one after.
@pytest.mark.parametrize("kill_at", range(1, 16))
def test_wherever_a_delivery_is_killed_everything_is_accepted_once_in_the_end(kit, kill_at):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    steps = Steps(kill_at)
    store.before_put = lambda _: steps.step()

    def serve(body):
        steps.step()
        answer = server(body)
        steps.step()
        return answer

    transport = kit.FakeTransport(serve)
    balances = balances_of(kit)
    killed = 0
    for _ in range(3):
        try:
            summary = kit.run(kit.amlyze(transport, max_rows=2), store, balances)
            break
        except Killed:
            killed += 1
    assert killed == (kill_at < 15)
    assert {account for account, _ in server.delivered()} == {f"CASH-{each.asset}" for each in balances}
    assert len(server.accepted) == len(balances)
    assert summary.accepted_now + summary.accepted_before + summary.seen == len(balances)
    assert {str(record["value"]) for record in server.accepted} == {str(each.amount) for each in balances}
    # Once more: nothing is left to do.
    count = len(transport.requests)
    kit.run(kit.amlyze(transport, max_rows=2), store, balances)
    assert len(transport.requests) == count


@pytest.mark.parametrize("fault", [AnswerLost("gone"), NotReached("down"), "503", "cut"])
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_whatever_happens_to_one_request_everything_is_accepted_once_in_the_end(kit, fault, applied, which):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    asked = 0

    def serve(body):
        nonlocal asked
        asked += 1
        if asked != which:
            return server(body)
        if applied and not isinstance(fault, NotReached):
            server(body)
        if fault == "503":
            return kit.answer({"resultType": "REQUEST_REJECTED", "status": 500}, 503)
        return kit.answer(body=b'{"results": [') if fault == "cut" else fault

    transport = kit.FakeTransport(serve)
    balances = balances_of(kit)
    for _ in range(3):
        try:
            summary = kit.run(kit.amlyze(transport, max_rows=2), store, balances)
            break
        except BalanceBridgeError:
            continue
    assert len(server.accepted) == len(set(server.delivered())) == len(balances)
    assert summary.accepted_now + summary.accepted_before + summary.seen == len(balances)
    assert summary.seen == (2 if applied and not isinstance(fault, NotReached) else 0)


def test_elven_gets_the_very_same_rows_again_after_a_lost_answer(kit):
    bodies = []

    def serve(body):
        bodies.append(body)
        return AnswerLost("gone") if len(bodies) == 2 else kit.answer({"success": True})

    store, transport = kit.MemoryStore(), kit.FakeTransport(serve)
    balances = balances_of(kit)
    for _ in range(2):
        try:
            kit.run(kit.elven(transport, max_rows=2), store, balances)
        except BalanceBridgeError:
            continue
    assert bodies[1] == bodies[2]
    assert len(set(bodies)) == 3
    assert len(bodies) == 4
