"""``balance-bridge check`` finds each thing that would stop a run, and names it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from balance_bridge import cli
from balance_bridge.commands.check import findings
from balance_bridge.commands.pools import make_pools
from balance_bridge.sandbox.server import connections


@pytest.fixture
def right(place: Any, no_pools: None) -> Iterator[Any]:
    make_pools()
    with triggerer(datetime.now(UTC)):
        yield place


@contextmanager
def triggerer(heartbeat: datetime) -> Iterator[None]:
    """A triggerer that Airflow heard of last at that time."""
    from airflow.jobs.job import Job
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    try:
        with create_session() as session:
            session.execute(delete(Job))
            job = Job(state="running", latest_heartbeat=heartbeat)
            job.job_type = "TriggererJob"
            session.add(job)
        yield
    finally:
        with create_session() as session:
            session.execute(delete(Job))


def wrong() -> dict[str, str]:
    return {finding.what: finding.message for finding in findings() if not finding.right}


def test_where_all_is_right_everything_was_looked_at_and_nothing_is_left_behind(right: Any) -> None:
    before = sorted(path for path in right.folder.rglob("balances/**/*") if path.is_file())
    looked_at = {finding.what: finding.right for finding in findings()}
    assert looked_at == {
        "accounts file": True,
        "option namespace": True,
        "option retry_delay": True,
        "option budget": True,
        "request budget of ascendex_cash": True,
        "request budget of ascendex_margin": True,
        "option store": True,
        "connection amlyze_default": True,
        "connection ascendex_cash": True,
        "connection ascendex_margin": True,
        "connection elven_default": True,
        "connection webhook_default": True,
        f"clock of {right.sandbox.url}": True,
        "pool ascendex_cash": True,
        "pool ascendex_margin": True,
        "triggerer": True,
    }
    assert sorted(path for path in right.folder.rglob("balances/**/*") if path.is_file()) == before
    delivered = right.sandbox.delivered()
    assert not any(delivered.values())
    assert not [line for line in right.sandbox.journal.requests if "/balance/" in line.path]


def break_the_account(place: Any) -> None:
    place.replace("category: cash", "category: cahs")


def lose_the_connection(place: Any) -> None:
    place.monkeypatch.delenv("AIRFLOW_CONN_ELVEN_DEFAULT")


def mistake_the_type(place: Any) -> None:
    place.connect("elven_default", conn_type="http")


def mistake_the_secret(place: Any) -> None:
    place.connect("amlyze_default", password="not-the-token")


def block_the_store(place: Any) -> None:
    (place.folder / "balances").write_text("a file stands where the folder is due")


def block_the_budget(place: Any) -> None:
    (place.folder / "a_file").touch()
    place.option("budget", f"sqlite:///{place.folder}/a_file/budget.db")


def mistake_the_namespace(place: Any) -> None:
    place.option("namespace", "a:b")


def mistake_the_delay(place: Any) -> None:
    place.option("retry_delay", "soon")


def widen_the_pool(place: Any) -> None:
    from airflow.models.pool import Pool

    Pool.create_or_update_pool("ascendex_cash", slots=4, description="", include_deferred=False)


@pytest.mark.parametrize("conn_id", ["elven_default", "elven_other"])
def test_two_accounts_that_deliver_to_one_place_are_found(right: Any, conn_id: str) -> None:
    right.monkeypatch.setenv("AIRFLOW_CONN_ELVEN_OTHER", os.environ["AIRFLOW_CONN_ELVEN_DEFAULT"])
    ids = aim_at_one_place(right, conn_id)
    (found,) = [finding for finding in findings() if not finding.right]
    assert found.what == "account main_margin"
    assert f"delivers to '{ids}', as does elven of main_cash" in found.message


def test_one_place_whose_address_is_written_in_two_ways_is_found(right: Any) -> None:
    for conn_id, host in (("elven_default", "https://127.0.0.1"), ("elven_other", "https://127.0.0.1:443")):
        made = {**connections(right.sandbox.url)["elven_default"], "host": host}
        right.monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(made))
    ids = aim_at_one_place(right, "elven_other")
    assert f"delivers to '{ids}', as does elven of main_cash" in wrong()["account main_margin"]


def aim_at_one_place(right: Any, conn_id: str) -> str:
    """Let main_margin deliver to main_cash's account at Elven, through a connection; what accounts are told by."""
    cash, margin = right.accounts_file.read_text().split("  main_margin:", 1)
    ids = {key: re.findall(rf"{key}: (\S+)", cash)[0] for key in ("entity_account_id", "source_id")}
    margin = margin.replace("conn_id: elven_default", f"conn_id: {conn_id}", 1)
    for key, value in ids.items():
        margin = re.sub(rf"{key}: \S+", f"{key}: {value}", margin, count=1)
    right.accounts_file.write_text(f"{cash}  main_margin:{margin}")
    return " ".join(ids.values())


def test_each_problem_of_an_account_is_a_finding_of_its_own(right: Any, capsys: pytest.CaptureFixture[str]) -> None:
    break_the_account(right)
    right.replace("points: [close]", "points: [closed]")
    found = [finding.message for finding in findings() if finding.what == "account main_cash"]
    assert len(found) == 2
    assert "category" in found[0]
    assert "points" in found[1]


@pytest.mark.parametrize(
    ("spoil", "what", "message"),
    [
        (break_the_account, "account main_cash", "accounts.main_cash.source.category: 'cahs'"),
        (lose_the_connection, "connection elven_default", "AIRFLOW_CONN_ELVEN_DEFAULT"),
        (mistake_the_type, "connection elven_default", "is of type 'http'"),
        (mistake_the_secret, "connection amlyze_default", "401"),
        (block_the_store, "option store", "balances"),
        (block_the_budget, "option budget", "a_file/budget.db"),
        (mistake_the_namespace, "option namespace", "namespace = a:b"),
        (mistake_the_delay, "option retry_delay", "retry_delay = soon"),
        (widen_the_pool, "pool ascendex_cash", "has 4 slots"),
    ],
)
def test_one_thing_that_is_wrong_is_found_alone(
    right: Any, spoil: Callable[[Any], None], what: str, message: str
) -> None:
    spoil(right)
    found = wrong()
    assert set(found) == {what}
    assert message in found[what]
    assert "not-the-token" not in found[what]


def test_without_a_triggerer_that_was_heard_of_lately_check_says_how_to_start_one(right: Any) -> None:
    with triggerer(datetime.now(UTC) - timedelta(hours=1)):
        assert "run airflow triggerer" in wrong()["triggerer"]
    assert set(wrong()) == {"triggerer"}
    # A worker cannot ask the database, and need not.
    assert all(finding.right for finding in findings(database=False))


def test_a_pool_that_is_missing_is_reported_and_created_only_if_that_is_wanted(
    right: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow.models.pool import Pool

    def names() -> set[str]:
        return {str(pool.pool) for pool in Pool.get_pools()}

    Pool.delete_pool("ascendex_margin")
    assert set(wrong()) == {"pool ascendex_margin"}
    assert "check --fix" in wrong()["pool ascendex_margin"]
    assert cli.main(["check", "-q"]) == 1
    assert "ascendex_margin" not in names()
    capsys.readouterr()
    assert cli.main(["check", "--fix"]) == 0
    assert "created" in capsys.readouterr().out
    assert "ascendex_margin" in names()
    assert cli.main(["check", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


# Some seconds: a process of its own, since where connections are looked for is settled when Airflow is imported.
@pytest.mark.slow
def test_a_connection_that_was_made_in_airflow_s_ui_is_found(right: Any) -> None:
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    fields = connections(right.sandbox.url)["elven_default"]
    right.monkeypatch.delenv("AIRFLOW_CONN_ELVEN_DEFAULT")
    right.monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT")
    with create_session() as session:
        session.add(Connection(conn_id="elven_default", **fields))
    try:
        command = [Path(sys.executable).parent / "balance-bridge", "elven", "accounts"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        with create_session() as session:
            session.execute(delete(Connection).where(Connection.conn_id == "elven_default"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_budget_nothing_is_fetched_from_the_exchange(right: Any) -> None:
    right.option("budget", "mysql://localhost/0")
    found = wrong()
    assert set(found) == {"option budget", "connection ascendex_cash", "connection ascendex_margin"}
    assert all("the URL names no database that can hold it" in message for message in found.values())


def test_a_server_that_cannot_be_reached_is_one_finding_per_connection(
    right: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right.connect("amlyze_default", host=f"http://127.0.0.1:{closed_port}")
    found = wrong()
    assert set(found) == {"connection amlyze_default"}
    assert f"127.0.0.1:{closed_port}" in found["connection amlyze_default"]


def test_while_the_accounts_file_cannot_be_read_the_version_that_runs_is_looked_at(right: Any) -> None:
    list(findings())
    right.accounts_file.unlink()
    found = wrong()
    assert set(found) == {"accounts file"}
    assert str(right.accounts_file) in found["accounts file"]
    assert "UTC runs meanwhile" in found["accounts file"]
    assert "connection ascendex_cash" in {finding.what for finding in findings()}


@pytest.mark.parametrize(
    ("skew_s", "message"), [(40.0, "40 s behind it"), (-40.0, "40 s ahead of it"), (2.0, None), (None, None)]
)
def test_a_clock_that_is_too_far_off_is_found(
    right: Any, monkeypatch: pytest.MonkeyPatch, skew_s: float | None, message: str | None
) -> None:
    monkeypatch.setattr("balance_bridge.transport.Response.clock_skew_s", lambda _: skew_s)
    found = wrong()
    assert len(found) == (message is not None)
    assert all(message in text and "NTP" in text for text in found.values() if message)


def test_the_command_ends_with_0_only_if_all_is_right(right: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check"]) == 0
    assert "All checks passed." in capsys.readouterr().out
    mistake_the_namespace(right)
    widen_the_pool(right)
    assert cli.main(["check"]) == 1
    shown = capsys.readouterr().out
    assert "2 problems found." in shown
    assert "namespace = a:b" in shown
    assert "has 4 slots" in shown


def test_what_stands_in_the_file_is_shown_and_not_taken_for_markup(
    right: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    right.replace("category: cash", "category: '[bold]x[/nothing]'")
    assert cli.main(["check"]) == 1
    assert "[bold]x[/nothing]" in capsys.readouterr().out
