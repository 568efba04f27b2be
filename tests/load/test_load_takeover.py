"""Two runs of a day at the same time: only the newest plan sends, and nothing is taken for delivered that is not.

In most tests an older run (amount 1) meets a later one (amount 2), at the worst of moments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from destination_conformance import (
    Act,
    Harness,
    Run,
    balances,
    held,
    lost_after,
    not_reached,
    status_before,
)
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from test_destination_conformance import AmlyzeHarness, ElvenHarness, WebhookHarness

from balance_bridge.errors import BalanceBridgeError, OutcomeUnknown, RecordsRejected, StoreUnwritable, SupersededRun
from balance_bridge.load.destination import Balance
from balance_bridge.load.documents import MAX_SKEW_S, Result, Try, encode
from balance_bridge.load.fold import LATE, Folded, fold, outcomes
from balance_bridge.store import Store
from balance_bridge.transport import Response
from delivery_kit import DAY, balance, response
from doubles import Killed

HARNESSES = pytest.mark.parametrize("harness", [AmlyzeHarness, ElvenHarness, WebhookHarness])


class Meeting(Run):
    """Runs that meet at one destination, with one store."""

    def __init__(self, harness: Harness | None = None, store: Any = None) -> None:
        super().__init__(harness or AmlyzeHarness(), store)

    def run(self, *due: Balance, **options: Any) -> Any:
        """A delivery: its summary, or the error with which it ended."""
        return self.once(due, **options) or self.summary

    def later(self, *due: Balance, **options: Any) -> Any:
        """A delivery of balances that were computed later."""
        return self.run(*due, generation=self.key(2), **options)

    def before_writing(self, part: str, then: Callable[[], Any]) -> None:
        """Let something happen before the first object with this part of a key is written."""

        def before(key: str) -> None:
            if part in key:
                self.store.before_put = lambda _: None
                then()

        self.store.before_put = before

    def while_under_way(self, then: Callable[[], Any], *, lost: bool = False) -> None:
        """Freeze the next request between its sender's last look and the request, and let something happen."""

        def slow(_: Harness, act: Act) -> Response:
            self.harness.line.faults.clear()
            then()
            reply = act()
            return lost_after(self.harness, lambda: reply) if lost else reply

        self.harness.line.faults[len(self.harness.line.bodies)] = slow

    def folded(self) -> Folded:
        return fold(self.events())

    def reported(self) -> dict[str, tuple[str, str]]:
        """Per asset the amount and the outcome."""
        rows = list(outcomes(self.folded()))
        assert len({each.row.asset for each in rows}) == len(rows), "every balance has one outcome"
        return {each.row.asset: (each.row.amount, str(each.outcome.status)) for each in rows}

    def there(self, asset: str = "A0") -> Decimal:
        """The amount that the destination holds."""
        return held(self.harness)[self.harness.place(balance(asset))]

    def amounts(self) -> Sequence[Decimal]:
        """All that the destination has taken, in order."""
        return [entry[2] for entry in self.harness.books()]


# --- two runs decide at the same moment ---


def test_of_two_runs_that_plan_at_the_same_moment_one_wins_and_the_other_finds_it_done() -> None:
    meeting, first = Meeting(), list[Any]()
    meeting.before_writing("/plan-0001.", lambda: first.append(meeting.run(balance("A0"))))
    summary = meeting.run(balance("A0"))
    assert first[0].accepted_now == 1
    assert (summary.accepted_before, summary.requests) == (1, 0)
    assert len(meeting.harness.line.bodies) == 1


def test_two_copies_that_send_at_the_same_time_end_accepted_once() -> None:
    meeting, other = Meeting(), list[Any]()
    due = [balance("A0"), balance("A1")]
    meeting.while_under_way(lambda: other.append(meeting.run(*due)))
    assert isinstance(meeting.run(*due), SupersededRun)
    assert other[0].accepted_now == 2
    assert len(meeting.harness.books()) == 2
    assert meeting.run(*due).requests == 0
    assert {status for _, status in meeting.reported().values()} == {"accepted"}


def test_two_copies_with_different_balances_leave_nothing_undelivered() -> None:
    meeting = Meeting()
    meeting.before_writing("/plan-0001.", lambda: meeting.run(balance("A0", "1")))
    summary = meeting.later(balance("A0", "2"))
    assert (summary.accepted_now, summary.superseded) == (1, 1)
    assert meeting.amounts() == [Decimal(1), Decimal(2)]


# --- nothing of the older run was sent ---


@HARNESSES
@pytest.mark.parametrize("part", [".try.jsonl", "/plan-0001."])
def test_what_was_planned_and_not_sent_changes_nothing_of_what_is_reported(harness: type[Harness], part: str) -> None:
    meeting = Meeting(harness())
    meeting.before_writing(part, lambda: meeting.later(balance("A0", "2")))
    late = meeting.run(balance("A0", "1"))
    assert isinstance(late, SupersededRun)
    assert late.late == 0
    assert len(meeting.harness.line.bodies) == 1
    assert meeting.reported() == {"A0": ("2", "accepted")}


def test_what_an_older_run_could_not_send_is_not_shown_beside_what_the_later_run_has_sent() -> None:
    meeting = Meeting()
    due = [balance("A0", "1"), balance("A1", "1")]
    meeting.before_writing(".try.jsonl", lambda: meeting.later(*due))
    assert isinstance(meeting.run(*due, account_ext_id={"A0": "CASH-A0"}), SupersededRun)
    assert meeting.reported() == {"A0": ("1", "accepted"), "A1": ("1", "accepted")}


@pytest.mark.parametrize("harness", [AmlyzeHarness, WebhookHarness])
def test_a_number_that_was_planned_and_not_sent_is_not_taken_for_used(harness: type[Harness]) -> None:
    meeting = Meeting(harness())

    def loses_its_answer() -> None:
        meeting.harness.line.faults[len(meeting.harness.line.bodies)] = lost_after
        assert isinstance(meeting.later(balance("A0", "2")), OutcomeUnknown)

    meeting.before_writing(".try.jsonl", loses_its_answer)
    assert isinstance(meeting.run(balance("A0", "1")), SupersededRun)
    meeting.later(balance("A0", "2"))
    # Under another number the balance would be there twice.
    assert meeting.amounts() == [Decimal(2)]


def test_a_correction_names_an_attempt_that_was_sent() -> None:
    meeting = Meeting(WebhookHarness())
    meeting.run(balance("A0", "1"))
    meeting.before_writing("plan-0002/0001.try", lambda: meeting.later(balance("A0", "3")))
    assert isinstance(meeting.run(balance("A0", "2")), SupersededRun)
    first, second = (json.loads(body)["balances"][0] for body in meeting.harness.line.bodies)
    assert second["replaces"] == first["number"]


def refused(_: Harness, __: Act) -> Response:
    return response({"resultType": "REQUEST_REJECTED", "errorCode": "X9", "errorDescription": "no"}, 400)


@pytest.mark.parametrize("fault", [not_reached, status_before(429), status_before(401), refused])
def test_what_cannot_have_arrived_is_not_late_and_nothing_more_is_sent(fault: Any) -> None:
    meeting = Meeting()

    def meets(harness: Harness, act: Act) -> Any:
        meeting.harness.line.faults = {}
        meeting.later(balance("A0", "2"))
        return fault(harness, act)

    meeting.harness.line.faults[0] = meets
    late = meeting.run(balance("A0", "1"))
    assert isinstance(late, SupersededRun)
    assert late.late == 0
    assert "again" not in str(late)
    assert meeting.amounts() == [Decimal(2)]
    assert meeting.reported() == {"A0": ("2", "accepted")}


def test_a_run_that_was_superseded_before_it_divides_stops_and_is_not_green() -> None:
    """The newer plan is another's: that one's unsent rows are not ours to take for settled."""
    meeting = Meeting(ElvenHarness())
    meeting.harness.refuse_bad()

    def plans_and_dies() -> None:
        def die(key: str) -> None:
            if key.endswith(".try.jsonl"):
                raise Killed

        meeting.store.before_put = die
        with suppress(Killed):
            meeting.run(*balances(3), balance("ZBAD"))
        meeting.store.before_put = lambda _: None

    meeting.before_writing("/plan-0002.", plans_and_dies)
    assert isinstance(meeting.run(*balances(3), balance("ZBAD")), SupersededRun)
    assert {status for _, status in meeting.reported().values()} == {"planned"}
    assert isinstance(meeting.run(*balances(3), balance("ZBAD")), RecordsRejected)
    assert len(held(meeting.harness)) == 3


def test_a_try_that_shows_late_does_not_make_a_run_forget_what_it_divides() -> None:
    meeting = Meeting(ElvenHarness())
    meeting.harness.refuse_bad()
    folder = f"receipts/main_cash/{DAY}/elven/plan-0001"

    def die(key: str) -> None:
        if key.endswith(".try.jsonl"):
            raise Killed

    def an_older_copy_goes_on_and_stops() -> None:
        meeting.store.put(f"{folder}/0001.try.jsonl", encode(Try(1, 0.0, 60.0, "")))
        meeting.store.put(f"{folder}/0001.res.jsonl", encode(Result(False, 2, 0.0)))

    meeting.store.before_put = die
    with suppress(Killed):
        meeting.run(*balances(3), balance("ZBAD"))
    meeting.before_writing("/plan-0003.", an_older_copy_goes_on_and_stops)
    assert isinstance(meeting.run(*balances(3), balance("ZBAD")), RecordsRejected)
    assert sorted(status for _, status in meeting.reported().values()) == ["accepted"] * 3 + ["rejected"]
    assert len(held(meeting.harness)) == 3


# --- a request of another process is under way ---


@pytest.mark.parametrize(("amount", "before", "now"), [("1", 1, 0), ("2", 0, 1)])
def test_a_run_waits_for_the_response_to_another_process_s_request(amount: str, before: int, now: int) -> None:
    """The other process's response counts for this run as well; another amount supersedes it."""
    meeting, sent, goes_on, ended = Meeting(), Event(), Event(), list[Any]()

    def slow(_: Harness, act: Act) -> Response:
        meeting.harness.line.faults.clear()
        sent.set()
        assert goes_on.wait(30)
        return act()

    class Clock(type(meeting.harness.clock)):  # type: ignore[misc]
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            goes_on.set()
            older.join(30)

    meeting.harness.line.faults[0] = slow
    older = Thread(target=lambda: ended.append(meeting.run(balance("A0", "1"))))
    older.start()
    assert sent.wait(30)
    clock = Clock(meeting.harness.clock.now)
    later = meeting.later(balance("A0", amount), clock=clock.clock)
    assert ended[0].accepted_now == 1
    assert (later.accepted_before, later.accepted_now, later.superseded) == (before, now, now)
    # It looked every two seconds, and slept once.
    assert clock.slept == [2.0]
    assert meeting.there() == Decimal(amount)
    assert meeting.folded().late == {}


def dies_under_way(meeting: Meeting) -> None:
    def die(_: Harness, act: Act) -> Response:
        meeting.harness.line.faults.clear()
        act()
        raise Killed

    meeting.harness.line.faults[0] = die
    with suppress(Killed):
        meeting.run(balance("A0", "1"))


@pytest.mark.parametrize("ahead_s", [0.0, MAX_SKEW_S, 3600.0, -MAX_SKEW_S, -290.0])
def test_a_request_whose_sender_is_gone_is_waited_out_even_if_its_clock_was_wrong(ahead_s: float) -> None:
    meeting = Meeting()
    clock, longest = meeting.harness.clock, meeting.harness.destination().deadline_s(1)
    clock.now += ahead_s
    dies_under_way(meeting)
    clock.now -= ahead_s
    summary = meeting.run(balance("A0", "1"))
    assert sum(clock.slept) == pytest.approx(longest)
    assert summary.seen == 1
    # A sender's clock that is far ahead holds nobody for longer than its request can take.
    meeting.later(balance("A0", "2"))
    assert sum(clock.slept) <= 2 * longest
    assert meeting.amounts() == [Decimal(1), Decimal(2)]


def test_a_request_that_began_after_a_run_had_read_the_log_is_waited_for() -> None:
    """Its sender looked before the newer plan was there: so the planner must see the try, and decide again."""
    meeting, folder = Meeting(), f"receipts/main_cash/{DAY}/amlyze"

    def die(key: str) -> None:
        if key.endswith(".try.jsonl"):
            raise Killed

    meeting.store.before_put = die
    with suppress(Killed):
        meeting.run(balance("A0", "1"))
    made = Try(1, meeting.harness.clock.now, 60.0, "")
    meeting.before_writing("/plan-0002.", lambda: meeting.store.put(f"{folder}/plan-0001/0001.try.jsonl", encode(made)))
    assert meeting.later(balance("A0", "2")).accepted_now == 1
    assert sum(meeting.harness.clock.slept) == 60.0
    assert list(meeting.folded().events.plans) == [1, 2, 3]
    assert meeting.reported() == {"A0": ("2", "accepted")}


def test_a_request_that_must_be_over_is_not_waited_for() -> None:
    meeting = Meeting()
    dies_under_way(meeting)
    meeting.harness.clock.now += meeting.harness.destination().deadline_s(1) + MAX_SKEW_S + 1
    assert meeting.run(balance("A0", "1")).seen == 1
    assert meeting.harness.clock.slept == []


def test_a_dry_run_waits_for_nobody() -> None:
    meeting = Meeting()
    dies_under_way(meeting)
    assert meeting.run(balance("A0", "1"), dry_run=True).resent == 1
    assert meeting.harness.clock.slept == []


# --- a sender was frozen for longer than any request takes ---


# Elven takes no request that was signed so long ago.
@pytest.mark.parametrize("harness", [AmlyzeHarness, WebhookHarness])
def test_as_long_as_nobody_knows_which_amount_came_last_the_balance_is_unknown(harness: type[Harness]) -> None:
    meeting = Meeting(harness())
    meeting.while_under_way(lambda: meeting.later(balance("A0", "2")))
    late = meeting.run(balance("A0", "1"))
    assert isinstance(late, SupersededRun)
    assert late.late == 1
    assert "1 balances may have arrived in the wrong order" in str(late)
    assert f"Run main_cash {DAY} again" in str(late)
    assert meeting.there() == 1
    assert meeting.reported() == {"A0": ("2", "unknown")}
    assert meeting.later(balance("A0", "2")).accepted_now == 1
    assert meeting.reported() == {"A0": ("2", "accepted")}
    assert meeting.there() == 2
    assert meeting.later(balance("A0", "2")).requests == 0


def test_a_request_that_is_refused_because_it_was_signed_too_long_ago_is_not_late() -> None:
    meeting = Meeting(ElvenHarness())
    meeting.while_under_way(lambda: meeting.later(balance("A0", "2")))
    late = meeting.run(balance("A0", "1"))
    assert isinstance(late, SupersededRun)
    assert (late.late, meeting.amounts(), meeting.reported()) == (0, [Decimal(2)], {"A0": ("2", "accepted")})


def test_a_correction_that_is_taken_back_while_nobody_knows_which_came_last_is_sent_under_a_new_number() -> None:
    meeting = Meeting()
    meeting.while_under_way(lambda: meeting.later(balance("A0", "2")))
    assert isinstance(meeting.run(balance("A0", "1")), SupersededRun)
    assert meeting.later(balance("A0", "1")).accepted_now == 1
    assert meeting.there() == 1
    assert meeting.reported() == {"A0": ("1", "accepted")}


def test_a_late_request_whose_response_was_lost_is_in_doubt_as_well() -> None:
    meeting = Meeting()
    meeting.while_under_way(lambda: meeting.later(balance("A0", "2")), lost=True)
    assert isinstance(meeting.run(balance("A0", "1")), OutcomeUnknown)
    assert meeting.reported() == {"A0": ("2", "unknown")}
    meeting.later(balance("A0", "2"))
    assert (meeting.there(), meeting.reported()) == (2, {"A0": ("2", "accepted")})


def test_the_very_amount_that_the_later_run_delivered_is_not_late() -> None:
    meeting = Meeting()
    meeting.while_under_way(lambda: meeting.later(balance("A0", "1"), balance("A1", "2")))
    late = meeting.run(balance("A0", "1"))
    assert isinstance(late, SupersededRun)
    assert late.late == 0
    assert meeting.reported() == {"A0": ("1", "accepted"), "A1": ("2", "accepted")}


def test_the_same_amount_with_other_content_that_wakes_after_a_redelivery_is_late() -> None:
    meeting = Meeting()
    options = {"balance_type": "closing"}
    meeting.while_under_way(lambda: meeting.later(balance("A0"), redeliver=True, **options))
    late = meeting.run(balance("A0"))
    assert isinstance(late, SupersededRun)
    assert late.late == 1
    # The old type came last.
    assert [entry.balance_type for entry in meeting.harness.there.delivered] == ["closing", None]
    ((each,), (amount, status)) = outcomes(meeting.folded()), meeting.reported()["A0"]
    assert (status, each.outcome.code) == ("unknown", LATE)
    assert meeting.later(balance("A0", str(amount)), **options).accepted_now == 1
    assert [entry.balance_type for entry in meeting.harness.there.delivered][-1] == "closing"
    assert meeting.later(balance("A0", str(amount)), **options).requests == 0


@pytest.mark.parametrize("late_said", ["used", "refused"])
def test_a_late_request_whose_record_was_not_taken_has_changed_nothing(late_said: str) -> None:
    """A frozen run's number was sent again by a second copy, then corrected by a third."""
    meeting = Meeting()

    def two_more() -> None:
        if late_said == "used":
            assert meeting.run(balance("A0", "1")).accepted_now == 1
        else:
            meeting.harness.there.used.add(next(iter(meeting.folded().numbers)))
        assert meeting.later(balance("A0", "2")).accepted_now == 1

    meeting.while_under_way(two_more)
    late = meeting.run(balance("A0", "1"))
    assert isinstance(late, SupersededRun)
    assert late.late == 0
    assert meeting.reported() == {"A0": ("2", "accepted")}
    assert meeting.there() == 2
    assert meeting.later(balance("A0", "2")).requests == 0


def test_a_run_is_not_green_if_a_late_request_came_before_its_end() -> None:
    """The frozen run's process is gone for Airflow: only the later run's end can show it."""
    meeting, under_way, goes_on = Meeting(), Event(), Event()

    def frozen(_: Harness, act: Act) -> Response:
        meeting.harness.line.faults.clear()
        under_way.set()
        assert goes_on.wait(30)
        return act()

    def wakes(_: Harness, act: Act) -> Response:
        reply = act()
        goes_on.set()
        older.join(30)
        return reply

    meeting.harness.line.faults[0] = frozen
    older = Thread(target=lambda: meeting.run(balance("A0", "1")))
    older.start()
    assert under_way.wait(30)
    meeting.harness.clock.now += 3600
    # Two requests of its own: during the second, the first one's balance is overwritten.
    meeting.harness.line.faults[2] = wakes
    later = meeting.later(balance("A0", "2"), balance("A1", "2"), max_rows=1)
    assert isinstance(later, OutcomeUnknown)
    assert "A0 (1 (" in str(later)
    assert meeting.reported() == {"A0": ("2", "unknown"), "A1": ("2", "accepted")}
    assert meeting.later(balance("A0", "2"), balance("A1", "2")).accepted_now == 1
    assert meeting.there() == 2


def test_a_delivery_of_the_day_so_far_that_was_late_leaves_the_balance_unknown_until_the_day_is_run_again() -> None:
    meeting = Meeting()
    meeting.while_under_way(lambda: meeting.run(balance("A0", "2")))
    late = meeting.run(balance("A0", "1"), so_far=True)
    assert isinstance(late, SupersededRun)
    assert late.late == 1
    assert isinstance(meeting.run(balance("A0", "1"), so_far=True), SupersededRun)
    assert meeting.reported() == {"A0": ("2", "unknown")}
    meeting.run(balance("A0", "2"))
    assert meeting.there() == 2


@pytest.mark.parametrize("before", ["", ".try.jsonl", ".res.jsonl"])
def test_a_delivery_of_the_day_so_far_never_stops_the_whole_day_s_and_ends_once_that_has_begun(before: str) -> None:
    """Not even if the whole day's had nothing left to send: it is the proven one."""
    meeting, ended = Meeting(), list[Any]()

    def so_far(number: int, amount: str = "1") -> None:
        ended.append(meeting.run(balance("A0", amount), so_far=True, generation=f"intraday/{number:04}.parquet"))

    if before:
        meeting.before_writing(before, lambda: so_far(2))
    else:
        so_far(1, "2")
        ended.clear()
    assert not isinstance(meeting.run(balance("A0", "2")), BalanceBridgeError)
    for number in (1, 2, 3):
        so_far(number)
    assert {(type(each), each.late) for each in ended} == {(SupersededRun, 0)}
    assert meeting.amounts() == [Decimal(2)]


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


@pytest.mark.parametrize("amount", ["2", "1"])
def test_a_bucket_that_cannot_be_asked_for_a_moment_does_not_say_that_nobody_has_overtaken(amount: str) -> None:
    bucket = Bucket()
    meeting = Meeting(store=Store(SimpleNamespace(fs=bucket, path="/b")))

    def then() -> None:
        meeting.later(balance("A0", "2"))
        bucket.down = True

    meeting.while_under_way(then)
    assert isinstance(meeting.run(balance("A0", "1")), StoreUnwritable)
    assert not bucket.down
    # The response is on its receipt all the same, as if the run had been overtaken.
    assert meeting.reported() == {"A0": ("2", "unknown")}
    # Run once more, the day is right, and stays so.
    assert meeting.later(balance("A0", amount)).accepted_now == 1
    assert meeting.reported() == {"A0": (amount, "accepted")}
    assert meeting.there() == Decimal(amount)
    assert meeting.later(balance("A0", amount)).requests == 0


def test_a_store_that_cannot_be_asked_before_a_request_lets_nothing_out() -> None:
    bucket = Bucket()
    meeting = Meeting(store=Store(SimpleNamespace(fs=bucket, path="/b")))
    exists = meeting.store.exists

    def down(key: str) -> bool:
        bucket.down = key.endswith("plan-0002.jsonl.gz")
        return bool(exists(key))

    meeting.store.exists = down
    assert isinstance(meeting.run(balance("A0", "1")), StoreUnwritable)
    assert meeting.harness.line.bodies == []
    del meeting.store.exists
    assert meeting.run(balance("A0", "1")).accepted_now == 1
