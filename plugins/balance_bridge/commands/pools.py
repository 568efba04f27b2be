"""``balance-bridge pools``: the pools that the accounts file needs.

Under the scheduler a task whose pool does not exist is never started, with no more than a warning in its log.
"""

from __future__ import annotations

from collections.abc import Iterator

from balance_bridge import settings
from balance_bridge.accounts import AccountsFile
from balance_bridge.commands.output import Finding, Output, right

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


def pool_findings(file: AccountsFile, *, fix: bool) -> Iterator[Finding]:
    """Look at the pools, and create those that are missing if that is wanted."""
    try:
        created = make_pools(file) if fix else []
        slots = pool_slots(file)
    except Exception as error:  # whatever a database, its driver or its schema may raise
        yield Finding("pools", f"Airflow's database cannot be read ({type(error).__name__}): run airflow db migrate")
        return
    for name, count in slots.items():
        what = f"pool {name}"
        if count is None:
            yield Finding(
                what, "does not exist, so its extraction tasks never start: balance-bridge check --fix creates it"
            )
        elif count != SLOTS:
            yield Finding(
                what, f"has {count} slots; with {SLOTS}, tasks would not hold workers while they wait for each other"
            )
        else:
            yield right(what, "created" if name in created else "1 slot")


def run(output: Output) -> int:
    """Create the pools and show them.

    Returns:
        The exit code: 1 if one of them is not as it must be.
    """
    file = settings.read_accounts()
    if file.error is not None and not file.accounts:
        raise file.error
    return output.show_findings(pool_findings(file, fix=True), "")
