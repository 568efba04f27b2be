from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balance_bridge import daily, decisions
from balance_bridge.decisions import Act, Decision
from balance_bridge.errors import (
    BudgetExhausted,
    Contradiction,
    CredentialsRefused,
    InvalidAmount,
    InvalidResponse,
    NotYetAvailable,
    ReconciliationBroken,
    RequestRefused,
    RetentionExceeded,
    ServerFault,
    StoreDamaged,
)
from balance_bridge.extract import raw
from balance_bridge.transform import balances, ledger
from doubles import Killed

DAY = date(2026, 11, 20)
CLOSE_MS = 1_795_219_200_000
WANTED = [
    daily.BalanceRequest("elven", ["close", "changes"], "Asia/Shanghai", "local_second", DAY),
    daily.BalanceRequest("amlyze", ["open", "close"], "UTC", "instant", DAY),
]
NONE: dict[str, Decimal] = {}


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The exchange in memory that the tests of extraction use."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "extract" / "conftest.py")))


class Run:
    """An account's day, stage by stage, as the tasks of a DAG run it."""

    def __init__(self, kit: SimpleNamespace) -> None:
        self.clock = kit.FakeClock()
        self.exchange = kit.FakeExchange(kit.World(days=4, per_day=12), self.clock)
        self.store = kit.MemoryStore()
        self.told: list[str] = []
        self.left = 0

    def job(self, run_id: str = "run-1", day: date = DAY, *, refetch: bool = False) -> daily.Job:
        return daily.Job(self.exchange, self.store, "main_cash", day, run_id, refetch, self.told.append)

    def extract(self, job: daily.Job, tolerance: Any = NONE) -> dict[str, Any]:
        self.handed_on(daily.fetch_snapshot(job, "opening"))
        self.handed_on(daily.fetch_snapshot(job, "closing"))
        return self.handed_on(daily.fetch_history(job, tolerance))

    def retried(self, job: daily.Job, handed_on: dict[str, Any]) -> None:
        """Run the stages that have not handed anything on yet, as a retried task does."""
        for which in ("opening", "closing"):
            if which not in handed_on:
                handed_on[which] = self.handed_on(daily.fetch_snapshot(job, which))
        if "extracted" not in handed_on:
            handed_on["extracted"] = self.handed_on(daily.fetch_history(job, {}))
        daily.reconcile(job, handed_on["extracted"], tolerance={}, on_break="hold", destinations=WANTED)

    def all(self, job: daily.Job, *, tolerance: Any = NONE, on_break: Any = "hold") -> dict[str, Any]:
        extracted = self.extract(job, tolerance)
        done = daily.reconcile(job, extracted, tolerance=tolerance, on_break=on_break, destinations=WANTED)
        return self.handed_on(done)

    @staticmethod
    def handed_on(result: dict[str, Any]) -> dict[str, Any]:
        """What a stage hands on must survive as JSON."""
        document: dict[str, Any] = json.loads(json.dumps(result))
        assert document == result
        return document

    def report(self) -> Any:
        return self.store.read_json(self.store.newest(f"reconciliation/main_cash/{DAY}", ".json"))

    def lose(self, *places: int, times: int = 10**9) -> None:
        """Have the exchange leave out records of the day, by place, in the answers of the next ``times`` requests."""
        opening, closing = (self.exchange.world.snapshots[day][0] for day in (DAY, date(2026, 11, 21)))
        lost = {self.exchange.world.between(opening, closing)[place] for place in places}
        left = [times]

        def alter(_: str, document: Any) -> Any:
            left[0] -= 1
            for name in ("order", "balance") if left[0] >= 0 and "order" in document else ():
                document[name] = [record for record in document[name] if record["sn"] not in lost]
            return document

        self.exchange.alter = alter


@pytest.fixture
def run(kit: SimpleNamespace) -> Run:
    made = Run(kit)
    # Every page large enough for the day, so that a lost record does not end the paging.
    made.exchange.page_limit = 40
    return made


def test_snapshots_whose_numbers_fall_are_fetched_once_more_and_refused(run: Run) -> None:
    run.exchange.world.snapshots[date(2026, 11, 21)] = (5, {})
    with pytest.raises(Contradiction, match=r"closing snapshot's sn 5 is below the opening one's 10000"):
        run.extract(run.job())
    assert run.exchange.asked == ["snapshot 2026-11-20", "snapshot 2026-11-21"] * 2


def test_a_day_that_adds_up_is_proven_and_ready_for_every_destination(run: Run) -> None:
    done = run.all(run.job())
    assert done["status"] == "proven"
    assert done["records"] == 12
    assert done["ledger"] == f"ledger/main_cash/{DAY}/0001.parquet"
    assert done["reconciliation"] == f"reconciliation/main_cash/{DAY}/0001.json"
    assert done["balances"] == {name: f"balances/main_cash/{DAY}/{name}/0001.parquet" for name in ("elven", "amlyze")}
    book = ledger.from_parquet(run.store.read(done["ledger"]))
    assert book["sn"].nunique() == 12
    due = balances.from_parquet(run.store.read(done["balances"]["amlyze"]))
    closing = run.exchange.world.snapshots[date(2026, 11, 21)][1]
    of_close = due[due["points"] == "close"]
    assert dict(zip(of_close["asset"], of_close["balance"], strict=True)) == closing
    assert any("12 records" in line and "proven" in line for line in run.told)


def test_the_report_says_what_it_was_made_of(run: Run) -> None:
    done = run.all(run.job())
    report = run.report()
    assert report["status"] == "proven"
    assert report["account"] == "main_cash"
    assert report["day"] == "2026-11-20"
    opening, closing = (run.exchange.world.snapshots[day] for day in (DAY, date(2026, 11, 21)))
    for end, at_ms, (sn, held) in (("opening", CLOSE_MS - 86_400_000, opening), ("closing", CLOSE_MS, closing)):
        balances_then = {asset: f"{amount:f}" for asset, amount in held.items()}
        assert report[end] == {"at_ms": at_ms, "sn": sn, "balances": balances_then}
    assert report["ledger"] == done["ledger"]
    for key in (report["ledger"], report["history"]):
        assert run.store.list(key) or run.store.exists(key)


def test_records_moved_into_the_day_are_counted_for_each_destination_and_logged(run: Run) -> None:
    for _, _, document in run.exchange.world.records[:2]:
        document["transactTime"] = CLOSE_MS - 86_400_000 + 400  # where keys are seconds, the opening's second
    run.all(run.job())
    assert run.report()["moved"] == {"elven": 2, "amlyze": 0}
    of_elven, of_amlyze = (next(line for line in run.told if line.startswith(name)) for name in ("elven", "amlyze"))
    assert "2 records moved into the day" in of_elven
    assert "moved" not in of_amlyze


def test_a_day_done_again_gives_the_same_keys_and_asks_nothing(run: Run) -> None:
    first = run.all(run.job())
    before = dict(run.store.objects)
    run.exchange.asked.clear()
    for run_id in ("run-1", "run-2"):
        assert run.all(run.job(run_id)) == first
    run.clock.now += 365 * 86_400
    assert run.all(run.job("a year later")) == first
    assert run.exchange.asked == []
    assert run.store.objects == before


def test_the_day_before_can_be_done_after_the_day(run: Run) -> None:
    run.clock.now += 86_400
    second = run.all(run.job(day=date(2026, 11, 21)))
    first = run.all(run.job())
    assert (first["status"], second["status"]) == ("proven", "proven")


def test_a_closing_snapshot_that_is_not_there_yet_names_the_day_that_waits(run: Run) -> None:
    del run.exchange.world.snapshots[date(2026, 11, 21)]
    assert daily.fetch_snapshot(run.job(), "opening")["sn"] == 10_000
    with pytest.raises(NotYetAvailable, match="the closing snapshot of 2026-11-20, dated 2026-11-21, is not there yet"):
        daily.fetch_snapshot(run.job(), "closing")


ASKED_ONCE_MORE = ["snapshot 2026-11-20", "snapshot 2026-11-21", "changes 10001"] * 2


def test_a_break_is_asked_about_once_more_before_it_is_believed(run: Run) -> None:
    run.lose(6)
    with pytest.raises(ReconciliationBroken):
        run.all(run.job())
    assert run.exchange.asked == ASKED_ONCE_MORE
    assert any("fetching it once more before that is believed" in line for line in run.told)
    # A retry asks nothing a third time; a later run, whose exchange may know better, asks once.
    for run_id, asked in (("run-1", []), ("run-2", ASKED_ONCE_MORE[:3]), ("run-2", [])):
        run.exchange.asked.clear()
        with pytest.raises(ReconciliationBroken):
            run.all(run.job(run_id))
        assert run.exchange.asked == asked


def test_records_that_appear_late_heal_the_day(run: Run) -> None:
    run.lose(6, times=3)
    done = run.all(run.job())
    assert done["status"] == "proven"
    assert run.exchange.asked == ASKED_ONCE_MORE
    report = run.report()
    assert report["history"].endswith("/history/0002")
    first = run.all(run.job("later"))
    assert first == done


def test_a_snapshot_that_was_corrected_heals_the_day(run: Run) -> None:
    world, closing = run.exchange.world, date(2026, 11, 21)
    sn, right = world.snapshots[closing]
    world.snapshots[closing] = (sn, right | {"BTC": Decimal(0)})

    def correct(request: str) -> None:
        if run.exchange.asked.count("snapshot 2026-11-21"):
            world.snapshots[closing] = (sn, right)

    run.exchange.before_ask = correct
    job = run.job()
    given = daily.fetch_snapshot(job, "closing")
    first = daily.fetch_history(job, {})
    assert run.store.read_json(first["manifest"])["closing"] != given["key"]
    # A retry takes the snapshots that belong to the pages.
    again = daily.fetch_history(job, {})
    assert again == first | {"pages_fetched": 0}
    done = daily.reconcile(run.job(), again, tolerance={}, on_break="hold", destinations=WANTED)
    assert done["status"] == "proven"


def test_a_break_without_any_record_is_asked_about_once_more_as_well(run: Run) -> None:
    world, closing = run.exchange.world, date(2026, 11, 21)
    world.snapshots[closing] = (10_000, world.snapshots[closing][1])
    with pytest.raises(ReconciliationBroken, match=r"BTC: .* unexplained between sn 10000 and 10000"):
        run.all(run.job())
    assert run.exchange.asked == ["snapshot 2026-11-20", "snapshot 2026-11-21"] * 2


def stored(run: Run) -> dict[str, bytes]:
    """The store but for times."""
    return {key: raw.unpack(data, key).body if key.endswith(".gz") else data for key, data in run.store.objects.items()}


@pytest.mark.parametrize("page_limit", [40, 5])
@pytest.mark.parametrize("refetch", [False, True])
def test_killed_at_any_step_of_a_broken_day_a_retry_ends_as_a_clean_run(
    kit: SimpleNamespace, page_limit: int, refetch: bool
) -> None:
    def broken_day() -> Run:
        made = Run(kit)
        made.exchange.page_limit = page_limit
        sn, right = made.exchange.world.snapshots[date(2026, 11, 21)]
        made.exchange.world.snapshots[date(2026, 11, 21)] = (sn, right | {"BTC": Decimal(0)})
        return made

    steps: list[str] = []
    clean = broken_day()
    clean.exchange.before_ask = clean.store.before_put = steps.append
    with pytest.raises(ReconciliationBroken):
        clean.retried(clean.job(refetch=refetch), {})
    for at in range(len(steps)):
        run, handed_on, left = broken_day(), {}, iter(range(at))

        def step(_: str, left: Any = left) -> None:
            if next(left, None) is None:
                raise Killed

        run.exchange.before_ask = run.store.before_put = step
        with pytest.raises(Killed):
            run.retried(run.job(refetch=refetch), handed_on)
        run.exchange.before_ask = run.store.before_put = lambda _: None
        with pytest.raises(ReconciliationBroken):
            run.retried(run.job(refetch=refetch), handed_on)
        assert stored(run) == stored(clean), f"killed before {steps[at]}"
        assert len(run.exchange.asked) <= len(clean.exchange.asked) + 1


def test_asking_once_more_that_the_window_closes_on_leaves_what_there_was(run: Run) -> None:
    run.lose(6)
    handed_on: dict[str, Any] = {}
    places = iter(["opening", "closing", "changes", "opening"])

    def kill(_: str) -> None:
        if next(places, None) is None:
            raise Killed

    run.exchange.before_ask = kill
    with pytest.raises(Killed):
        run.retried(run.job(), handed_on)
    run.exchange.before_ask = lambda _: None
    run.clock.now += 30 * 86_400
    with pytest.raises(ReconciliationBroken):
        run.retried(run.job(), handed_on)
    manifest = run.store.read_json(handed_on["extracted"]["manifest"])
    assert manifest["history"].endswith("/history/0001")
    assert manifest["opening"] == handed_on["opening"]["key"]


def test_hold_delivers_nothing_and_leaves_ledger_and_report(run: Run) -> None:
    run.lose(6)
    with pytest.raises(ReconciliationBroken) as caught:
        run.all(run.job())
    told = str(caught.value)
    assert "main_cash 2026-11-20 does not add up, so nothing of it is delivered" in told
    assert '{"date": "2026-11-20", "refetch": true}' in told
    report = run.report()
    assert report["status"] == "broken"
    assert report["break_count"] >= 1
    first = report["breaks"][0]
    for name in ("asset", "amount", "last_good_sn", "first_bad_sn"):
        assert str(first[name]) in told
    assert max(map(len, caught.value.log_entry().split("\n"))) <= 110
    assert " ... " not in caught.value.log_entry()
    assert run.store.exists(report["ledger"])
    assert run.store.list("balances") == []


def test_load_delivers_and_marks(run: Run) -> None:
    run.lose(6)
    done = run.all(run.job(), on_break="load")
    assert done["status"] == "broken"
    assert "broken" in done["summary"]
    assert set(done["balances"]) == {"elven", "amlyze"}
    due = balances.from_parquet(run.store.read(done["balances"]["amlyze"]))
    closing = run.exchange.world.snapshots[date(2026, 11, 21)][1]
    of_close = due[due["points"] == "close"]
    assert dict(zip(of_close["asset"], of_close["balance"], strict=True)) == closing, (
        "the snapshot's value is delivered"
    )


def decide(run: Run, act: Act, proof: str | None = None) -> None:
    decision = Decision(act, "alice", "2026-11-21T08:00:00.000Z", "seen it", proof=proof or run.report()["proof"])
    decisions.record(run.store, "main_cash", DAY, decision)


def test_a_day_that_somebody_is_asked_about_is_held_until_they_have_decided(run: Run) -> None:
    run.lose(6)
    with pytest.raises(ReconciliationBroken, match="waiting for a decision") as caught:
        run.all(run.job(), on_break="ask")
    assert f"balance-bridge approve main_cash {DAY}" in caught.value.do
    assert run.store.list("balances") == []
    decide(run, Act.APPROVED)
    done = run.all(run.job("run-2"), on_break="ask")
    assert (done["status"], done["approval"]["by"], done["approval"]["reason"]) == ("broken", "alice", "seen it")
    assert run.report()["approval"] == done["approval"], "whoever reads the report sees who approved it"
    assert set(done["balances"]) == {"elven", "amlyze"}


def test_a_day_that_somebody_has_refused_stays_held_and_says_who_refused_it(run: Run) -> None:
    run.lose(6)
    with pytest.raises(ReconciliationBroken):
        run.all(run.job(), on_break="ask")
    decide(run, Act.REFUSED)
    with pytest.raises(ReconciliationBroken, match="alice refused it"):
        run.all(run.job("run-2"), on_break="ask")
    assert run.store.list("balances") == []


def test_an_approval_is_about_one_proof_and_no_other(run: Run) -> None:
    run.lose(6)
    with pytest.raises(ReconciliationBroken):
        run.all(run.job(), on_break="ask")
    decide(run, Act.APPROVED)
    run.lose(6, 7)
    with pytest.raises(ReconciliationBroken, match="waiting for a decision"):
        run.all(run.job("run-2", refetch=True), on_break="ask")
    assert run.store.list("balances") == []


def test_an_approval_is_about_the_records_too_where_others_leave_the_same_gap(run: Run) -> None:
    run.lose(6)
    with pytest.raises(ReconciliationBroken):
        run.all(run.job(), on_break="ask")
    decide(run, Act.APPROVED)
    lose = run.exchange.alter

    def later(path: str, document: Any) -> Any:
        document = lose(path, document)
        for name in ("order", "balance") if "order" in document else ():
            document[name] = [{**record, "transactTime": record["transactTime"] + 1000} for record in document[name]]
        return document

    before = run.report()
    run.exchange.alter = later
    with pytest.raises(ReconciliationBroken, match="waiting for a decision"):
        run.all(run.job("run-2", refetch=True), on_break="ask")
    same = ("status", "drift", "breaks", "records", "opening", "closing")
    assert [run.report()[name] for name in same] == [before[name] for name in same]


def test_an_approval_says_nothing_where_nobody_is_asked(run: Run) -> None:
    run.lose(6)
    with pytest.raises(ReconciliationBroken):
        run.all(run.job(), on_break="hold")
    decide(run, Act.APPROVED)
    with pytest.raises(ReconciliationBroken):
        run.all(run.job("run-2"), on_break="hold")


def test_a_day_that_adds_up_needs_no_approval(run: Run) -> None:
    done = run.all(run.job(), on_break="ask")
    assert (done["status"], done["approval"]) == ("proven", None)


def test_a_drift_within_the_tolerance_is_tolerated_and_not_asked_about(run: Run) -> None:
    world, closing = run.exchange.world, date(2026, 11, 21)
    sn, right = world.snapshots[closing]
    world.snapshots[closing] = (sn, right | {"BTC": right["BTC"] + Decimal("1e-8")})
    done = run.all(run.job(), tolerance={"BTC": Decimal("1e-8")})
    assert done["status"] == "tolerated"
    assert len(run.exchange.asked) == 3
    assert run.report()["drift"] == {"BTC": "0.00000001"}


def test_outside_the_window_a_break_is_believed_with_a_note(run: Run) -> None:
    run.lose(6)
    run.extract(run.job())
    # As if the run had ended before it could ask once more, and a week had gone by.
    for key in [key for key in run.store.objects if "/0002" in key]:
        del run.store.objects[key]
    run.exchange.asked.clear()
    run.clock.now += 30 * 86_400
    with pytest.raises(ReconciliationBroken):
        run.all(run.job())
    assert run.exchange.asked == []
    assert any("it cannot be fetched again" in line for line in run.told)
    assert run.all(run.job(), on_break="load")["status"] == "broken"


def test_a_refetch_asks_for_the_whole_day_anew_and_supersedes(run: Run) -> None:
    run.lose(6)
    with pytest.raises(ReconciliationBroken):
        run.all(run.job())
    run.exchange.alter = lambda _, document: document
    run.exchange.asked.clear()
    done = run.all(run.job("run-2", refetch=True))
    assert done["status"] == "proven"
    assert run.exchange.asked == ASKED_ONCE_MORE[:3]
    assert done["ledger"].endswith("0002.parquet")
    run.exchange.asked.clear()
    assert run.all(run.job("run-2", refetch=True)) == done, "a retry of the same run asks nothing"
    assert run.all(run.job("run-3")) == done, "and a later run builds on it"
    assert run.exchange.asked == []


def test_a_refetch_outside_the_window_fails_and_changes_nothing(run: Run) -> None:
    run.all(run.job())
    before = dict(run.store.objects)
    run.clock.now += 30 * 86_400
    with pytest.raises(RetentionExceeded):
        run.all(run.job("run-2", refetch=True))
    assert run.store.objects == before


def test_a_break_at_the_first_asking_of_a_refetch_is_asked_about_as_well(run: Run) -> None:
    run.lose(6, times=3)
    assert run.all(run.job(refetch=True))["status"] == "proven"
    assert run.exchange.asked == ASKED_ONCE_MORE


def alter_legs(run: Run, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the USDT legs of the day's first order."""

    def alter(request: str, document: Any) -> Any:
        for leg in document["order"][-1]["data"][1:] if request.startswith("changes") else ():
            change(leg)
        return document

    run.exchange.alter = alter


def test_a_record_that_contradicts_itself_stops_the_day(run: Run) -> None:
    alter_legs(run, lambda leg: leg.update(curBalance="5") if leg["dataType"] == "fee" else None)
    with pytest.raises(InvalidResponse, match=r"sn \d+: the legs of USDT give different balances"):
        run.extract(run.job())


def test_a_sum_that_cannot_be_held_stops_the_day_by_its_number(run: Run) -> None:
    alter_legs(run, lambda leg: leg.update(deltaQty="99999999999999999999"))
    with pytest.raises(InvalidAmount, match=r"sn \d+, USDT: the sum of the legs"):
        run.extract(run.job())


@pytest.mark.parametrize("damage", ["gone", "another"])
def test_a_ledger_that_is_not_the_proven_one_is_refused_and_made_anew_from_the_pages(run: Run, damage: str) -> None:
    extracted = run.extract(run.job())
    (key,) = run.store.list("ledger")
    right = run.store.objects.pop(key)
    if damage == "another":
        run.store.objects[key] = ledger.to_parquet(ledger.from_parquet(right).iloc[:-1])
    with pytest.raises(StoreDamaged, match=r"is missing from the store|is not the ledger that was proven"):
        daily.reconcile(run.job(), extracted, tolerance={}, on_break="load", destinations=WANTED)
    run.exchange.asked.clear()
    done = run.all(run.job("run-2"))
    assert run.store.read(done["ledger"]) == right
    assert run.exchange.asked == []


def test_days_that_the_exchange_is_about_to_forget_are_fetched_first(run: Run) -> None:
    run.clock.now += 5 * 86_400  # today is the 26th: the 19th is the oldest day to be had
    run.clock.now += 86_400  # the 27th: the 20th
    later = run.job("backwards", day=date(2026, 11, 23))
    assert daily.rescue_expiring_days(later, DAY, NONE) == [DAY, date(2026, 11, 21)]
    run.exchange.asked.clear()
    assert daily.rescue_expiring_days(later, DAY, NONE) == []
    done = run.all(run.job())
    assert done["status"] == "proven"
    assert run.exchange.asked == [], "the day's own run asks for nothing"


def test_no_day_before_the_start_or_from_the_job_s_own_on_is_fetched_ahead(run: Run) -> None:
    run.clock.now += 6 * 86_400
    assert daily.rescue_expiring_days(run.job(day=date(2026, 11, 22)), date(2026, 11, 22), NONE) == []
    assert daily.rescue_expiring_days(run.job(), date(2026, 11, 1), NONE) == []
    assert run.exchange.asked == []


def test_a_day_that_cannot_be_fetched_ahead_does_not_stop_the_job(run: Run) -> None:
    run.clock.now += 6 * 86_400
    del run.exchange.world.snapshots[DAY]
    later = run.job(day=date(2026, 11, 23))
    assert daily.rescue_expiring_days(later, DAY, NONE) == [date(2026, 11, 21)]
    assert any("2026-11-20 could not be fetched ahead of its own run" in line for line in run.told)


def test_days_run_backwards_give_the_same_as_forwards(kit: SimpleNamespace) -> None:
    results = []
    days = [date(2026, 11, 20 + ahead) for ahead in range(3)]
    for order in (days, days[::-1]):
        made = Run(kit)
        made.clock.now += 3 * 86_400
        done = {day: made.all(made.job(f"run of {day}", day)) for day in order}
        results.append(
            {
                day: [made.store.read(key) for key in (result["ledger"], *result["balances"].values())]
                for day, result in done.items()
            }
        )
    assert results[0] == results[1]


def test_a_budget_that_is_used_up_stops_the_stage_which_goes_on_from_the_store(run: Run) -> None:
    run.exchange.page_limit = 5
    places = iter([3, 2])

    def used_up(request: str) -> None:
        if run.left == 0:
            run.left = next(places)
            raise BudgetExhausted("no place", wait_s=60.0)
        run.left -= 1

    run.left = 1
    run.exchange.before_ask = used_up
    waits = 0
    while True:
        try:
            extracted = run.extract(run.job())
            break
        except BudgetExhausted:
            waits += 1
    assert (waits, len(run.exchange.asked)) == (2, 5)
    assert extracted["records"] == 12


def test_a_proven_day_is_replayed_though_a_refetch_stored_nonsense_and_the_window_closed(run: Run) -> None:
    for endpoint in ("snapshot", "changes"):
        proven = run.all(run.job())
        run.exchange.alter = lambda request, document, of=endpoint: b"<html>" if of in request else document
        with pytest.raises(InvalidResponse):
            run.all(run.job(f"nonsense of {endpoint}", refetch=True))
        run.exchange.alter = lambda _, document: document
        then = run.clock.now
        run.clock.now += 30 * 86_400
        run.exchange.asked.clear()
        assert run.all(run.job(f"after {endpoint}")) == proven
        assert run.exchange.asked == []
        run.clock.now = then


@pytest.mark.parametrize("cap", [3, 5, 11])
def test_an_exchange_that_caps_its_pages_is_paged_to_the_end_before_a_break_is_believed(run: Run, cap: int) -> None:
    def capped(request: str, document: Any) -> Any:
        kept = sorted(record["sn"] for name in ("order", "balance") for record in document.get(name, ()))[:cap]
        for name in ("order", "balance") if request.startswith("changes") else ():
            document[name] = [record for record in document[name] if record["sn"] in kept]
        return document

    run.exchange.alter = capped
    done = run.all(run.job())
    assert (done["status"], done["records"]) == ("proven", 12)
    run.exchange.asked.clear()
    assert run.all(run.job("run-2")) == done
    assert run.exchange.asked == []


def test_a_day_has_its_own_second_attempt_though_an_expiring_day_before_it_used_one(run: Run) -> None:
    run.clock.now += 6 * 86_400  # today is the 27th: the 20th is the oldest available day
    closing = date(2026, 11, 21)
    own = run.exchange.world.between(*(run.exchange.world.snapshots[date(2026, 11, day)][0] for day in (21, 22)))
    sn, right = run.exchange.world.snapshots[DAY]
    run.exchange.world.snapshots[DAY] = (sn, right | {"BTC": Decimal(0)})  # the expiring day never adds up

    def late(request: str, document: Any) -> Any:
        if request.startswith("changes") and run.exchange.asked.count("snapshot 2026-11-22") < 2:
            for name in ("order", "balance"):
                document[name] = [record for record in document[name] if record["sn"] != own[4]]
        return document

    run.exchange.alter = late
    job = run.job(day=closing)
    assert daily.rescue_expiring_days(job, DAY, NONE) == [DAY]
    for which in ("opening", "closing"):
        daily.fetch_snapshot(job, which)  # type: ignore[arg-type]
    found = daily.fetch_history(job, {})
    assert (found["status"], found["history"]) == ("proven", f"raw/main_cash/{closing}/history/0002")


def test_a_day_that_the_store_has_asks_nothing_though_others_are_about_to_expire(run: Run) -> None:
    later = run.job(day=date(2026, 11, 23))
    run.clock.now += 4 * 86_400
    run.all(later)
    run.clock.now += 2 * 86_400  # the 20th and the 21st are about to go
    run.exchange.asked.clear()
    replay = run.job("replay", day=date(2026, 11, 23))
    assert daily.rescue_expiring_days(replay, DAY, NONE) == []
    run.all(replay)
    assert run.exchange.asked == []


def test_a_refused_key_is_refused_once_and_no_other_day_is_tried_with_it(run: Run) -> None:
    run.clock.now += 6 * 86_400
    refused: list[str] = []

    def refuse(request: str) -> None:
        refused.append(request)
        raise CredentialsRefused("not with this key")

    run.exchange.before_ask = refuse
    with pytest.raises(CredentialsRefused):
        daily.rescue_expiring_days(run.job(day=date(2026, 11, 23)), DAY, NONE)
    assert len(refused) == 1


def test_what_the_exchange_said_it_does_not_have_is_not_asked_for_again_on_behalf_of_other_days(run: Run) -> None:
    run.clock.now += 6 * 86_400
    # It closes the 20th and opens the 21st, both about to expire.
    del run.exchange.world.snapshots[date(2026, 11, 21)]
    for run_id, asked in (("run-1", ["snapshot 2026-11-20", "snapshot 2026-11-21"]), ("run-1", []), ("run-2", [])):
        run.exchange.asked.clear()
        assert daily.rescue_expiring_days(run.job(run_id, day=date(2026, 11, 23)), DAY, NONE) == []
        assert run.exchange.asked == asked


def test_changed_tolerances_are_applied_to_the_proven_ledger(run: Run) -> None:
    world, closing = run.exchange.world, date(2026, 11, 21)
    sn, right = world.snapshots[closing]
    world.snapshots[closing] = (sn, right | {"BTC": right["BTC"] + Decimal("1e-8")})
    with pytest.raises(ReconciliationBroken):
        run.all(run.job())
    allowed = {"BTC": Decimal("1e-8")}
    newest = run.store.newest(f"raw/main_cash/{DAY}/manifest", ".json")
    done = daily.reconcile(run.job(), {"manifest": newest}, tolerance=allowed, on_break="hold", destinations=WANTED)
    assert done["status"] == "tolerated"
    run.exchange.asked.clear()
    assert run.all(run.job("run-2"), tolerance=allowed)["status"] == "tolerated"
    assert run.exchange.asked == []
    with pytest.raises(ReconciliationBroken):
        run.all(run.job("run-3"))


def test_a_break_names_the_records_beyond_the_closing_sn_whose_time_lies_inside_the_day(run: Run) -> None:
    world, closing = run.exchange.world, date(2026, 11, 21)
    sn, right = world.snapshots[closing]
    late = next(record for record in world.records if record[0] > sn)
    late[2]["transactTime"] = CLOSE_MS - 1
    assert run.all(run.job())["status"] == "proven"
    world.snapshots[closing] = (sn, right | {"BTC": Decimal(0)})
    with pytest.raises(ReconciliationBroken, match=f"booked after the closing snapshot: sn {late[0]}"):
        run.all(run.job("run-2", refetch=True))
    assert run.report()["late"] == [late[0]]


def test_a_snapshot_corrected_between_two_days_has_both_of_them_proven_again(run: Run) -> None:
    between = date(2026, 11, 21)
    run.exchange.page_limit = 500
    run.clock.now += 86_400
    for day in (DAY, between):
        run.all(run.job(day=day))
    sn, held = run.exchange.world.snapshots[between]
    later, _, document = next(record for record in run.exchange.world.records if record[0] > sn)
    legs = {leg["asset"]: Decimal(leg["curBalance"]) for leg in document["data"]}
    run.exchange.world.snapshots[between] = (later, held | legs)
    run.all(run.job("refetch", refetch=True))
    done = [run.all(run.job("again", day)) for day in (DAY, between)]
    books = [ledger.from_parquet(run.store.read(each["ledger"])) for each in done]
    assert later in set(books[0]["sn"])
    assert not set(books[0]["sn"]) & set(books[1]["sn"])


def test_a_day_that_is_whole_is_replayed_although_a_newer_fetch_of_it_died_and_the_exchange_forgot_it(run: Run) -> None:
    run.lose(6)
    run.exchange.page_limit = 4
    with pytest.raises(ReconciliationBroken):
        run.all(run.job())

    pages = iter("12")

    def die(request: str) -> None:
        if request.startswith("changes") and next(pages) == "2":
            raise ServerFault("500")

    run.exchange.before_ask = die
    with pytest.raises(ServerFault):
        run.all(run.job("refetch", refetch=True))
    run.exchange.before_ask = lambda _: None
    run.clock.now += 30 * 86_400
    run.exchange.asked.clear()
    assert run.all(run.job("cleared"), on_break="load")["status"] == "broken"
    assert run.exchange.asked == []


def test_a_refetch_that_breaks_a_proven_day_is_not_covered_up_by_the_older_proof(run: Run) -> None:
    assert run.all(run.job())["status"] == "proven"
    run.lose(6)

    def refuse(request: str) -> None:
        if len(run.exchange.asked) > 6 and request.startswith("changes"):
            raise RequestRefused("not now")

    run.exchange.before_ask = refuse
    with pytest.raises(ReconciliationBroken):
        run.all(run.job("refetch", refetch=True))
    assert sum("it cannot be fetched again" in line for line in run.told) == 1
