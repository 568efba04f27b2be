"""The balances of a day as the store has them, and what they are worth by a price table in a folder or bucket."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
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
    """What a destination is to get, with what it is worth where that is to be told.

    Args:
        store: The store.
        key: The object with the balances.
        config: The destination as the accounts file has it.
        log: Told how many go without an equivalent value.

    Returns:
        The balances, and how many of them go without an equivalent value; None where none is to be told.

    Raises:
        ConfigurationError: If the price table cannot be opened.
        InvalidResponse: If it is none.
    """
    from balance_bridge.load.destination import balances_from_table
    from balance_bridge.transform import balances

    due = balances.from_parquet(store.read(key))
    if not isinstance(config, AmlyzeDestination) or config.equivalent is None:
        return balances_from_table(due), None
    worth = equivalents(config.equivalent, due, log)
    return balances_from_table(due, worth), sum(value is None for value in worth)


def equivalents(config: Equivalent, balances: pd.DataFrame, log: Callable[[str], None]) -> list[Decimal | None]:
    """What each balance is worth; None where there is no fresh price. Nothing is guessed.

    Args:
        config: As the accounts file has it.
        balances: With the columns ``asset``, ``at`` and ``balance``.
        log: Told how many go without.

    Raises:
        ConfigurationError: If the price table cannot be opened.
        InvalidResponse: If it is none.
    """
    import pyarrow as pa

    from balance_bridge.transform.prices import equivalent_values, read_prices

    prices = read_prices(_content(config.prices), config.prices)
    worth = pa.array(equivalent_values(balances, prices, max_age_s=config.max_age, digits=config.digits)).to_pylist()
    # What no amount can be is left out like what is not known.
    told = [value if value is not None and value.copy_abs() < LIMIT else None for value in worth]
    without = sum(value is None for value in told)
    if without:
        assets = sorted({asset for asset, value in zip(balances["asset"], told, strict=True) if value is None})
        log(
            f"{without} of {len(told)} balances go without an equivalent value, for want of a price that is at most "
            f"{config.max_age} s old: {', '.join(assets[:10])}{' and more' if len(assets) > 10 else ''}"
        )
    return told


def _content(place: str) -> bytes:
    from airflow.sdk import ObjectStoragePath

    try:
        if "://" not in place:
            return (settings.airflow_home() / Path(place).expanduser()).read_bytes()
        return bytes(ObjectStoragePath(place).read_bytes())
    except (OSError, ImportError, ValueError) as error:
        raise ConfigurationError(
            f"the price table {place} cannot be read ({error}): correct equivalent.prices in the accounts file, or put "
            "the table there; the balances go out when the task is cleared"
        ) from error
