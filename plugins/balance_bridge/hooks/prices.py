"""The balances of a day as the store has them, and what they are worth by a price table in a folder or bucket."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from balance_bridge import settings
from balance_bridge.accounts import AmlyzeDestination, Destination, Equivalent
from balance_bridge.errors import ConfigurationError
from balance_bridge.money import LIMIT

if TYPE_CHECKING:
    import pandas as pd

    from balance_bridge.load.destination import Balance
    from balance_bridge.store import Store


def due_balances(
    store: Store, key: str, config: Destination, log: Callable[[str], None]
) -> tuple[list[Balance], int | None]:
    """What a destination is to get, with what it is worth where the destination takes that.

    Args:
        store: The store.
        key: The object with the balances.
        config: The destination as the accounts file has it.
        log: Called with a line that says how many are sent without an equivalent value, and of which assets.

    Returns:
        The balances, and how many of them have no equivalent value; None if the destination takes none.

    Raises:
        ConfigurationError: If the price table cannot be opened.
        InvalidResponse: If it is not a price table.
    """
    from balance_bridge.load.destination import balances_from_table
    from balance_bridge.transform import balances

    due = balances.from_parquet(store.read(key))
    if not isinstance(config, AmlyzeDestination) or config.equivalent is None:
        return balances_from_table(due), None
    worth = _equivalents(config.equivalent, due)
    missing = due["asset"][[value is None for value in worth]]
    if len(missing):
        assets = sorted(set(missing))
        log(
            f"{len(missing)} of {len(due)} balances are sent without an equivalent value, because no price is newer "
            f"than {config.equivalent.max_age} s: {', '.join(assets[:10])}{' and more' if len(assets) > 10 else ''}"
        )
    return balances_from_table(due, worth), len(missing)


def _equivalents(config: Equivalent, balances: pd.DataFrame) -> list[Decimal | None]:
    """What each balance is worth; None where there is no fresh price. Nothing is guessed."""
    import pyarrow as pa

    from balance_bridge.transform.prices import equivalent_values, read_prices

    prices = read_prices(_content(config.prices), config.prices)
    worth = pa.array(equivalent_values(balances, prices, max_age_s=config.max_age, digits=config.digits)).to_pylist()
    # What no amount can be is left out like what is not known.
    return [value if value is not None and value.copy_abs() < LIMIT else None for value in worth]


def _content(place: str) -> bytes:
    try:
        return bytes(settings.open_path(place).read_bytes())
    except (OSError, ImportError, ValueError) as error:
        raise ConfigurationError(
            f"the price table {place} cannot be read",
            why=str(error),
            do="Correct equivalent.prices in the accounts file or put the table there, then clear this task.",
        ) from error
