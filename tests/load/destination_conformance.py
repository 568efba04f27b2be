"""What every destination must promise, as tests: a new one subclasses :class:`DestinationConformance` with its harness.

The far side is the destination's own sandbox, which is strict and remembers everything; the line to it can break.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import structs

import delivery_kit as kit
from balance_bridge.errors import (
    BalanceBridgeError,
    ConnectionFailed,
    InvalidAmount,
    InvalidResponse,
    OutcomeUnknown,
    RateLimited,
    RecordsRejected,
    ResponseLost,
    StoreUnwritable,
    SupersededRun,
)
from balance_bridge.load.delivery import MAX_DIVISIONS
from balance_bridge.load.destination import Balance, Destination, content
from balance_bridge.load.documents import Action, Plan, Row, Said, decode
from balance_bridge.load.fold import fold, outcomes
from balance_bridge.load.log import DayLog, Events
from balance_bridge.money import to_text
from balance_bridge.sandbox.wire import Call, Reply
from balance_bridge.transport import Response, credentials
from delivery_kit import CLOSE_MS, DAY, balance, response
from doubles import FakeClock, MemoryStore, examples

ASSETS = tuple(f"A{index}" for index in range(12))
DELIVERY_OPTIONS = frozenset({"clock", "dry_run", "generation", "redeliver", "so_far"})
# A balance is in exactly one of a summary's counts.
COUNTS = (
    "accepted_now",
    "accepted_before",
    "seen",
    "rejected",
    "rejected_locally",
    "unknown",
    "ignored",
    "pending",
)
#: An asset that the far side does not know.
BAD = "ZBAD"

# What (the account, the asset and the instant) the far side holds, and how much of it, in order of acceptance.
Books = list[tuple[str, str, Decimal]]
Act = Callable[[], Response]
Fault = Callable[["Harness", Act], Response]


def balances(count: int = 6) -> list[Balance]:
    return [balance(asset, f"{index}.000000000000000001") for index, asset in enumerate(ASSETS[:count], 1)]


class Line:
    """A transport to the far side without a socket, with faults on demand.

    Attributes:
        faults: What befalls a request, by its number from 0.
        bodies: Every body that was sent, in order.
        headers: Their headers.
        times_s: The timeout and the deadline of each.
        max_bytes: How long each response may be.
        before: Called before each request.
    """

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self.faults: dict[int, Fault] = {}
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.times_s: list[tuple[float, float]] = []
        self.max_bytes: list[int] = []
        self.before: Callable[[bytes], None] = lambda _: None

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        secrets: Sequence[str] = (),
        timeout_s: float = 30.0,
        deadline_s: float = 60.0,
        max_bytes: int = 0,
    ) -> Response:
        sent = body or b""
        self.before(sent)
        fault = self.faults.get(len(self.bodies), self.faults.get(-1))
        if method == "POST":
            self.bodies.append(sent)
            self.headers.append(headers)
            self.times_s.append((timeout_s, deadline_s))
            self.max_bytes.append(max_bytes)
        query = "&".join(f"{name}={value}" for name, value in (params or {}).items())
        call = Call(method, urlsplit(url).path, query, {name.lower(): value for name, value in headers.items()}, sent)

        def act() -> Response:
            reply: Reply = self._harness.respond(call)
            return response(reply.document, reply.status)

        # As the real transport does.
        return replace(fault(self._harness, act) if fault else act(), secrets=(*secrets, *credentials(headers)))


class Harness(ABC):
    """A destination, and the far side that it leads to.

    Attributes:
        at_most_once: Whether a number keeps a balance from being taken twice, so that it is accepted once whatever is
            lost on the way. If not, the very same rows may arrive again.
        record_code: The code with which the far side refuses a whole request for one bad record.
        secrets: What must never be seen anywhere.
    """

    at_most_once: bool
    record_code: str
    secrets: tuple[str, ...]

    def __init__(self) -> None:
        self.clock = FakeClock(CLOSE_MS / 1000 + 43_200)
        self.line = Line(self)

    @abstractmethod
    def destination(self, **options: Any) -> Destination:
        """The destination, with options of the accounts file."""

    @abstractmethod
    def respond(self, call: Call) -> Reply:
        """The far side's response."""

    @abstractmethod
    def books(self) -> Books:
        """What the far side has accepted."""

    @abstractmethod
    def place(self, balance: Balance) -> tuple[str, str]:
        """Under which account (or asset) and instant the far side holds a balance."""

    @abstractmethod
    def refuse_bad(self) -> None:
        """From now on, one record with the asset ZBAD is refused, and no other."""

    @abstractmethod
    def whole_refusal(self, code: str) -> Any:
        """A document that refuses a whole request with a code."""

    @abstractmethod
    def unauthorized(self, text: str) -> Any:
        """A document of a 401 that says something."""

    def results(self, document: Any) -> list[Any]:
        """The results in a document that has one for each record."""
        found: list[Any] = document["results"]
        return found


def lost_before(harness: Harness, act: Act) -> Response:
    raise ResponseLost("no response within 30 s")


def lost_after(harness: Harness, act: Act) -> Response:
    act()
    raise ResponseLost("the connection was reset")


def not_reached(harness: Harness, act: Act) -> Response:
    raise ConnectionFailed("connection refused")


def status_before(status: int, **headers: str) -> Fault:
    return lambda harness, act: response({}, status, **headers)


def status_after(status: int) -> Fault:
    def fault(harness: Harness, act: Act) -> Response:
        act()
        return response({"error": "it broke"}, status)

    return fault


def body_after(make: Callable[[bytes], bytes]) -> Fault:
    def fault(harness: Harness, act: Act) -> Response:
        return response(None, body=make(act().body))

    return fault


def html(harness: Harness, act: Act) -> Response:
    return response(None, body=b"<html>Welcome</html>", content_type="text/html")


def changed_results(change: Callable[[list[Any]], list[Any]]) -> Fault:
    """Answers for each record, but not as it should be."""

    def fault(harness: Harness, act: Act) -> Response:
        document = json.loads(act().body)
        found = harness.results(document)
        found[:] = change(list(found))
        return response(document)

    return fault


FAULTS: dict[str, Fault] = {
    "no connection, for once": not_reached,
    "no response, nothing was done": lost_before,
    "no response, all was done": lost_after,
    "401": status_before(401),
    "403": status_before(403),
    "404": status_before(404),
    "302": status_before(302, location="https://elsewhere.test/"),
    "429": status_before(429, retry_after="2"),
    "500, nothing was done": status_before(500),
    "500, all was done": status_after(500),
    "503, all was done": status_after(503),
    "a page": html,
    "a cut document, all was done": body_after(lambda body: body[: len(body) // 2]),
    "another charset, all was done": body_after(lambda body: body.decode().encode("utf-16")),
    "an empty response, all was done": body_after(lambda body: b""),
    "another document": lambda harness, act: response({"message": "hello"}),
}
RESULT_FAULTS: dict[str, Fault] = {
    "no results": changed_results(lambda results: []),
    "one result is missing": changed_results(lambda results: results[1:]),
    "results are doubled": changed_results(lambda results: results * 2),
    "results are reordered": changed_results(lambda results: results[::-1]),
    "a foreign result": changed_results(lambda results: [{"number": "x", "communicationNumber": "x"}, *results]),
    "results without sense": changed_results(lambda results: [None, 7, *results]),
}


class Run:
    """Deliveries of one day into one store; each is a run of its own.

    Args:
        harness: The destination.
        store: Where the log lies.
        generation: Of the balances; the higher one is the later one.
    """

    def __init__(self, harness: Harness, store: Any = None, generation: int = 1) -> None:
        self.harness = harness
        self.store = store or MemoryStore()
        self.generation = self.key(generation)
        self.logged: list[str] = []
        self.summary: Any = None

    def key(self, generation: int) -> str:
        """The store's key of a generation of the balances."""
        key = f"balances/main_cash/{DAY}/here/{generation:04}.parquet"
        self.store.put(key, b"")
        return key

    def once(self, due: Iterable[Balance], **options: Any) -> BalanceBridgeError | None:
        """Deliver, with options of the delivery and of the accounts file; the error that it ended with."""
        given: dict[str, Any] = {"generation": self.generation, "clock": self.harness.clock.clock}
        given |= {name: options.pop(name) for name in DELIVERY_OPTIONS & options.keys()}
        destination = self.harness.destination(**options)
        self.logged.append(repr(destination))
        try:
            self.summary = kit.run(destination, self.store, due, log=self.logged.append, **given)
        except BalanceBridgeError as error:
            self.logged.append(str(error))
            self.summary = vars(error).get("summary")
            return error
        return None

    def until_green(self, due: list[Balance], most: int = 6, **options: Any) -> None:
        for _ in range(most):
            if self.once(due, **options) is None:
                return
        raise AssertionError(f"not green after {most} runs: {self.logged[-1]}")

    def events(self) -> Events:
        """All that the log holds."""
        return DayLog(self.store, kit.ACCOUNT, DAY, self.harness.destination().name).read()

    def outcomes(self) -> dict[str, str]:
        """The outcome by asset, by the log; each balance has exactly one."""
        found = [(each.row.asset, str(each.outcome.status)) for each in outcomes(fold(self.events()))]
        assert len(dict(found)) == len(found)
        return dict(found)

    def rows(self) -> list[Row]:
        """Every row that was ever planned to be sent."""
        return [row for plan in self.events().plans.values() for row in plan.rows if row.action is Action.SEND]

    def bodies(self, destination: Destination) -> list[bytes]:
        """Every request that was ever planned."""
        batches = [batch for plan in self.events().plans.values() for batch in plan.batches().values()]
        return [destination.encode(row.wire for row in batch) for batch in batches]


def held(harness: Harness) -> dict[tuple[str, str], Decimal]:
    """What stands in the far side's books: the last that was accepted."""
    return {(name, when): amount for name, when, amount in harness.books()}


def due_there(harness: Harness, due: list[Balance]) -> dict[tuple[str, str], Decimal]:
    return {harness.place(each): each.amount for each in due}


def repeat_until_green(harness: Harness, fault: Fault, index: int) -> None:
    """Let a fault befall the request of a number, repeat the run until it is green, and look after every run."""
    harness.line.faults[index] = fault
    run, due = Run(harness), balances()
    for _ in range(6):
        error = run.once(due, max_rows=2)
        reported, summary = run.outcomes(), run.summary
        assert set(reported) <= {each.asset for each in due}
        assert summary.rows == 6 == sum(getattr(summary, count) for count in COUNTS)
        # Nothing counts as delivered that is not there.
        there = held(harness)
        assert all(
            reported[each.asset] != "accepted" or harness.place(each) in there
            for each in due
            if reported.get(each.asset)
        )
        if error is None:
            break
    assert error is None
    assert set(run.outcomes().values()) <= {"accepted", "seen"}
    assert held(harness) == due_there(harness, due)
    if harness.at_most_once:
        assert max(Counter(harness.books()).values()) == 1


def hung_at(step: int, harness: Harness, old: list[Balance], new: list[Balance]) -> str:
    """Let a delivery hang at a step, correct the day meanwhile, and let it go on; then run the corrected day again."""
    run = Run(harness)
    corrected = Run(harness, run.store, generation=2)
    left, hung = [step], []

    def count(_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            hung.append(step)
            corrected.until_green(new, max_rows=2)

    def slow(harness: Harness, act: Act) -> Response:
        count(None)
        reported = act()
        count(None)
        return reported

    run.store.before_put, harness.line.faults[-1] = count, slow
    error = run.once(old, max_rows=2)
    run.store.before_put, harness.line.faults = lambda _: None, {}
    # Once the corrected day has begun, nothing goes out that it does not know of but what was under way.
    assert error is None or isinstance(error, SupersededRun | RecordsRejected), error
    assert hung or error is None
    corrected.until_green(new, max_rows=2)
    assert held(harness) == due_there(harness, new), f"hung at step {step}"
    assert set(corrected.outcomes().values()) == {"accepted"}
    return "hung" if hung else "ended before"


SMALL = settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.differing_executors])
SCALED = st.builds(
    lambda digits, scale: Decimal(digits).scaleb(-scale), st.integers(-(10**38) + 1, 10**38 - 1), st.integers(0, 18)
)
# Decimal's own operations round to the context; texts do not.
WRITTEN = st.builds(
    lambda sign, digits, exponent: Decimal(f"{sign}{digits}E{exponent}"),
    st.sampled_from(["", "-"]),
    st.integers(0, 10**20 - 1),
    st.integers(-18, 18),
)


NAMES = st.sampled_from(
    ["status", "success", "data", "code", "message", "error", "errors", "results", "number", "text"]
)
NAMES |= st.sampled_from(["communicationNumber", "resultType", "errorCode", "errorDescription", "requestId"])
WORDS = st.sampled_from(
    ["accepted", "rejected", "success", "failed", "n1", "n2", "REQUEST_ACCEPTED", "REQUEST_REJECTED", "O005", "true"]
)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


class FaultConformance:
    """What holds whatever goes wrong; a subclass says in ``make_harness`` what is tested."""

    def make_harness(self) -> Harness:
        raise NotImplementedError

    @pytest.fixture
    def harness(self) -> Harness:
        return self.make_harness()

    def test_every_balance_arrives_once_exactly_and_is_on_a_receipt(self, harness: Harness) -> None:
        run = Run(harness)
        assert run.once(balances()) is None
        assert Counter(harness.books()) == Counter({(*harness.place(each), each.amount): 1 for each in balances()})
        assert run.outcomes() == {each.asset: "accepted" for each in balances()}
        assert (run.summary.accepted_now, run.summary.rows) == (6, 6)

    def test_what_is_accepted_is_not_sent_again(self, harness: Harness) -> None:
        run = Run(harness)
        run.until_green(balances())
        sent = len(harness.line.bodies)
        run.until_green(balances())
        assert len(harness.line.bodies) == sent
        assert run.summary.accepted_before == 6

    def test_everything_that_is_sent_is_on_a_receipt_before(self, harness: Harness) -> None:
        run = Run(harness)
        seen = []

        def look(body: bytes) -> None:
            events = run.events()
            tried = [made.body_sha256 for at, made in events.tries.items() if at not in events.results]
            seen.append(body in run.bodies(harness.destination()) and tried == [sha256(body).hexdigest()])

        harness.line.before = look
        run.until_green(balances(), max_rows=2)
        assert seen == [True, True, True]

    @pytest.mark.parametrize("name", ["plan-0001.jsonl.gz", "plan-0001/0001.try.jsonl"])
    def test_nothing_is_sent_whose_receipt_cannot_be_written(self, harness: Harness, name: str) -> None:
        run = Run(harness)

        def full(key: str) -> None:
            if key.endswith(name):
                raise StoreUnwritable("the disk is full")

        run.store.before_put = full
        assert isinstance(run.once(balances()), StoreUnwritable)
        assert harness.line.bodies == []
        run.store.before_put = lambda _: None
        run.until_green(balances())
        assert Counter(harness.books()) == Counter({(*harness.place(each), each.amount): 1 for each in balances()})

    @pytest.mark.parametrize("index", [0, 1, 2])
    @pytest.mark.parametrize("name", FAULTS)
    def test_whatever_happens_to_a_request_repeating_the_run_ends_with_the_very_balances(
        self, harness: Harness, name: str, index: int
    ) -> None:
        repeat_until_green(harness, FAULTS[name], index)

    def test_a_lost_response_leaves_the_outcome_unknown_and_the_same_rows_go_again(self, harness: Harness) -> None:
        harness.line.faults[0] = lost_before
        run = Run(harness)
        assert run.once(balances()) is not None
        assert set(run.outcomes().values()) == {"unknown"}
        run.until_green(balances())
        assert harness.line.bodies[0] == harness.line.bodies[1]
        assert len(harness.line.bodies) == 2

    def test_a_corrected_amount_takes_the_place_of_the_old_one_and_names_it(self, harness: Harness) -> None:
        run = Run(harness)
        run.until_green([balance("A0", "1.5"), balance("A1", "7")])
        run.until_green([balance("A0", "1.25"), balance("A1", "7")])
        assert held(harness) == due_there(harness, [balance("A0", "1.25"), balance("A1", "7")])
        old, new = sorted((row for row in run.rows() if row.asset == "A0"), key=lambda row: row.number)
        assert (new.supersedes, new.replaces) == ("1.5", old.number)
        assert len({row.number for row in run.rows()}) == 3

    def test_a_copy_that_hung_and_wakes_after_a_correction_does_not_have_the_last_word(self) -> None:
        old, new = balances(5), [balance(each.asset, each.amount + 1) for each in balances(5)]
        endings = [hung_at(step, self.make_harness(), old, new) for step in range(1, 40)]
        # It hung at every write and at every request, before and after its response.
        assert endings[0] == "hung"
        assert endings[-1] == "ended before"
        assert endings.count("hung") > 9

    def test_no_number_ever_has_two_contents(self, harness: Harness) -> None:
        run = Run(harness)
        for amount, fault in (
            ("1", lost_after),
            ("2", lost_before),
            ("1", None),
            ("3", status_after(500)),
            ("2", None),
        ):
            harness.line.faults = {} if fault is None else {len(harness.line.bodies): fault}
            run.once([balance("A0", amount), balance("A1", "7")])
        run.until_green([balance("A0", "2"), balance("A1", "7")])
        contents: dict[str, Any] = {}
        for row in run.rows():
            assert contents.setdefault(row.number, row.wire) == row.wire

    def test_a_bad_record_is_rejected_alone_and_goes_under_a_new_number_when_the_run_is_repeated(
        self, harness: Harness
    ) -> None:
        harness.refuse_bad()
        run, due = Run(harness), [*balances(5), balance(BAD)]
        assert run.once(due) is not None
        assert run.outcomes() == {each.asset: "rejected" if each.asset == BAD else "accepted" for each in due}
        assert held(harness) == due_there(harness, balances(5))
        sent = len(harness.line.bodies)
        assert run.once(due) is not None
        assert len(harness.line.bodies) == sent + 1
        numbers = [row.number for row in run.rows() if row.asset == BAD]
        assert len(set(numbers)) == len(numbers) >= 2
        # Corrected: it is left out.
        run.until_green(due, assets={BAD: "ignore"})
        assert len(harness.line.bodies) == sent + 1
        assert run.summary.ignored == 1

    @pytest.mark.parametrize("bad", [1, 2, 3])
    def test_a_request_refused_for_bad_records_is_divided_in_a_bounded_number_of_requests(
        self, harness: Harness, bad: int
    ) -> None:
        names = [f"{BAD}{index}" for index in range(bad)]

        def refuse(harness: Harness, act: Act) -> Response:
            if any(name.encode() in harness.line.bodies[-1] for name in names):
                return response(harness.whole_refusal(harness.record_code), 400)
            return act()

        harness.line.faults[-1] = refuse
        due = [*balances(12), *(balance(name) for name in names)]
        run = Run(harness)
        assert run.once(due) is not None
        assert run.outcomes() == {each.asset: "rejected" if each.asset in names else "accepted" for each in due}
        assert held(harness) == due_there(harness, balances(12))
        assert len(harness.line.bodies) <= 1 + 2 * bad * math.ceil(math.log2(len(due)))
        assert len(harness.line.bodies) <= 1 + 2 * MAX_DIVISIONS

    @pytest.mark.parametrize("status", [302, 401, 403, 404, 429, 500, 503])
    def test_no_refusal_of_credentials_address_or_moment_is_divided(self, harness: Harness, status: int) -> None:
        harness.line.faults[-1] = lambda harness, act: response(harness.whole_refusal(harness.record_code), status)
        run = Run(harness)
        assert run.once(balances(8)) is not None
        assert len(set(harness.line.bodies)) == 1
        assert run.summary.divided == 0

    def test_a_refusal_with_another_code_rejects_all_of_the_request_and_says_why(self, harness: Harness) -> None:
        harness.line.faults[0] = lambda harness, act: response(harness.whole_refusal("E77"), 400)
        run = Run(harness)
        error = run.once(balances(4), max_rows=2)
        assert "E77" in str(error)
        assert Counter(run.outcomes().values()) == {"rejected": 2, "accepted": 2}
        assert len(harness.line.bodies) == 2


class DestinationConformance(FaultConformance):
    """All that a destination must promise."""

    @SMALL
    @given(st.lists(SCALED | WRITTEN, min_size=1, max_size=12))
    @example([Decimal("-0"), Decimal("0E-18"), Decimal("-0.000000000000000000"), Decimal("1E+19"), Decimal("7E-9")])
    @example([Decimal("99999999999999999999.999999999999999999"), Decimal("-99999999999999999999.999999999999999999")])
    @example([Decimal("1E+20"), Decimal("1E-19"), Decimal("123456789012345678901234567890.12345678")])
    def test_the_text_on_the_wire_parses_to_the_identical_decimal(self, amounts: list[Decimal]) -> None:
        harness = self.make_harness()
        run = Run(harness)
        due = [Balance(asset, CLOSE_MS, amount, "close") for asset, amount in zip(ASSETS, amounts, strict=False)]
        fitting = [each for each in due if _fits(each.amount)]
        error = run.once(due)
        assert (error is None) == (fitting == due)
        # What cannot be held exactly is refused by name, and never rounded.
        assert {each.asset: "accepted" if each in fitting else "rejected" for each in due} == run.outcomes()
        assert held(harness) == due_there(harness, fitting)
        field = harness.destination().amount_field
        for body in harness.line.bodies:
            for row in _objects(json.loads(body, parse_float=_Digits, parse_int=_Digits, parse_constant=_Digits)):
                digits = str(row[field])
                assert isinstance(row[field], _Digits)
                assert not set(digits) - set("-.0123456789")
                assert not (digits.startswith("-") and Decimal(digits).is_zero())

    @pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "sNaN"])
    def test_what_is_no_number_is_never_sent(self, harness: Harness, amount: str) -> None:
        run = Run(harness)
        assert run.once([balance("A0", amount), balance("A1")]) is not None
        assert run.outcomes() == {"A0": "rejected", "A1": "accepted"}
        assert held(harness) == due_there(harness, [balance("A1")])

    @SMALL
    @given(st.lists(st.tuples(st.sampled_from(ASSETS), st.integers(0, 10**13)), min_size=2, max_size=12, unique=True))
    def test_two_balances_have_one_key_only_if_the_far_side_cannot_tell_them_apart(
        self, named: list[tuple[str, int]]
    ) -> None:
        harness = self.make_harness()
        due = [balance(asset, at_ms=at_ms) for asset, at_ms in named]
        keys = {harness.place(each): candidate.key for each, candidate in _candidates(harness, due)}
        assert len(set(keys.values())) == len(keys)
        assert all(keys[harness.place(each)] == candidate.key for each, candidate in _candidates(harness, due))

    @SMALL
    @given(st.permutations(list(range(10))), st.integers(1, 5))
    def test_the_same_balances_make_the_same_requests_in_whatever_order_they_come(
        self, order: list[int], max_rows: int
    ) -> None:
        bodies = []
        for indexes in (range(10), order):
            harness = self.make_harness()
            due = balances(10)
            Run(harness).until_green([due[index] for index in indexes], max_rows=max_rows)
            bodies.append(harness.line.bodies)
        assert bodies[0] == bodies[1]

    @SMALL
    @given(st.integers(1, 12), st.integers(1, 5), st.integers(1000, 3000))
    def test_no_request_holds_more_than_it_may(self, count: int, max_rows: int, max_bytes: int) -> None:
        harness = self.make_harness()
        run = Run(harness)
        assert run.once(balances(count), max_rows=max_rows, max_bytes=max_bytes) is None or run.summary.rejected_locally
        sizes = [len(_objects(json.loads(body))) for body in harness.line.bodies]
        assert all(1 <= size <= max_rows for size in sizes)
        assert all(len(body) <= max_bytes for body in harness.line.bodies)
        assert sum(sizes) + run.summary.rejected_locally == count

    def test_no_secret_is_on_a_receipt_in_a_message_or_a_log_even_if_the_far_side_sends_it_back(
        self, harness: Harness
    ) -> None:
        def echo(status: int) -> Fault:
            def fault(harness: Harness, act: Act) -> Response:
                spoken = json.dumps(dict(harness.line.headers[-1])) + " ".join(harness.secrets)
                return response(harness.unauthorized(spoken), status)

            return fault

        run = Run(harness)
        for index, status in enumerate((401, 403, 404, 400, 500, 200)):
            harness.line.faults = {index: echo(status)}
            assert run.once(balances(3)) is not None
        headers = [value for sent in harness.line.headers for name, value in sent.items() if _is_secret(name)]
        left = "".join(run.logged) + run.store.text() + repr(harness.destination())
        assert headers
        assert len(harness.line.bodies) == 6
        for secret in (*harness.secrets, *headers):
            assert secret not in left, left[max(0, left.index(secret) - 300) : left.index(secret) + 80]

    def test_the_more_rows_a_request_has_the_longer_its_timeouts_are(self, harness: Harness) -> None:
        run = Run(harness)
        run.until_green(balances(7), max_rows=6)
        (longer, longer_in_all), (shorter, shorter_in_all) = harness.line.times_s
        assert longer > shorter > 0
        assert longer_in_all > shorter_in_all >= shorter
        assert (longer_in_all, shorter_in_all) == (
            harness.destination().deadline_s(6),
            harness.destination().deadline_s(1),
        )
        harness.line.times_s.clear()
        run.until_green([balance("A0", "8")], timeout_s=111)
        assert harness.line.times_s[0][0] > 111

    def test_the_more_rows_a_request_has_the_longer_its_response_may_be(self, harness: Harness) -> None:
        Run(harness).until_green(balances(7), max_rows=6)
        longer, shorter = harness.line.max_bytes
        assert shorter < longer < 200_000

    def test_a_response_with_far_more_values_than_rows_is_refused_before_it_is_built(self, harness: Harness) -> None:
        harness.line.faults[0] = lambda harness, act: response(None, body=b"[" + b"{}," * 5_000 + b"{}]")
        run = Run(harness)
        error = run.once(balances(2))
        assert isinstance(error, InvalidResponse)
        assert "far more values than 2 records" in str(error)
        assert set(run.outcomes().values()) == {"unknown"}

    def test_a_document_with_a_key_twice_accepts_nothing(self, harness: Harness) -> None:
        def twice(body: bytes) -> bytes:
            first = next(iter(json.loads(body)))
            return b'{"%s": null, %s' % (first.encode(), body[1:])

        harness.line.faults[0] = body_after(twice)
        run = Run(harness)
        assert isinstance(run.once(balances(2)), InvalidResponse)
        assert set(run.outcomes().values()) == {"unknown"}
        run.until_green(balances(2))

    def test_a_refusal_whose_document_accepts_leaves_the_outcome_unknown(self, harness: Harness) -> None:
        harness.line.faults[0] = lambda harness, act: response(json.loads(act().body), 400)
        run = Run(harness)
        assert isinstance(run.once(balances(2)), InvalidResponse)
        assert set(run.outcomes().values()) == {"unknown"}
        run.until_green(balances(2))
        assert held(harness) == due_there(harness, balances(2))

    def test_a_redirect_leaves_the_outcome_unknown_because_it_may_follow_an_acceptance(self, harness: Harness) -> None:
        harness.line.faults[0] = status_after(303)
        run = Run(harness)
        run.once(balances(2))
        assert set(run.outcomes().values()) == {"unknown"}
        run.until_green(balances(2))
        assert held(harness) == due_there(harness, balances(2))

    @settings(SMALL, max_examples=examples(40))
    @given(st.sampled_from([200, 201, 204, 302, 400, 401, 404, 408, 409, 422, 429, 500]), DOCUMENTS)
    def test_whatever_comes_back_is_read_as_facts_about_what_was_sent(self, status: int, document: Any) -> None:
        harness = self.make_harness()
        harness.line.faults[-1] = lambda harness, act: response(document, status)
        destination = harness.destination()
        try:
            reply = destination.send(destination.encode([]), ["n1", "n2"])
        except RateLimited:
            assert status == 429
            return
        words = [word for word in (reply.result.whole, *reply.result.records.values()) if word is not None]
        assert set(reply.result.records) <= {"n1", "n2"}
        assert all(len(word.code) <= 61 and len(word.text) <= 501 for word in words)
        assert 200 <= status < 300 or all(word.said != Said.ACCEPTED for word in words)
        if reply.stop is not None and status < 400:
            assert [word.said for word in words] == [Said.NOTHING]

    def test_a_place_is_identified_by_its_address_and_holds_no_secret(self, harness: Harness) -> None:
        here, same, there = (
            harness.destination(url=f"https://{host}/in") for host in ("a.test", "A.test:443", "b.test")
        )
        assert here.place() == same.place() != there.place()
        assert here.place()["kind"] == here.kind
        assert not [secret for secret in harness.secrets if secret in str((here.place(), here.key_settings()))]
        guarded = harness.destination(url=f"https://user:{harness.secrets[0]}@a.test/in?key={harness.secrets[0]}")
        assert guarded.place() == here.place()

    def test_records_with_the_same_content_differ_only_in_their_numbers_and_points(self, harness: Harness) -> None:
        destination = harness.destination()
        one, again, other = destination.prepare([balance("A0"), balance("A0", points="open"), balance("A0", "2")])
        follows = {"number": "n1", "replaces": "n0", "supersedes": "7"}
        wires = [one.wire, *(destination.numbered(structs.replace(row, **follows)) for row in (again, other))]
        first, second, third = map(content, wires)
        assert first == second != third

    def test_what_is_to_be_ignored_is_left_out_and_counted(self, harness: Harness) -> None:
        run = Run(harness)
        run.until_green([*balances(3), balance(BAD)], assets={BAD: "ignore"})
        assert held(harness) == due_there(harness, balances(3))
        assert run.summary.ignored == 1
        assert all(BAD.encode() not in body for body in harness.line.bodies)

    def test_what_is_too_long_to_be_sent_is_rejected_by_name_and_the_others_go(self, harness: Harness) -> None:
        run = Run(harness)
        error = run.once([*balances(3), balance("L" * 300)])
        assert "L" * 20 in str(error)
        assert held(harness) == due_there(harness, balances(3))
        assert run.outcomes()["L" * 300] == "rejected"

    def test_a_dry_run_sends_nothing_leaves_no_receipt_and_shows_the_very_rows(self, harness: Harness) -> None:
        run = Run(harness)
        run.once(balances(5), dry_run=True, max_rows=2)
        assert not harness.line.bodies
        assert not [key for key in run.store.objects if key.startswith("receipts/")]
        (shown,) = (value for key, value in run.store.objects.items() if key.startswith("dry/"))
        run.until_green(balances(5), max_rows=2)
        destination, plan = harness.destination(), decode(shown, Plan, "dry")
        previewed = [destination.encode(row.wire for row in batch) for batch in plan.batches().values()]
        assert previewed == harness.line.bodies

    def test_the_connection_test_delivers_nothing_and_finds_a_server_that_is_none(self, harness: Harness) -> None:
        right, reported = harness.destination().check()
        assert right, reported
        assert "Not checked" in reported
        harness.line.faults[-1] = html
        harness.line.before = lambda _: None
        original = harness.respond
        harness.respond = lambda call: Reply(404, {"error": "nothing here"})  # type: ignore[method-assign]
        assert not harness.destination().check()[0]
        harness.respond = original  # type: ignore[method-assign]
        assert harness.books() == []


class PerRecordFaultConformance(FaultConformance):
    """What holds for a destination that has a result for each record, whatever goes wrong."""

    @pytest.mark.parametrize("index", [0, 1, 2])
    @pytest.mark.parametrize("name", RESULT_FAULTS)
    def test_results_are_matched_by_number_and_what_has_none_is_unknown(
        self, harness: Harness, name: str, index: int
    ) -> None:
        repeat_until_green(harness, RESULT_FAULTS[name], index)

    def test_one_missing_result_makes_one_balance_unknown(self, harness: Harness) -> None:
        harness.line.faults[0] = RESULT_FAULTS["one result is missing"]
        run = Run(harness)
        assert isinstance(run.once(balances()), OutcomeUnknown)
        assert Counter(run.outcomes().values()) == {"accepted": 5, "unknown": 1}


class PerRecordConformance(PerRecordFaultConformance, DestinationConformance):
    """All that a destination must promise that has a result for each record."""


class _Digits(str):
    """A JSON number as it was sent."""


def _fits(amount: Decimal) -> bool:
    try:
        return Decimal(to_text(amount)) == amount
    except InvalidAmount:
        return False


def _objects(document: Any) -> list[dict[str, Any]]:
    """The rows of a request, wherever they stand in it."""
    if isinstance(document, list):
        return document
    (rows,) = (value for value in document.values() if isinstance(value, list))
    return rows


def _candidates(harness: Harness, due: list[Balance]) -> list[tuple[Balance, Any]]:
    rows = harness.destination().prepare(due)
    assert all(row.action is Action.SEND for row in rows)
    return list(zip(due, rows, strict=True))


def _is_secret(name: str) -> bool:
    return any(part in name for part in ("auth", "sign", "api-key"))
