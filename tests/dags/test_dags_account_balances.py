"""The DAGs that the accounts file makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balance_bridge import errors
from balance_bridge.sandbox.fixtures import accounts_yaml

PROJECT = Path(__file__).resolve().parents[2]
START = date(2026, 11, 1)
RIGHT = accounts_yaml(START)
ASKING = RIGHT.replace("    start_date:", "    on_break: ask\n    start_date:", 1)
EXTRACTION = {"opening_snapshot", "closing_snapshot", "history"}
GRAPH = {
    "day": {"opening_snapshot", "closing_snapshot", "history", "reconcile"},
    "opening_snapshot": {"history"},
    "closing_snapshot": {"history"},
    "history": {"reconcile"},
    "reconcile": {"load_elven", "load_amlyze"},
    "load_elven": set(),
    "load_amlyze": set(),
}
# By DAG; one of the two accounts has a third destination.
GRAPHS = {
    "balances_main_cash": GRAPH,
    "balances_main_margin": GRAPH
    | {"reconcile": {"load_elven", "load_amlyze", "load_webhook"}, "load_webhook": set[str]()},
}
BROKEN: dict[str, set[str]] = {"day": set(), "accounts_file": set()}

Parse = Callable[..., Any]


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parse:
    """Parse the project's DAG files with an accounts file, as Airflow's DAG processor does."""
    from airflow.dag_processing.dagbag import DagBag

    path = tmp_path / "accounts.yaml"
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE", str(path))

    def parsed(text: str | None) -> Any:
        if text is not None:
            path.write_text(text)
        bag = DagBag(dag_folder=PROJECT / "dags")
        # What is left are those that come from the accounts file.
        parsed.preflight = bag.dags.pop("balances_preflight", None)  # type: ignore[attr-defined]
        return bag

    return parsed


@pytest.fixture
def dags(parse: Parse) -> Any:
    bag = parse(RIGHT)
    assert bag.import_errors == {}
    return bag.dags


def many(count: int) -> str:
    """An accounts file with so many accounts, each with one destination."""
    accounts = "".join(
        f"""
  account_{number}:
    source: {{type: ascendex, conn_id: key_{number % 3}, category: {("cash", "margin")[number % 2]}}}
    start_date: {START + timedelta(days=number)}
    destinations:
      amlyze: {{conn_id: amlyze_default, requester: us, account_ext_id: "ID-{number}-{{asset}}"}}
"""
        for number in range(count)
    )
    return f"accounts:{accounts}"


def test_each_account_has_a_dag_of_its_own(parse: Parse) -> None:
    bag = parse(many(12))
    assert bag.import_errors == {}
    assert set(bag.dags) == {f"balances_account_{number}" for number in range(12)}
    for number in range(12):
        dag = bag.dags[f"balances_account_{number}"]
        assert dag.start_date == datetime.combine(START + timedelta(days=number), time(), UTC)
        assert {task.pool for task in dag.tasks if task.task_id in EXTRACTION} == {f"key_{number % 3}"}
        assert {task.task_id for task in dag.tasks} == {"day", *EXTRACTION, "reconcile", "load_amlyze"}


@pytest.mark.parametrize("account", ["main_cash", "main_margin"])
def test_a_dag_runs_every_day_from_its_start_one_run_at_a_time(dags: Any, account: str) -> None:
    dag = dags[f"balances_{account}"]
    assert dag.start_date == datetime(2026, 11, 1, tzinfo=UTC)
    assert dag.catchup is True
    assert dag.max_active_runs == 1
    assert dag.timetable.summary == "0 0 * * *"
    assert str(dag.timetable._timezone) in ("UTC", "Timezone('UTC')")


def test_the_scheduler_is_given_each_whole_utc_day_in_order(dags: Any) -> None:
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction
    from airflow.utils.types import DagRunType

    timetable = coerce_to_core_timetable(dags["balances_main_cash"].timetable)
    restriction = TimeRestriction(earliest=dags["balances_main_cash"].start_date, latest=None, catchup=True)
    last = None
    for ahead in range(3):
        found = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        last = found.data_interval
        assert last.start == datetime(2026, 11, 1 + ahead, tzinfo=UTC)
        assert found.run_after == last.end == last.start + timedelta(days=1)
        names = {
            run_type: timetable.generate_run_id(run_type=run_type, run_after=found.run_after, data_interval=last)
            for run_type in (DagRunType.SCHEDULED, DagRunType.MANUAL)
        }
        assert names[DagRunType.SCHEDULED] == f"scheduled__2026-11-0{1 + ahead}", "named by its day, not by its end"
        assert "T00:00:00" in names[DagRunType.MANUAL], "its day may be another one"


def test_the_tasks_hang_together_as_the_day_does(dags: Any) -> None:
    assert {
        name: {task.task_id: task.downstream_task_ids for task in dag.tasks} for name, dag in dags.items()
    } == GRAPHS


def test_only_what_fetches_from_the_exchange_runs_in_the_pool_of_its_connection(dags: Any) -> None:
    for account in ("cash", "margin"):
        pools = {task.task_id: task.pool for task in dags[f"balances_main_{account}"].tasks}
        assert {name for name, pool in pools.items() if pool == f"ascendex_{account}"} == EXTRACTION
        assert {pool for name, pool in pools.items() if name not in EXTRACTION} == {"default_pool"}


def test_every_task_is_tried_again_with_growing_delays(dags: Any, parse: Parse, monkeypatch: Any) -> None:
    for task in dags["balances_main_cash"].tasks:
        assert task.owner == "balance-bridge"
        assert task.retries == 6
        assert task.retry_delay == timedelta(seconds=60)
        assert task.retry_exponential_backoff == 2
        assert task.max_retry_delay == timedelta(hours=1)
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__RETRY_DELAY", "5")
    assert {task.retry_delay for task in parse(RIGHT).dags["balances_main_cash"].tasks} == {timedelta(seconds=5)}


def every_error(base: type[Exception]) -> list[type[Exception]]:
    return [base, *(each for below in base.__subclasses__() for each in every_error(below))]


def test_what_trying_again_cannot_help_fails_at_once(dags: Any) -> None:
    for task in dags["balances_main_cash"].tasks:
        for error in every_error(errors.PermanentError):
            assert task.retry_policy.evaluate(error("x"), 1, 6).action.value == "fail", error


def test_what_may_pass_is_tried_again_as_configured(dags: Any) -> None:
    for task in dags["balances_main_cash"].tasks:
        for error in (*every_error(errors.TransientError), ValueError, OSError):
            made = error("x", wait_s=60.0) if error is errors.BudgetExhausted else error("x")
            decision = task.retry_policy.evaluate(made, 1, 6)
            assert (decision.action.value, decision.retry_delay) == ("default", None), error


def test_only_the_loads_announce_an_asset_and_each_its_own(dags: Any) -> None:
    outlets = {
        (dag.dag_id, task.task_id): [(type(outlet).__name__, outlet.name) for outlet in task.outlets]
        for dag in dags.values()
        for task in dag.tasks
        if task.outlets
    }
    # By alias: an asset itself among the outlets would have an event with each run.
    assert outlets == {
        (f"balances_{account}", f"load_{name}"): [("AssetAlias", f"balance-bridge {account} {name}")]
        for account, names in {"main_cash": ("elven", "amlyze"), "main_margin": ("elven", "amlyze", "webhook")}.items()
        for name in names
    }


def test_the_parameters_are_optional_and_typed(dags: Any) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    params = dags["balances_main_cash"].params
    flags = ("dry_run", "refetch", "redeliver")
    assert dict(params) == {"date": None, "destinations": None, **dict.fromkeys(flags, False)}
    for name, value in {"date": "2026-11-20", "destinations": ["elven"], **dict.fromkeys(flags, True)}.items():
        assert params.get_param(name).resolve(value) == value
    wrong = {"date": 20261120, "destinations": "elven", "dry_run": "no", "refetch": None, "redeliver": 1}
    for name, value in wrong.items():
        with pytest.raises(ParamValidationError):
            params.get_param(name).resolve(value)
    assert "elven, amlyze" in params.get_param("destinations").description
    assert "under new numbers" in params.get_param("redeliver").description


def test_a_delivery_is_repeated_under_new_numbers_by_the_daily_run_only(parse: Parse) -> None:
    dags = parse(FOLLOWED).dags
    assert dict(dags["balances_main_cash_intraday"].params) == {"dry_run": False}
    assert dict(parse.preflight.params) == {}  # type: ignore[attr-defined]


def test_the_dag_of_a_broken_account_takes_what_the_right_one_takes(parse: Parse) -> None:
    params = dict(parse(RIGHT).dags["balances_main_cash"].params)
    assert dict(parse(RIGHT.replace("category: cash", "category: cahs")).dags["balances_main_cash"].params) == params


def test_every_task_of_every_dag_checks_what_its_run_was_triggered_with(parse: Parse) -> None:
    from balance_bridge.operators.base import BridgeOperator

    bags = [parse(text).dags for text in (FOLLOWED, ASKING, RIGHT.replace("category: cash", "category: cahs"))]
    found = [dag for dags in bags for dag in dags.values()] + [parse.preflight]  # type: ignore[attr-defined]
    assert len(found) == 8
    for dag in found:
        for task in dag.tasks:
            assert isinstance(task, BridgeOperator), (dag.dag_id, task.task_id)
            assert type(task).pre_execute is BridgeOperator.pre_execute


def test_a_dag_says_what_it_does_and_for_whom(dags: Any) -> None:
    for category in ("cash", "margin"):
        dag = dags[f"balances_main_{category}"]
        assert set(dag.tags) == {"balance-bridge", "ascendex", category}
        for word in ("elven", "amlyze", f"ascendex_{category}", "2026-11-01", "Asia/Shanghai", "refetch", "dry_run"):
            assert word in dag.doc_md


def test_the_scheduler_can_take_each_dag(parse: Parse) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    parse(RIGHT.replace("category: margin", "category: marginal"))
    bag = parse("accounts: [")
    assert set(bag.dags) == {"balances_main_cash", "balances_main_margin", "balances_accounts_file"}
    for dag in bag.dags.values():
        text = json.dumps(DagSerialization.to_dict(dag))
        again = DagSerialization.from_dict(json.loads(text))
        assert {task.task_id: task.downstream_task_ids for task in again.tasks} == {
            task.task_id: task.downstream_task_ids for task in dag.tasks
        }
        for task in dag.tasks:
            taken = again.get_task(task.task_id)
            assert (taken.pool, taken.retries, taken.owner) == (task.pool, task.retries, task.owner)
        assert again.params.dump() == dag.params.dump()
        assert again.start_date == dag.start_date


def test_parsing_twice_gives_the_same_dag(parse: Parse) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    # Otherwise Airflow would store a new version of the DAG each half minute.
    one, two = (
        {name: json.dumps(DagSerialization.to_dict(dag), sort_keys=True) for name, dag in parse(RIGHT).dags.items()}
        for _ in range(2)
    )
    assert one == two


# A second: Airflow is imported by a process of its own, for only there is nothing imported before.
@pytest.mark.slow
@pytest.mark.parametrize("text", [RIGHT, ASKING], ids=["right", "asking"])
def test_parsing_brings_in_nothing_heavy_that_airflow_has_not_brought_itself(tmp_path: Path, text: str) -> None:
    (tmp_path / "accounts.yaml").write_text(text)
    code = (
        "import sys, runpy, airflow.sdk, airflow.sdk.configuration; before = set(sys.modules); "
        f"made = runpy.run_path({str(PROJECT / 'dags' / 'account_balances.py')!r}); "
        "assert 'balances_main_cash' in made; "
        "print('ADDED', *{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE": str(tmp_path / "accounts.yaml"),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    added = set(done.stdout.split("ADDED")[1].split())
    assert "balance_bridge" in added
    assert not added & {"pandas", "pyarrow", "numpy", "requests", "msgspec", "tenacity", "rich", "fastapi", "uvicorn"}


def test_a_broken_account_is_a_dag_with_nothing_but_red_tasks_and_the_whole_message(parse: Parse) -> None:
    bag = parse(RIGHT.replace("category: cash", "category: cahs").replace("points: [close]", "points: [clsoe]", 1))
    assert bag.import_errors == {}
    broken = bag.dags["balances_main_cash"]
    # The second one is for runs that had their first task behind them when the mistake was made.
    assert {task.task_id: task.downstream_task_ids for task in broken.tasks} == BROKEN
    assert set(broken.tags) == {"balance-bridge", "broken"}
    for task in broken.tasks:
        with pytest.raises(errors.AccountsFileError) as caught:
            task.execute({})
        assert task.retry_policy.evaluate(caught.value, 1, 6).action.value == "fail"
        for text in ("accounts.main_cash.source.category: 'cahs'", "destinations.elven.points[0]: 'clsoe'"):
            assert text in str(caught.value)
            assert text in broken.doc_md
    # The others are whole.
    assert {name.task_id for name in bag.dags["balances_main_margin"].tasks} == set(GRAPHS["balances_main_margin"])


@pytest.mark.parametrize(
    ("start", "catchup", "begins"),
    [
        ("2026-11-01", True, datetime(2026, 11, 1, tzinfo=UTC)),
        # Without a day to begin with, only the latest one runs, so that the mistake shows.
        ("the first of november", False, datetime(2000, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_broken_account_is_red_for_each_day_that_it_misses(
    parse: Parse, start: str, catchup: bool, begins: datetime
) -> None:
    text = RIGHT.replace("category: cash", "category: cahs").replace("2026-11-01", start, 1)
    broken = parse(text).dags["balances_main_cash"]
    assert (broken.catchup, broken.start_date, broken.max_active_runs) == (catchup, begins, 1)


def test_an_account_whose_name_no_dag_id_can_hold_has_a_red_dag_all_the_same(parse: Parse) -> None:
    text = RIGHT.replace("main_cash:", "'Main cash/ü: ${x}':", 1)
    bag = parse(text)
    assert bag.import_errors == {}
    assert set(bag.dags) == {"balances_Main_cash______x_", "balances_main_margin"}
    task, _ = bag.dags["balances_Main_cash______x_"].tasks
    assert "Main cash/ü: ${x}" in str(task.error)


def test_a_wrong_name_does_not_take_the_id_of_a_right_account(parse: Parse) -> None:
    wrong = RIGHT.split("  main_margin:")[1].replace("sandboxEntityAccountMargin000002", "other").replace("MARGIN", "X")
    bag = parse(
        f"{RIGHT}\n  'main margin':{wrong}\n  'main/margin':{wrong.replace('X', 'Y').replace('other', 'third')}"
    )
    assert bag.import_errors == {}
    tasks = {name: {task.task_id for task in dag.tasks} for name, dag in bag.dags.items()}
    assert tasks == {
        **{name: set(graph) for name, graph in GRAPHS.items()},
        # Nor is it lost, nor does it take another wrong one's.
        "balances_main_margin_": set(BROKEN),
        "balances_main_margin__": set(BROKEN),
    }


def test_an_account_named_accounts_file_is_no_alarm_that_the_file_cannot_be_read(parse: Parse) -> None:
    bag = parse(RIGHT.replace("main_cash:", "accounts_file:", 1))
    assert set(bag.dags) == {"balances_accounts_file_", "balances_main_margin"}
    assert "is reserved" in str(bag.dags["balances_accounts_file_"].tasks[0].error)


def test_a_very_long_name_still_makes_a_dag(parse: Parse) -> None:
    bag = parse(RIGHT.replace("main_cash:", f"{'A' * 400}:", 1))
    assert bag.import_errors == {}
    assert len(bag.dags) == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [(None, "there is no such file"), ("accounts: [", "this is not YAML"), ("acounts: {}\n", "did you mean accounts?")],
    ids=["missing", "no YAML", "misspelt"],
)
def test_a_file_that_cannot_be_read_is_a_red_dag_and_the_last_good_version_keeps_running(
    parse: Parse, tmp_path: Path, text: str | None, fault: str
) -> None:
    path = tmp_path / "accounts.yaml"
    good = parse(RIGHT).dags
    if text is None:
        path.unlink()
    for _ in range(2):
        bag = parse(text)
        assert bag.import_errors == {}
        red = bag.dags.pop("balances_accounts_file")
        # All of them, as they were.
        assert {name: [task.task_id for task in dag.tasks] for name, dag in bag.dags.items()} == {
            name: [task.task_id for task in dag.tasks] for name, dag in good.items()
        }
        (task,) = red.tasks
        with pytest.raises(errors.AccountsFileError, match="runs meanwhile") as caught:
            task.execute({})
        for part in (str(path), fault):
            assert part in str(caught.value)
            assert part in red.doc_md
        # It runs at once: neither is it paused, nor does it wait for its schedule.
        assert red.is_paused_upon_creation is False
        assert (red.catchup, red.timetable.expression, red.start_date.year) == (False, "0 * * * *", 2000)
    # The file that is right again is in force at once.
    bag = parse(RIGHT.replace("main_cash", "other_cash"))
    assert set(bag.dags) == {"balances_other_cash", "balances_main_margin"}


def test_tasks_go_on_with_the_last_good_version_and_say_so(
    parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "accounts.yaml"
    parse(RIGHT)
    (task,) = (task for task in parse("accounts: [").dags["balances_main_cash"].tasks if task.task_id == "day")
    said: list[str] = []
    monkeypatch.setattr(task, "_cached_logger", SimpleNamespace(warning=lambda text, entry: said.append(entry)))

    assert task.read_account().source.category == "cash"
    (entry,) = said
    what, _, _ = entry.split("\n")
    assert what.startswith(f"what: {path}"[:50])
    assert what.endswith(" UTC runs meanwhile")


def test_a_file_that_was_never_right_is_a_red_dag_too(parse: Parse) -> None:
    bag = parse("accounts: [")
    assert bag.import_errors == {}
    assert set(bag.dags) == {"balances_accounts_file"}
    assert "no account runs" in bag.dags["balances_accounts_file"].doc_md


def test_the_process_of_a_task_makes_only_the_dag_that_it_asks_for(parse: Parse, monkeypatch: Any) -> None:
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "balances_main_margin")
    assert set(parse(RIGHT).dags) == {"balances_main_margin"}


@pytest.mark.parametrize("value", ["0", "-1", "ten", "1.5", ""])
def test_a_wrong_delay_is_an_import_error_that_names_the_option(parse: Parse, monkeypatch: Any, value: str) -> None:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__RETRY_DELAY", value)
    (message,) = parse(RIGHT).import_errors.values()
    assert f"[balance_bridge] retry_delay = {value}".rstrip() in message
    assert "a whole number of seconds" in message


FOLLOWED = """
accounts:
  main_cash:
    source: {type: ascendex, conn_id: ascendex_cash, category: cash}
    start_date: 2026-11-01
    intraday: 15min
    destinations:
      elven:
        conn_id: elven_default
        entity_account_id: E
        source_id: S
        timezone: Asia/Shanghai
        points: [close, changes]
      amlyze:
        conn_id: amlyze_default
        requester: treasury
        account_ext_id: "CASH-{asset}"
"""


def test_an_account_that_is_followed_has_a_second_dag_for_what_is_known_so_far(parse: Parse) -> None:
    dags = parse(FOLLOWED).dags
    assert set(dags) == {"balances_main_cash", "balances_main_cash_intraday"}
    dag = dags["balances_main_cash_intraday"]
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == {
        "follow": {"load_elven"},
        "load_elven": set(),
    }
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert dag.get_task("follow").pool == "ascendex_cash"
    assert "15min" in dag.doc_md


FILES = """
accounts:
  custody:
    source: {type: files, path: /srv/custodian}
    start_date: 2026-11-01
    destinations:
      amlyze:
        conn_id: amlyze_default
        requester: treasury
        account_ext_id: "CUSTODY-{asset}"
"""


def test_an_account_whose_breaks_somebody_decides_about_has_a_dag_that_asks(parse: Parse) -> None:
    bag = parse(ASKING)
    assert bag.import_errors == {}
    daily, asking = bag.dags["balances_main_cash"], bag.dags["balances_main_cash_approval"]
    assert daily.task_dict["ask"].trigger_rule == "one_failed"
    assert daily.task_dict["ask"].upstream_task_ids == {"day", "history", "reconcile"}
    assert {task.task_id: task.downstream_task_ids for task in asking.tasks} == {
        "approve": {"deliver"},
        "deliver": set(),
    }
    assert asking.schedule is None
    # A question that waits for a person must not hold up another one.
    assert asking.max_active_runs >= 100
    assert asking.is_paused_upon_creation is False
    assert "balances_main_margin_approval" not in bag.dags
    assert "ask" not in bag.dags["balances_main_margin"].task_dict


def test_files_need_no_pool_of_their_own(parse: Parse) -> None:
    (dag,) = parse(FILES).dags.values()
    assert {task.pool for task in dag.tasks} == {"default_pool"}
    assert set(dag.tags) == {"balance-bridge", "files"}


def test_the_preflight_dag_is_started_by_hand_only(parse: Parse) -> None:
    parse(RIGHT)
    dag = parse.preflight  # type: ignore[attr-defined]
    assert [task.task_id for task in dag.tasks] == ["look"]
    assert dag.schedule is None
    assert "Preflight check" in dag.doc_md
