"""What the request budget promises, in SQLite and in PostgreSQL, on a clock of its own."""

from __future__ import annotations

import heapq
import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.clock import Clock, boot_id
from balance_bridge.errors import BudgetExhausted
from balance_bridge.extract.budget import (
    LEASE_S,
    MARGIN_S,
    MAX_BLOCK_S,
    REQUESTS_PER_WINDOW,
    WINDOW_S,
    Budget,
    Limits,
    NoSlot,
    Usage,
    budget_key,
)

ENDED_S = WINDOW_S + MARGIN_S
Interval = tuple[float, float]
Make = Callable[..., Budget]


class TimedBudget(Budget):
    """Counts in PostgreSQL by the clock that is handed in as well, so that no test waits for the server's."""

    def _now_s(self, db: Any) -> tuple[str, float]:
        return self._clock.boot(), self._clock.monotonic()


@pytest.fixture
def time(kit: SimpleNamespace) -> SimpleNamespace:
    return kit.FakeClock()


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, time: SimpleNamespace, tmp_path: Path) -> Make:
    """Opens a budget; keys are the test's own, since the server is shared."""
    url = f"sqlite:///{tmp_path}/budget.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")

    def open_one(key: str = "key", **options: Any) -> Budget:
        return TimedBudget(url, f"{request.node.name}-{key}", **({"clock": time.clock} | options))

    return open_one


@pytest.fixture
def budget(make: Make) -> Budget:
    return make()


def take(budget: Budget) -> int:
    slot = budget.try_take()
    assert isinstance(slot, int)
    return slot


def wait_s(budget: Budget) -> float:
    """For how long there is no slot."""
    found = budget.try_take()
    assert isinstance(found, NoSlot)
    return found.wait_s


def free_slots(budget: Budget) -> int:
    """Takes them all."""
    return sum(isinstance(budget.try_take(), int) for _ in range(REQUESTS_PER_WINDOW + 1))


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=0.002)


def make_requests(budget: Budget, count: int = REQUESTS_PER_WINDOW) -> None:
    for _ in range(count):
        with budget.slot():
            pass


def test_without_latency_eight_start_at_once_and_the_next_eight_one_window_later(
    budget: Budget, time: SimpleNamespace
) -> None:
    origin, starts = time.now, []
    for _ in range(2 * REQUESTS_PER_WINDOW + 1):
        with budget.slot():
            starts.append(time.now - origin)
    assert starts == [about(after * ENDED_S) for after in [0] * 8 + [1] * 8 + [2]]


def test_a_slot_is_free_one_window_after_its_request_ended(budget: Budget, time: SimpleNamespace) -> None:
    slots = [take(budget) for _ in range(REQUESTS_PER_WINDOW)]
    time.now += 10
    budget.release(slots[3])
    assert wait_s(budget) == about(ENDED_S)
    time.now += ENDED_S + 0.001
    assert free_slots(budget) == 1


def test_a_request_that_fails_is_counted(budget: Budget) -> None:
    for _ in range(REQUESTS_PER_WINDOW):
        with pytest.raises(OSError, match="lost"), budget.slot():
            raise OSError("lost")
    assert wait_s(budget) == about(ENDED_S)


def test_a_dead_process_s_slot_is_free_when_its_lease_and_a_window_are_over(
    budget: Budget, time: SimpleNamespace
) -> None:
    for _ in range(REQUESTS_PER_WINDOW):
        take(budget)
    assert wait_s(budget) == about(LEASE_S + ENDED_S)
    time.now += LEASE_S + ENDED_S + 0.001
    assert free_slots(budget) == REQUESTS_PER_WINDOW


def test_a_request_that_outlived_its_lease_is_counted_when_it_ends(budget: Budget, time: SimpleNamespace) -> None:
    slots = [take(budget) for _ in range(REQUESTS_PER_WINDOW)]
    time.now += LEASE_S + WINDOW_S + 1
    take(budget)  # the leases are over
    for slot in slots:
        budget.release(slot)
    assert isinstance(budget.try_take(), NoSlot)


@pytest.mark.parametrize("taken", [0, 3, REQUESTS_PER_WINDOW])
def test_after_a_refusal_no_request_starts_for_a_window(budget: Budget, time: SimpleNamespace, taken: int) -> None:
    make_requests(budget, taken)
    time.now += 30
    budget.block_for()
    assert wait_s(budget) == about(ENDED_S)
    time.now += ENDED_S + 0.001
    assert free_slots(budget) == REQUESTS_PER_WINDOW


@pytest.mark.parametrize(("asked_s", "waited_s"), [(5, WINDOW_S), (600, 600), (10**6, MAX_BLOCK_S)])
def test_the_server_s_own_wait_counts_between_a_window_and_a_quarter_of_an_hour(
    budget: Budget, asked_s: float, waited_s: float
) -> None:
    slot = take(budget)
    budget.block_for(asked_s)
    # The end of a request under way does not shorten it.
    budget.release(slot)
    assert wait_s(budget) == about(waited_s + MARGIN_S)
    assert budget.usage() == Usage(8, 8, 1, 1)


@pytest.mark.parametrize("ends", [True, False])
def test_a_request_under_way_during_a_refusal_still_counts(budget: Budget, time: SimpleNamespace, ends: bool) -> None:
    slot = take(budget)
    budget.block_for()
    time.now += 50
    if ends:
        budget.release(slot)
    time.now += ENDED_S - 50 + 1
    assert free_slots(budget) == REQUESTS_PER_WINDOW - 1


def test_each_key_has_a_budget_of_its_own_and_all_who_use_it_share_it(make: Make) -> None:
    taken = [make("one").try_take() for _ in range(REQUESTS_PER_WINDOW + 1)]
    assert [isinstance(each, int) for each in taken] == [True] * REQUESTS_PER_WINDOW + [False]
    assert len(set(taken)) == len(taken)
    assert free_slots(make("other")) == REQUESTS_PER_WINDOW


def test_a_smaller_limit_than_before_waits_for_several_slots(make: Make, time: SimpleNamespace) -> None:
    before = make(limits=Limits(4))
    for _ in range(4):
        with before.slot():
            time.now += 1
    # The third of the four is the second but last.
    assert wait_s(make(limits=Limits(2))) == about(ENDED_S - 1)


def test_requests_and_refusals_are_counted_forever(make: Make, time: SimpleNamespace) -> None:
    assert make().usage() == Usage(8, 0, 0, 0)
    make_requests(make(), 10)
    make().block_for()
    assert make().usage() == Usage(8, 8, 10, 1)
    time.now += 10**6
    assert make().usage() == Usage(8, 0, 10, 1)


def test_a_wait_longer_than_the_patience_is_raised_at_once(make: Make, time: SimpleNamespace) -> None:
    budget = make(patience_s=10)
    for _ in range(REQUESTS_PER_WINDOW):
        with budget.slot():
            time.now += 3
    with pytest.raises(BudgetExhausted, match=r"used up for 39 s. 8 requests .* in any 60 s") as caught, budget.slot():
        raise AssertionError("there is no slot")
    assert (time.slept, caught.value.refusal) == ([], None)
    assert caught.value.wait_s == about(ENDED_S - 21)
    time.now += caught.value.wait_s - 9
    with budget.slot():
        assert time.slept == [about(9)]


def test_a_wait_is_logged_once_and_slept_exactly(make: Make, time: SimpleNamespace) -> None:
    logged: list[str] = []
    make_requests(make(limits=Limits(1), log=logged.append), 2)
    assert logged == ["the request budget is used up: waiting 60 s for a slot"]
    assert time.slept == [about(ENDED_S)]


def test_slots_of_requests_under_way_are_looked_at_each_second_and_expected_for_a_window(
    make: Make, time: SimpleNamespace
) -> None:
    slots = [take(make()) for _ in range(REQUESTS_PER_WINDOW)]
    with pytest.raises(BudgetExhausted) as caught, make(patience_s=10).slot():
        raise AssertionError("there is no slot")
    assert caught.value.wait_s == WINDOW_S
    origin = time.now

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if time.now - origin >= 5 and slots:
            make().release(slots.pop())

    with make(clock=replace(time.clock, sleep=sleep)).slot():
        assert time.now - origin == pytest.approx(5 + ENDED_S, abs=1.1)


def test_a_server_s_clock_that_is_set_back_delays_requests_by_one_window_at_most(
    budget: Budget, time: SimpleNamespace
) -> None:
    make_requests(budget)
    time.now -= 10**6
    assert wait_s(budget) == about(ENDED_S)
    time.now += ENDED_S + 0.001
    assert free_slots(budget) == REQUESTS_PER_WINDOW


def test_the_key_cannot_be_read_from_the_name_it_is_counted_under() -> None:
    name = budget_key("api-key-not-real")
    assert "api-key" not in name
    assert name == budget_key("api-key-not-real")
    assert name != budget_key("other-key")


# From here on in SQLite, in memory: what is shown is the same code for both, or the clock of one machine.


@contextmanager
def file_in_memory() -> Iterator[str]:
    """The URL of a file that no disk has to write, for the many steps of an example."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield f"sqlite:///{folder}/budget.db"


def most_in_a_window(requests: list[Interval], window_s: float = WINDOW_S) -> int:
    """How many of them the server can have seen in one window, wherever within its interval each arrived."""
    # Of the windows that reach an interval's end, none meets more intervals than the one that begins there.
    return max(
        (sum(start <= begin + window_s and end >= begin for start, end in requests) for _, begin in requests), default=0
    )


def run_workers(budget: Budget, time: SimpleNamespace, plans: list[list[tuple[float, float]]]) -> list[Interval]:
    """Let several workers make requests in virtual time; each entry of a plan is (pause before, latency) in seconds."""
    requests: list[Interval] = []
    order = itertools.count()
    origin = time.now
    waiting = [(origin + plan[0][0], next(order), worker, 0) for worker, plan in enumerate(plans) if plan]
    under_way: list[tuple[float, int, int, int, int, float]] = []
    heapq.heapify(waiting)
    while waiting or under_way:
        if under_way and (not waiting or under_way[0][0] <= waiting[0][0]):
            time.now, _, worker, step, slot, start = heapq.heappop(under_way)
            budget.release(slot)
            requests.append((start, time.now))
            if step + 1 < len(plans[worker]):
                heapq.heappush(waiting, (time.now + plans[worker][step + 1][0], next(order), worker, step + 1))
            continue
        time.now, _, worker, step = heapq.heappop(waiting)
        found = budget.try_take()
        if isinstance(found, NoSlot):
            heapq.heappush(waiting, (time.now + found.wait_s, next(order), worker, step))
        else:
            end = time.now + plans[worker][step][1]
            heapq.heappush(under_way, (end, next(order), worker, step, found, time.now))
    return requests


latencies = st.one_of(st.just(0.0), st.floats(0, 0.5), st.floats(0, 30), st.floats(30, LEASE_S))
pauses = st.one_of(st.just(0.0), st.floats(0, 5), st.floats(50, 70))


@settings(max_examples=25, deadline=None)
@given(plans=st.lists(st.lists(st.tuples(pauses, latencies), max_size=8), min_size=1, max_size=5))
def test_no_window_ever_holds_more_than_eight_requests_whatever_the_latency(
    plans: list[list[tuple[float, float]]], kit: SimpleNamespace
) -> None:
    time = kit.FakeClock()
    with file_in_memory() as url:
        requests = run_workers(Budget(url, "key", clock=time.clock), time, plans)
    assert len(requests) == sum(map(len, plans))
    assert most_in_a_window(requests) <= REQUESTS_PER_WINDOW


window_states = st.lists(st.one_of(st.none(), st.floats(0, 59.9)), max_size=REQUESTS_PER_WINDOW)


@settings(max_examples=25, deadline=None)
@given(state=window_states, durations=st.lists(st.floats(0, 3), min_size=1, max_size=30))
def test_from_every_state_of_the_window_requests_start_as_early_as_can_be(
    state: list[float | None], durations: list[float], kit: SimpleNamespace
) -> None:
    """One after another: each starts when the one before has ended and the eighth before it ended a window ago."""
    time = kit.FakeClock()
    with file_in_memory() as url:
        budget = Budget(url, "key", clock=time.clock)
        origin = time.now
        # Requests that ended so long ago, and some that never end.
        ended = sorted(-ago for ago in state if ago is not None)
        for at in ended:
            time.now = origin + at
            make_requests(budget, 1)
        time.now = origin
        for _ in range(len(state) - len(ended)):
            take(budget)
        free = [0.0] * (REQUESTS_PER_WINDOW - len(state)) + [at + ENDED_S for at in ended]
        free = sorted(free + [LEASE_S + ENDED_S] * (len(state) - len(ended)))
        now = 0.0
        for duration in durations:
            begins = max(now, free.pop(0))
            with budget.slot():
                assert time.now - origin == pytest.approx(begins, abs=1.01 if begins > 100 else 0.002)
                now = time.now - origin + duration
                time.now += duration
            free = sorted([*free, now + ENDED_S])


class Machine:
    """A machine with a budget in a file, and processes that make requests until it goes down.

    Attributes:
        now: Seconds that nobody can set, and that go on while the machine is down.
        requests: When each request started and the last moment at which it can have arrived.
    """

    def __init__(self, url: str, uptime_s: float) -> None:
        self.now = 1e6
        self.requests: list[Interval] = []
        self._url = url
        self._booted = self.now - uptime_s
        self._boots = 0
        self._wall_ahead_s = 0.0
        self._under_way: list[tuple[float, float, int]] = []

    def budget(self) -> Budget:
        clock = Clock(
            wall=lambda: self.now + self._wall_ahead_s,
            monotonic=lambda: self.now - self._booted,
            boot=lambda: f"boot {self._boots}",
        )
        return Budget(self._url, "key", clock=clock)

    def request(self, latency_s: float) -> None:
        """Start a request as soon as there is a slot."""
        while isinstance(found := self.budget().try_take(), NoSlot):
            self.let_pass(found.wait_s)
        heapq.heappush(self._under_way, (self.now + latency_s, self.now, found))

    def let_pass(self, seconds: float) -> None:
        until = self.now + seconds
        while self._under_way and self._under_way[0][0] <= until:
            self.now, start, slot = heapq.heappop(self._under_way)
            self.requests.append((start, self.now))
            self.budget().release(slot)
        self.now = until

    def kill(self, _: float) -> None:
        """All processes: none of them releases its slot."""
        self.requests += [(start, self.now) for _, start, _ in self._under_way]
        self._under_way.clear()

    def boot(self, down_s: float) -> None:
        self.kill(0)
        self.now += down_s
        self._booted = self.now
        self._boots += 1
        found = self.budget().try_take()
        assert isinstance(found, int) or found.wait_s <= ENDED_S + 0.001, "no longer than a window"
        if isinstance(found, int):
            heapq.heappush(self._under_way, (self.now, self.now, found))

    def set_wall_clock(self, ahead_s: float) -> None:
        self._wall_ahead_s = ahead_s

    def block(self, seconds: float) -> None:
        self.budget().block_for(seconds)


lives = st.lists(
    st.one_of(
        st.tuples(st.just(Machine.request), latencies),
        st.tuples(st.just(Machine.request), st.just(0.0)),
        st.tuples(st.just(Machine.let_pass), pauses),
        st.tuples(st.just(Machine.kill), st.just(0.0)),
        st.tuples(st.just(Machine.boot), st.one_of(st.just(0.0), st.floats(0, 100))),
        st.tuples(st.just(Machine.set_wall_clock), st.floats(-(10**7), 10**7)),
        st.tuples(st.just(Machine.block), st.sampled_from([5.0, 600.0])),
    ),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(life=lives, uptime_s=st.one_of(st.floats(0, 100), st.floats(0, 10**6)))
def test_whatever_boots_and_steps_of_the_wall_clock_no_window_holds_more_than_eight_and_no_wait_is_over_one(
    life: list[tuple[Callable[[Machine, float], None], float]], uptime_s: float
) -> None:
    with file_in_memory() as url:
        machine = Machine(url, uptime_s)
        for act, argument in life:
            act(machine, argument)
        machine.let_pass(LEASE_S)
    assert most_in_a_window(machine.requests) <= REQUESTS_PER_WINDOW


@pytest.mark.parametrize("uptime_s", [0.0, 59.0, 1e7])
@pytest.mark.parametrize("state", ["ended", "under way", "blocked"])
def test_after_a_boot_a_full_budget_waits_exactly_one_window(
    tmp_path: Path, time: SimpleNamespace, state: str, uptime_s: float
) -> None:
    url = f"sqlite:///{tmp_path}/budget.db"
    before = Budget(url, "key", clock=replace(time.clock, boot=lambda: "before"))
    for _ in range(REQUESTS_PER_WINDOW):
        slot = take(before)
        if state != "under way":
            before.release(slot)
    if state == "blocked":
        before.block_for(MAX_BLOCK_S)
    time.now = uptime_s
    after = Budget(url, "key", clock=replace(time.clock, boot=lambda: "after"))
    assert wait_s(after) == about(ENDED_S)
    time.now += ENDED_S + 0.001
    assert free_slots(after) == REQUESTS_PER_WINDOW


def test_this_machine_says_which_boot_it_is() -> None:
    if not Path("/proc/sys/kernel/random/boot_id").exists():
        pytest.skip("only Linux has a boot id there")
    assert boot_id()
    assert boot_id() == boot_id()
