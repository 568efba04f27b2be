"""From an account of the accounts file to the client that reads its source."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from balance_bridge import settings
from balance_bridge.accounts import Account
from balance_bridge.accounts.sources import AscendexSource
from balance_bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from balance_bridge.extract.source import Source
    from balance_bridge.store import StorePath


def open_source(account: Account, *, patience_s: float = math.inf, log: Callable[[str], None]) -> Source:
    """The source of an account.

    Args:
        account: The account.
        patience_s: Longest single wait in seconds for a slot of the request budget.
        log: Told where the balances are read from.

    Raises:
        ConfigurationError: If the connection or the folder cannot be used.
    """
    source = account.source
    if isinstance(source, AscendexSource):
        from balance_bridge.extract import ascendex
        from balance_bridge.hooks.ascendex import AscendexHook

        client, category = AscendexHook(source.conn_id).get_conn(patience_s), ascendex.Category(source.category)
        return ascendex.AscendexAccount(client, category, retention_days=source.retention_days, settle=source.settle)
    from balance_bridge.extract.files import FilesAccount

    root = _root(source.path)
    log(f"balances and changes are read from files in {root}")
    return FilesAccount(root, retention_days=source.retention_days, settle=source.settle)


def _root(path: str) -> Path | StorePath:
    try:
        root: Path | StorePath = settings.open_path(path)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(
            f"source path {path} cannot be opened",
            why=str(error),
            do="Correct source.path in the accounts file; for a bucket, install the cloud's Airflow provider.",
        ) from error
    return root
