"""``balance-bridge pools``: the pools that the accounts file needs.

Under the scheduler a task whose pool does not exist is never started, with no more than a warning in its log.
"""

from __future__ import annotations

from balance_bridge import settings
from balance_bridge.accounts import AccountsFile
from balance_bridge.commands.output import Listing, Output

SLOTS = 1


def pool_slots(file: AccountsFile) -> dict[str, int | None]:
    """The slots of each pool that the accounts need, as Airflow's database has them; None for one that is missing.

    There is one for each exchange connection, none for a source that counts nothing. Those of wrong accounts too, as
    far as they can be read: once it is corrected, an account need not wait for a pool.
    """
    from airflow.models.pool import Pool

    wrong = {account.conn_id for account in file.broken.values() if account.conn_id}
    needed = wrong | {account.source.pool for account in file.accounts.values() if account.source.pool}
    found = {str(pool.pool): int(pool.slots) for pool in Pool.get_pools()}
    return {name: found.get(name) for name in sorted(needed)}


def make_pools(file: AccountsFile | None = None) -> list[str]:
    """Create the needed pools that do not exist. One that does is left as it is.

    Args:
        file: The accounts; those of the configured file by default.

    Returns:
        The pools that were created.
    """
    from airflow.models.pool import Pool

    slots = pool_slots(file or settings.read_accounts())
    created = [name for name, count in slots.items() if count is None]
    for name in created:
        Pool.create_or_update_pool(
            name,
            slots=SLOTS,
            description="balance-bridge: one request after another to this exchange",
            include_deferred=False,
        )
    return created


def run(output: Output) -> int:
    """Create the pools and show them."""
    file = settings.read_accounts()
    if file.error is not None and not file.accounts:
        raise file.error
    created = make_pools(file)
    records = [
        {"pool": name, "slots": slots, "state": "created" if name in created else pool_state(slots) or "exists"}
        for name, slots in pool_slots(file).items()
    ]
    colours = ["" if record["slots"] == SLOTS else "yellow" for record in records]
    output.show(Listing(records, {"pool": "pool", "slots": "slots", "state": "state"}, colours))
    return 0


def pool_state(slots: int | None) -> str:
    """What is wrong with a pool of so many slots; empty if nothing is."""
    if slots is None:
        return "does not exist, so its extraction tasks never start: balance-bridge check --fix creates it"
    if slots != SLOTS:
        return f"has {slots} slots; with {SLOTS}, tasks would not hold workers while they wait for each other"
    return ""
