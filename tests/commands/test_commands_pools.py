"""The pools that the accounts file needs."""

from __future__ import annotations

from typing import Any

import pytest

from balance_bridge import cli
from balance_bridge.accounts import load_accounts
from balance_bridge.commands.pools import make_pools, pool_slots

pytestmark = pytest.mark.usefixtures("no_pools")


def pools() -> dict[str, tuple[int, bool]]:
    from airflow.models.pool import Pool

    return {str(pool.pool): (int(pool.slots), bool(pool.include_deferred)) for pool in Pool.get_pools()}


def test_each_exchange_connection_gets_a_pool_of_one_slot_once(place: Any) -> None:
    assert make_pools() == ["ascendex_cash", "ascendex_margin"]
    made = pools()
    # A task that waits for a snapshot holds no slot, so that other accounts of the key go on.
    assert made["ascendex_cash"] == made["ascendex_margin"] == (1, False)
    assert set(made) == {"ascendex_cash", "ascendex_margin", "default_pool"}
    assert make_pools() == []


def test_a_pool_that_exists_is_left_as_it_is(place: Any) -> None:
    from airflow.models.pool import Pool

    Pool.create_or_update_pool("ascendex_cash", slots=3, description="mine", include_deferred=True)
    assert make_pools() == ["ascendex_margin"]
    assert pools()["ascendex_cash"] == (3, True)


def test_accounts_of_one_key_share_its_pool(place: Any) -> None:
    place.replace("ascendex_margin", "ascendex_cash")
    assert make_pools() == ["ascendex_cash"]


def test_a_broken_account_has_its_pool_ready_as_far_as_its_connection_can_be_read(place: Any) -> None:
    place.replace("category: cash", "category: cahs")
    assert set(pool_slots(load_accounts(place.accounts_file))) == {"ascendex_cash", "ascendex_margin"}
    place.replace("conn_id: ascendex_cash", "conn: ascendex_cash")
    assert set(pool_slots(load_accounts(place.accounts_file))) == {"ascendex_margin"}


def test_a_source_that_counts_nothing_needs_no_pool(place: Any) -> None:
    place.replace(
        "source: {type: ascendex, conn_id: ascendex_cash, category: cash, settle: 0}",
        "source: {type: files, path: bank}",
    )
    file = load_accounts(place.accounts_file)
    assert file.broken == {}
    assert set(pool_slots(file)) == {"ascendex_margin"}


def test_the_command_shows_what_it_made_and_what_it_left(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from airflow.models.pool import Pool

    Pool.create_or_update_pool("ascendex_cash", slots=3, description="mine", include_deferred=False)
    # As check says: with more than one slot they are not as they must be.
    assert cli.main(["pools"]) == 1
    said = {line.split()[2]: line for line in capsys.readouterr().out.splitlines() if "ascendex_" in line}
    assert "has 3 slots" in said["ascendex_cash"]
    assert "created" in said["ascendex_margin"]


@pytest.mark.parametrize("command", ["pools", "check"])
def test_without_airflow_s_database_it_says_how_to_make_it(
    place: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    def broken() -> Any:
        raise RuntimeError("no such table: slot_pool")

    monkeypatch.setattr("airflow.models.pool.Pool.get_pools", broken)
    monkeypatch.setattr("airflow.jobs.job.most_recent_job", broken)
    assert cli.main([command]) == 1
    said = capsys.readouterr().out
    assert "run airflow db migrate" in said
    assert "triggerer" not in said
