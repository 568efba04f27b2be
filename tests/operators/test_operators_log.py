"""Whatever ends a task in red, its log says in three short lines what happened, why, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from balance_bridge.errors import (
    MAX_LOG_LINE,
    AccountsFileError,
    BalanceBridgeError,
    ConfigurationError,
    ConnectionFailed,
    CredentialsRefused,
    InvalidDay,
    ReconciliationBroken,
    RecordsRejected,
    SnapshotOverdue,
    StoreUnwritable,
)
from balance_bridge.operators.base import BridgeOperator
from balance_bridge.operators.daily import FetchSnapshot, ResolveDay
from balance_bridge.operators.deliver import Deliver
from balance_bridge.operators.refuse import Refuse
from balance_bridge.sandbox.exchange import ExchangeOptions

CONTEXT = {"run_id": "manual__1", "params": {}, "dag_run": SimpleNamespace(clear_number=0)}


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What tasks log as errors."""
    logged: list[str] = []
    log = SimpleNamespace(
        info=lambda *_: None,
        warning=lambda *_: None,
        debug=lambda *_, **__: None,
        error=lambda text, *values: logged.append(text % values),
    )
    monkeypatch.setattr(BridgeOperator, "log", log)
    return logged


def wrong_key(world: Any) -> None:
    world.connect("ascendex_cash", password="not-the-secret")
    world.task("opening_snapshot")


def missing_connection(world: Any) -> None:
    world.connect("ascendex_cash", conn_type="http")
    world.task("opening_snapshot")


def network_gone(world: Any) -> None:
    world.connect("ascendex_cash", host=f"http://127.0.0.1:{world.request.getfixturevalue('closed_port')}")
    world.task("opening_snapshot")


def wrong_account(world: Any) -> None:
    from balance_bridge.accounts import load_accounts

    world.accounts_file.write_text(world.accounts_file.read_text().replace("category: cash", "category: cahs", 1))
    broken = load_accounts(world.accounts_file).broken["main_cash"]
    Refuse(task_id="refused", error=broken.error()).execute({})


def no_account(world: Any) -> None:
    world.accounts_file.write_text(world.accounts_file.read_text().replace("main_cash:", "other_cash:", 1))
    world.task("opening_snapshot")


def day_ahead(world: Any) -> None:
    run = SimpleNamespace(run_type="manual", logical_date=None, run_after=world.now, conf={})
    date = str(world.now.date() + timedelta(days=1))
    ResolveDay(task_id="day", account="main_cash").execute({"dag_run": run, "params": {"date": date}})


def misspelt_parameter(_: Any) -> None:
    context = {"dag": SimpleNamespace(params={"dry_run": False}), "dag_run": SimpleNamespace(conf={"dryrun": True})}
    Refuse(task_id="refused", error=AccountsFileError("")).pre_execute({**context, "params": {}})


def held_day(world: Any) -> None:
    answer = world.sandbox.exchange.answer

    def without_a_record(call: Any) -> Any:
        reply = answer(call)
        if call.path.endswith("/balance/history"):
            rows = next(rows for name in ("balance", "order") if (rows := reply.document.get(name)))
            rows.remove(min(rows, key=lambda row: row["sn"]))
        return reply

    world.sandbox.exchange.answer = without_a_record
    world.task("reconcile")


def rejected_records(world: Any) -> None:
    text = world.accounts_file.read_text()
    world.accounts_file.write_text(text.replace('account_ext_id: "ASCENDEX-CASH-{asset}"', "account_ext_id: {BTC: X}"))
    task = Deliver(task_id="load", account="main_cash", destination="amlyze", reconciled=world.task("reconcile"))
    task.execute(CONTEXT)


def snapshot_overdue(world: Any) -> None:
    world.sandbox.exchange.options = ExchangeOptions(snapshot_delay_s=86_400)
    task = FetchSnapshot(task_id="closing", which="closing", account="main_cash", day=str(world.yesterday))
    task.execute(CONTEXT, since=(datetime.now(UTC) - timedelta(hours=7)).isoformat())


def store_unwritable(world: Any) -> None:
    world.store.write_text("a file stands where the folder is due")
    world.task("opening_snapshot")


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (wrong_key, CredentialsRefused),
        (missing_connection, ConfigurationError),
        (network_gone, ConnectionFailed),
        (wrong_account, AccountsFileError),
        (no_account, AccountsFileError),
        (day_ahead, InvalidDay),
        (misspelt_parameter, ConfigurationError),
        (held_day, ReconciliationBroken),
        (rejected_records, RecordsRejected),
        (snapshot_overdue, SnapshotOverdue),
        (store_unwritable, StoreUnwritable),
    ],
    ids=lambda given: given.__name__,
)
def test_a_task_that_fails_logs_what_why_and_do_in_short_lines_before_it_raises(
    world: Any, entries: list[str], cause: Callable[[Any], None], kind: type[BalanceBridgeError]
) -> None:
    with pytest.raises(kind) as caught:
        cause(world)
    (entry,) = entries
    lines = entry.split("\n")
    assert [line.split(":")[0] for line in lines] in (["what", "why", "do"], ["what", "do"])
    assert max(map(len, lines)) <= MAX_LOG_LINE
    assert " ... " not in lines[-1], "what to do is never cut"
    # Airflow prints the traceback: it leads to where the task ended, not through a page of this package.
    ours = {frame.path.name for frame in caught.traceback if "balance_bridge" in frame.path.parts}
    assert ours == {"base.py"}
