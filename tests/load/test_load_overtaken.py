"""A run that another one of the day has overtaken: it hung, the day was worked out anew, and it goes on.

In each test an older run (amount 1) meets a later one (amount 2), at the worst of moments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from destination_conformance import (
    DAY,
    Act,
    Harness,
    answer,
    balance,
    held,
    lost_after,
    not_reached,
    status_before,
)
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from test_destination_conformance import AmlyzeHarness, ElvenHarness, WebhookHarness

from balance_bridge.errors import BalanceBridgeError, OutcomeUnknown, Overtaken, StoreUnwritable
from balance_bridge.load.audit import entries, outcomes
from balance_bridge.load.delivery import deliver
from balance_bridge.load.destination import Balance
from balance_bridge.load.receipts import Receipts
from balance_bridge.store import Store
from balance_bridge.transport import Answer
from doubles import MemoryStore

NEXT = DAY + timedelta(days=1)


class Meeting:
    """Two runs at one destination, with one store."""

    def __init__(self, harness: Harness | None = None, store: Any = None) -> None:
        self.harness = harness or AmlyzeHarness()
        self.store = store or MemoryStore()

    def run(self, *due: Balance, day: date = DAY, so_far: bool = False, **options: Any) -> Any:
        """A whole delivery: its summary, or the error with which it ended."""
        try:
            return deliver(
                destination=self.harness.destination(**options),
                store=self.store,
                account="main_cash",
                day=day,
                namespace="bb",
                balances=due,
                run_id="run",
                clock=self.harness.clock.clock,
                so_far=so_far,
            )
        except BalanceBridgeError as error:
            return error

    def before_writing(self, part: str, then: Callable[[], Any]) -> None:
        """Let something happen before the first object with this part of a key is written."""

        def before(key: str) -> None:
            if part in key:
                self.store.before_put = lambda _: None
                then()

        self.store.before_put = before

    def while_under_way(self, then: Callable[[], Any], *, first: bool = True, lost: bool = False) -> None:
        """Let something happen while the next request is under way: before it arrives, or before its answer comes."""

        def slow(_: Harness, act: Act) -> Answer:
            self.harness.line.faults.clear()
            if first:
                then()
            reply = act()
            if not first:
                then()
            return lost_after(self.harness, lambda: reply) if lost else reply

        self.harness.line.faults[len(self.harness.line.bodies)] = slow

    def told(self, day: date = DAY) -> dict[str, tuple[str, str]]:
        """Per asset the amount and the outcome."""
        rows = outcomes(self.store, "main_cash", day, self.harness.destination().name)
        assert len({row.asset for row in rows}) == len(rows), "every balance has one outcome"
        return {row.asset: (str(row.amount), str(row.outcome)) for row in rows}

    def there(self, asset: str = "A0") -> Decimal:
        """The amount that the destination holds."""
        return held(self.harness)[self.harness.place(balance(asset))]


def amounts(meeting: Meeting) -> Sequence[Decimal]:
    return [entry[2] for entry in meeting.harness.books()]


# --- nothing of it was sent ---


@pytest.mark.parametrize("harness", [AmlyzeHarness, ElvenHarness, WebhookHarness])
@pytest.mark.parametrize("asset", ["A0", "A1", "A2", "A3", "A4", "A5"])
def test_what_was_planned_and_not_sent_changes_nothing_of_what_is_told(harness: type[Harness], asset: str) -> None:
    meeting = Meeting(harness())
    meeting.before_writing("/planned.json", lambda: meeting.run(balance(asset, "2")))
    late = meeting.run(balance(asset, "1"))
    assert isinstance(late, Overtaken)
    assert late.late == 0
    assert len(meeting.harness.line.bodies) == 1
    assert meeting.told() == {asset: ("2", "accepted")}


def test_nor_where_the_later_run_had_nothing_to_send() -> None:
    meeting = Meeting()
    meeting.run(balance("A0", "2"))
    meeting.before_writing("/planned.json", lambda: meeting.run(balance("A0", "2")))
    assert isinstance(meeting.run(balance("A0", "1")), Overtaken)
    assert meeting.told() == {"A0": ("2", "accepted")}


def test_nor_of_a_run_of_the_day_so_far() -> None:
    meeting = Meeting()
    meeting.before_writing("/planned.json", lambda: meeting.run(balance("A1", "2"), balance("A0", "2")))
    late = meeting.run(balance("A0", "1"), so_far=True)
    assert isinstance(late, Overtaken)
    assert late.late == 0
    assert meeting.told() == {"A0": ("2", "accepted"), "A1": ("2", "accepted")}


@pytest.mark.parametrize("harness", [AmlyzeHarness, WebhookHarness])
def test_a_number_that_was_planned_and_not_sent_is_not_taken_for_used(harness: type[Harness]) -> None:
    meeting = Meeting(harness())

    def loses_its_answer() -> None:
        meeting.harness.line.faults[len(meeting.harness.line.bodies)] = lost_after
        assert isinstance(meeting.run(balance("A0", "2")), OutcomeUnknown)

    meeting.before_writing("/planned.json", loses_its_answer)
    assert isinstance(meeting.run(balance("A0", "1")), Overtaken)
    meeting.run(balance("A0", "2"))
    # Under another number the balance would be there twice.
    assert amounts(meeting) == [Decimal(2)]


def test_after_a_wait_for_too_many_requests_nothing_is_sent() -> None:
    meeting = Meeting()

    def busy(_: Harness, __: Act) -> Answer:
        meeting.harness.line.faults.clear()
        meeting.run(balance("A0", "2"))
        return answer({}, 429, **{"retry-after": "60"})

    meeting.harness.line.faults[0] = busy
    assert isinstance(meeting.run(balance("A0", "1")), Overtaken)
    assert amounts(meeting) == [Decimal(2)]


def test_after_a_wait_for_a_place_nothing_is_sent() -> None:
    meeting = Meeting()

    class Places:
        waited = False

        @contextmanager
        def place(self) -> Any:
            if not Places.waited:
                Places.waited = True
                meeting.run(balance("A0", "2"))
            yield

    assert isinstance(meeting.run(balance("A0", "1"), places=Places()), Overtaken)
    assert amounts(meeting) == [Decimal(2)]


def refused(_: Harness, __: Act) -> Answer:
    return answer({"resultType": "REQUEST_REJECTED", "errorCode": "X9", "errorDescription": "no"}, 400)


@pytest.mark.parametrize("fault", [not_reached, status_before(429), status_before(401), refused])
def test_what_cannot_have_arrived_is_not_told_as_late(fault: Any) -> None:
    meeting = Meeting()

    def meets(harness: Harness, act: Act) -> Any:
        faults, meeting.harness.line.faults = meeting.harness.line.faults, {}
        meeting.run(balance("A0", "2"))
        meeting.harness.line.faults = faults
        return fault(harness, act)

    meeting.harness.line.faults[-1] = meets
    late = meeting.run(balance("A0", "1"))
    assert isinstance(late, Overtaken)
    assert late.late == 0
    assert "once more" not in str(late)


def test_nor_is_the_very_amount_that_the_later_run_stands_for() -> None:
    meeting = Meeting()
    meeting.while_under_way(lambda: meeting.run(balance("A0", "1"), balance("A1", "2")), first=False)
    late = meeting.run(balance("A0", "1"), so_far=True)
    assert isinstance(late, Overtaken)
    assert late.late == 0


def began_and_died(meeting: Meeting) -> None:
    destination = meeting.harness.destination()
    Receipts(meeting.store, "main_cash", destination.name).begin(DAY, destination.prepare([]))


def test_a_rejection_stays_what_became_of_a_balance_whose_next_attempt_was_not_sent() -> None:
    meeting = Meeting()
    meeting.harness.line.faults[0] = refused
    meeting.run(balance("A0", "1"))
    meeting.before_writing("/planned.json", lambda: began_and_died(meeting))
    assert isinstance(meeting.run(balance("A0", "1")), Overtaken)
    assert meeting.told() == {"A0": ("1", "rejected")}
    first, second = sorted(entries(meeting.store, "main_cash", DAY, "amlyze"), key=lambda entry: entry.number)
    assert (first.code, first.replaced_by, second.code, second.requests) == ("X9", "", "NOT SENT", 0)


def test_a_correction_names_an_attempt_that_was_sent() -> None:
    meeting = Meeting(WebhookHarness())
    meeting.run(balance("A0", "1"))
    meeting.before_writing("/planned.json", lambda: began_and_died(meeting))
    assert isinstance(meeting.run(balance("A0", "2")), Overtaken)
    meeting.run(balance("A0", "3"))
    first, second = (json.loads(body)["balances"][0] for body in meeting.harness.line.bodies)
    assert second["replaces"] == first["number"]


@pytest.mark.parametrize("so_far", [True, False])
@pytest.mark.parametrize("harness", [AmlyzeHarness, ElvenHarness, WebhookHarness])
def test_that_it_has_not_sent_is_not_taken_for_an_answer_by_the_later_run(harness: Any, so_far: bool) -> None:
    meeting, local = Meeting(harness()), Receipts.local
    waits, goes_on, ended = Event(), Event(), list[Any]()

    def busy(_: Harness, __: Act) -> Answer:
        meeting.harness.line.faults.clear()
        waits.set()
        assert goes_on.wait(30)
        return answer({}, 429, **{"retry-after": "1"})

    def once_the_older_one_has_ended(*arguments: Any) -> None:
        # The receipts are read; the older run withdraws what it has planned.
        local(*arguments)
        goes_on.set()
        older.join(30)

    meeting.harness.line.faults[0] = busy
    older = Thread(target=lambda: ended.append(meeting.run(balance("A0", "1"), so_far=so_far, max_rows=1)))
    older.start()
    assert waits.wait(30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Receipts, "local", once_the_older_one_has_ended)
        later = meeting.run(balance("A0", "1"), balance("A1", "2"), max_rows=1)
    assert isinstance(ended[0], Overtaken)
    assert not isinstance(later, BalanceBridgeError), later
    assert meeting.told() == {"A0": ("1", "accepted"), "A1": ("2", "accepted")}


# --- something of it was under way ---


def test_as_long_as_nobody_knows_which_amount_came_last_the_balance_is_unknown() -> None:
    meeting = Meeting()
    meeting.while_under_way(lambda: meeting.run(balance("A0", "2")))
    assert isinstance(meeting.run(balance("A0", "1")), Overtaken)
    assert meeting.told() == {"A0": ("1", "unknown")}
    meeting.run(balance("A0", "2"))
    assert meeting.told() == {"A0": ("2", "accepted")}
    assert meeting.there() == 2


def test_a_run_of_the_day_so_far_that_was_late_stays_red_until_the_day_was_put_right() -> None:
    meeting = Meeting()
    meeting.while_under_way(lambda: meeting.run(balance("A0", "2")))
    for _ in range(3):
        late = meeting.run(balance("A0", "1"), so_far=True)
        assert isinstance(late, Overtaken)
        assert late.late == 1
    meeting.run(balance("A0", "2"))
    assert meeting.there() == 2
    late = meeting.run(balance("A0", "1"), so_far=True)
    assert isinstance(late, Overtaken)
    assert late.late == 0


def test_a_late_answer_is_on_its_receipt_even_if_no_other_receipt_can_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meeting, history = Meeting(), Receipts.history

    def fails_once(*_: Any) -> Any:
        monkeypatch.setattr(Receipts, "history", history)
        raise OSError("the bucket is not reached")

    def then() -> None:
        meeting.run(balance("A0", "2"))
        monkeypatch.setattr(Receipts, "history", fails_once)

    meeting.while_under_way(then)
    late = meeting.run(balance("A0", "1"))
    assert isinstance(late, Overtaken)
    assert late.late == 1
    meeting.run(balance("A0", "2"))
    assert meeting.there() == 2


class Bucket(MemoryFileSystem):
    """Object storage: asked for an object by ``info``, as most file systems of fsspec are."""

    cachable = False
    isfile = AbstractFileSystem.isfile

    def __init__(self) -> None:
        super().__init__()
        self.store, self.pseudo_dirs, self.down = {}, [""], False

    def info(self, path: str, **options: Any) -> Any:
        if self.down:
            self.down = False
            # Some libraries' errors for what is not reached are no OSError.
            raise RuntimeError("503 Slow Down")
        return super().info(path, **options)


def test_a_bucket_that_cannot_be_asked_for_a_moment_does_not_say_that_nobody_has_overtaken() -> None:
    bucket = Bucket()
    meeting = Meeting(store=Store(SimpleNamespace(fs=bucket, path="/b")))

    def then() -> None:
        meeting.run(balance("A0", "2"))
        bucket.down = True

    meeting.while_under_way(then)
    assert isinstance(meeting.run(balance("A0", "1")), StoreUnwritable)
    assert not bucket.down
    meeting.run(balance("A0", "2"))
    assert meeting.there() == 2


def test_a_number_that_may_have_gone_out_with_two_contents_is_not_used_again() -> None:
    meeting = Meeting()

    def is_overtaken_and_loses_its_answer() -> None:
        meeting.while_under_way(lambda: meeting.run(balance("A0", "1"), balance("A1", "3")), lost=True)
        assert isinstance(meeting.run(balance("A0", "1")), Overtaken)

    meeting.before_writing("/planned.json", is_overtaken_and_loses_its_answer)
    assert isinstance(meeting.run(balance("A0", "0")), Overtaken)
    meeting.run(balance("A0", "1"), balance("A1", "3"))
    assert meeting.told() == {"A0": ("1", "accepted"), "A1": ("3", "accepted")}


# --- what it writes besides ---


def test_what_it_cannot_send_is_not_told_beside_what_the_later_run_has_sent() -> None:
    meeting = Meeting()
    due = [balance("A0", "1"), balance("A1", "1")]
    meeting.before_writing("/local/", lambda: meeting.run(*due))
    meeting.run(*due, account_ext_id={"A0": "CASH-A0"})
    assert meeting.told() == {"A0": ("1", "accepted"), "A1": ("1", "accepted")}


def test_the_later_run_s_claims_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting, local = Meeting(), Receipts.local
    meeting.run(balance("A0", "5"), day=NEXT)

    def hangs(*arguments: Any) -> None:
        monkeypatch.setattr(Receipts, "local", local)
        # It finds its 5 there, by a day that ranks lower, and claims it.
        meeting.run(balance("A0", "5"), balance("A1", "2"))
        local(*arguments)

    monkeypatch.setattr(Receipts, "local", hangs)
    meeting.run(balance("A1", "2"))
    meeting.run(balance("A0", "6"), day=NEXT)
    assert meeting.there() == 5


def test_nor_if_only_what_is_left_out_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting, local = Meeting(), Receipts.local
    due = [balance("A0", "1"), balance("A1", "1")]

    def hangs(*arguments: Any) -> None:
        monkeypatch.setattr(Receipts, "local", local)
        meeting.run(*due, account_ext_id={"A0": "CASH-A0"}, assets={"A1": "ignore"})
        local(*arguments)

    monkeypatch.setattr(Receipts, "local", hangs)
    meeting.run(*due, account_ext_id={"A0": "CASH-A0"})
    assert meeting.told() == {"A0": ("1", "accepted")}


# --- beside another day that has a balance for the same key ---


def test_a_day_that_ranks_higher_stands_even_though_a_lower_one_came_after_it() -> None:
    meeting = Meeting()

    def then() -> None:
        meeting.run(balance("A0", "2"))
        meeting.run(balance("A0", "3"), day=NEXT)

    meeting.while_under_way(then)
    late = meeting.run(balance("A0", "1"), day=NEXT)
    # Both days are named, since only the other one can put it right.
    assert f"Run {DAY}, {NEXT} once more" in str(late)
    meeting.run(balance("A0", "3"), day=NEXT)
    assert meeting.there() == 1
    meeting.run(balance("A0", "2"))
    assert meeting.there() == 2


def test_no_part_of_a_secret_is_left_where_a_text_is_cut() -> None:
    for harness, header in [(AmlyzeHarness, "authorization"), (WebhookHarness, "x-balance-bridge-signature")]:
        for padding in range(100, 600, 7):
            meeting = Meeting(harness())

            def echoes(harness: Harness, _: Act, padding: int = padding) -> Answer:
                headers = {name.lower(): value for name, value in harness.line.headers[-1].items()}
                return answer({"p": "x" * padding, "headers": headers})

            meeting.harness.line.faults[0] = echoes
            told = str(meeting.run(balance("A0", "1"))) + b"".join(meeting.store.objects.values()).decode()
            sent = {name.lower(): value for name, value in meeting.harness.line.headers[0].items()}[header]
            assert sent.removeprefix("Bearer ")[:8] not in told, (header, padding)


def test_no_secret_is_in_a_code() -> None:
    meeting = Meeting(WebhookHarness())

    def echoes(harness: Harness, _: Act) -> Answer:
        number = json.loads(harness.line.bodies[-1])["balances"][0]["number"]
        code = harness.line.headers[-1]["x-balance-bridge-signature"]
        return answer({"results": [{"number": number, "status": "rejected", "code": code, "text": "no"}]})

    meeting.harness.line.faults[0] = echoes
    told = str(meeting.run(balance("A0", "1"))) + b"".join(meeting.store.objects.values()).decode()
    assert meeting.harness.line.headers[0]["x-balance-bridge-signature"][:8] not in told
