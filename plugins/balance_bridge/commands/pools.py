"""``balance-bridge pools``: the pools that the accounts file needs.

Under the scheduler a task whose pool does not exist is never started, with no more than a warning in its log.
"""

from __future__ import annotations

from dataclasses import dataclass

from balance_bridge import settings
from balance_bridge.accounts import AccountsFile, load_accounts
from balance_bridge.commands.output import Listing, Output

SLOTS = 1


@dataclass(frozen=True)
class PoolState:
    """A pool that the accounts file needs.

    Attributes:
        name: The exchange's connection id.
        slots: The slots that it has; None if it does not exist.
        made: Whether it was created just now.
    """

    name: str
    slots: int | None
    made: bool = False


def needed_pools(file: AccountsFile) -> list[str]:
    """The pools that the accounts need: one for each exchange connection, none for a source that counts nothing.

    Those of wrong accounts too, as far as they can be read: once it is corrected, an account need not wait for a pool.
    """
    wrong = {account.conn_id for account in file.broken.values() if account.conn_id}
    return sorted(wrong | {account.source.pool for account in file.accounts.values() if account.source.pool})


def pool_states(file: AccountsFile) -> list[PoolState]:
    """The needed pools as Airflow's database has them."""
    from airflow.models.pool import Pool

    found = {str(pool.pool): int(pool.slots) for pool in Pool.get_pools()}
    return [PoolState(name, found.get(name)) for name in needed_pools(file)]


def make_pools(file: AccountsFile | None = None) -> list[PoolState]:
    """Create the needed pools that do not exist. One that does is left as it is.

    Args:
        file: The accounts; those of the configured file by default.
    """
    from airflow.models.pool import Pool

    states = []
    for state in pool_states(file or load_accounts(settings.accounts_file())):
        if state.slots is None:
            Pool.create_or_update_pool(
                state.name,
                slots=SLOTS,
                description="balance-bridge: one request after another to this exchange",
                include_deferred=False,
            )
            states.append(PoolState(state.name, SLOTS, made=True))
        else:
            states.append(state)
    return states


def run(output: Output) -> int:
    """Create the pools and show them.

    Args:
        output: How to show them.

    Returns:
        The exit code: 0.
    """
    records, colours = [], []
    for state in make_pools():
        other = "" if state.slots == SLOTS else f"does not have {SLOTS} slot; left as it is"
        state_text = "created" if state.made else other or "exists"
        records.append({"pool": state.name, "slots": state.slots, "state": state_text})
        colours.append("yellow" if other else "")
    output.show(Listing(records, {"pool": "pool", "slots": "slots", "state": "state"}, colours))
    return 0
