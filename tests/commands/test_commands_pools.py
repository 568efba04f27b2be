"""The pools that the accounts file needs."""

from __future__ import annotations

from typing import Any

import pytest

from balance_bridge import cli
from balance_bridge.commands.pools import PoolState, make_pools, needed_pools
from balance_bridge.errors import AccountsFileError

pytestmark = pytest.mark.usefixtures("no_pools")


def pools() -> dict[str, tuple[int, bool]]:
    from airflow.models.pool import Pool

    return {str(pool.pool): (int(pool.slots), bool(pool.include_deferred)) for pool in Pool.get_pools()}


def test_each_exchange_connection_gets_a_pool_of_one_slot(place: Any) -> None:
    assert make_pools() == [PoolState("ascendex_cash", 1, made=True), PoolState("ascendex_margin", 1, made=True)]
    made = pools()
    # A task that waits for a snapshot holds no slot, so that other accounts of the key go on.
    assert made["ascendex_cash"] == made["ascendex_margin"] == (1, False)
    assert set(made) == {"ascendex_cash", "ascendex_margin", "default_pool"}


def test_a_pool_that_exists_is_left_as_it_is(place: Any) -> None:
    from airflow.models.pool import Pool

    Pool.create_or_update_pool("ascendex_cash", slots=3, description="mine", include_deferred=True)
    assert make_pools() == [PoolState("ascendex_cash", 3), PoolState("ascendex_margin", 1, made=True)]
    assert pools()["ascendex_cash"] == (3, True)


def test_made_twice_is_made_once(place: Any) -> None:
    make_pools()
    assert [state.made for state in make_pools()] == [False, False]


def test_accounts_of_one_key_share_its_pool(place: Any) -> None:
    place.replace("ascendex_margin", "ascendex_cash")
    assert [state.name for state in make_pools()] == ["ascendex_cash"]


def test_a_broken_account_has_its_pool_ready_as_far_as_its_connection_can_be_read(place: Any) -> None:
    from balance_bridge.accounts import load_accounts

    place.replace("category: cash", "category: cahs")
    assert needed_pools(load_accounts(place.accounts_file)) == ["ascendex_cash", "ascendex_margin"]
    place.replace("conn_id: ascendex_cash", "conn: ascendex_cash")
    assert needed_pools(load_accounts(place.accounts_file)) == ["ascendex_margin"]


def test_a_source_that_counts_nothing_needs_no_pool(place: Any) -> None:
    from balance_bridge.accounts import load_accounts

    place.replace(
        "source: {type: ascendex, conn_id: ascendex_cash, category: cash}", "source: {type: files, path: bank}"
    )
    file = load_accounts(place.accounts_file)
    assert file.broken == {}
    assert needed_pools(file) == ["ascendex_margin"]


def test_the_command_shows_what_it_made_and_what_it_left(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from airflow.models.pool import Pool

    Pool.create_or_update_pool("ascendex_cash", slots=3, description="mine", include_deferred=False)
    assert cli.main(["pools"]) == 0
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if "ascendex_" in line}
    assert "does not have 1 slot; left as it is" in said["ascendex_cash"]
    assert "created" in said["ascendex_margin"]


def test_without_an_accounts_file_nothing_is_made(place: Any) -> None:
    place.accounts_file.unlink()
    with pytest.raises(AccountsFileError):
        make_pools()
    assert set(pools()) == {"default_pool"}
