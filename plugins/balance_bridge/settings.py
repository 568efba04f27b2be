"""The options of ``[balance_bridge]``, read through Airflow's configuration.

Each can be set in ``airflow.cfg`` or as ``AIRFLOW__BALANCE_BRIDGE__<OPTION>``. Nothing here opens a file or imports
pandas: DAG files are parsed with it.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balance_bridge.errors import ConfigurationError
from balance_bridge.provider import OPTIONS

if TYPE_CHECKING:
    from balance_bridge.accounts import AccountsFile
    from balance_bridge.store import Store

SECTION = "balance_bridge"


def airflow_home() -> Path:
    """The folder AIRFLOW_HOME, as Airflow resolves it."""
    return Path(os.path.expandvars(os.environ.get("AIRFLOW_HOME", "~/airflow"))).expanduser().resolve()


def accounts_file() -> Path:
    """Path of the accounts file."""
    return airflow_home() / Path(_get("accounts_file")).expanduser()


def read_accounts() -> AccountsFile:
    """The accounts that run now: those of the accounts file or, while it cannot be read, of its last good version."""
    from balance_bridge.accounts import accounts_in_force

    return accounts_in_force(accounts_file(), airflow_home() / "balance_bridge_accounts")


def store_url() -> str:
    """Folder or URL of the store."""
    return _get("store")


def open_path(place: str) -> Any:
    """A folder or file: a path, relative to AIRFLOW_HOME, or a URL as ObjectStoragePath reads it.

    Raises:
        ImportError: If the cloud's Airflow provider is not installed.
        ValueError: If nothing is known of such URLs.
    """
    if "://" not in place:
        return airflow_home() / Path(place).expanduser()
    from airflow.sdk import ObjectStoragePath

    path = ObjectStoragePath(place)
    # Only this looks for the file system behind the URL.
    _ = path.fs
    return path


def open_store() -> Store:
    """The store that the option names.

    Raises:
        ConfigurationError: If its URL cannot be used.
    """
    from balance_bridge.store import Store

    try:
        return Store(open_path(store_url()))
    except (ImportError, ValueError) as error:
        raise ConfigurationError(
            f"[{SECTION}] store = {store_url()} cannot be opened",
            why=str(error),
            do="Correct the option; for a bucket, install the cloud's Airflow provider.",
        ) from error


def retry_delay() -> timedelta:
    """Delay before the first retry.

    Raises:
        ConfigurationError: If it is not a positive number of seconds.
    """
    return timedelta(
        seconds=int(_matching("retry_delay", "(?=.*[1-9])[0-9]{1,6}", "a whole number of seconds, 1 or more"))
    )


def budget_url() -> str:
    """URL of the request budget's backend."""
    return _get("budget")


def namespace() -> str:
    """First part of every communication number.

    Raises:
        ConfigurationError: If it is not 1 to 32 letters, digits or points.
    """
    return _matching("namespace", "[A-Za-z0-9.]{1,32}", "1 to 32 letters, digits or points")


def _matching(option: str, pattern: str, allowed: str) -> str:
    text = _get(option)
    if not re.fullmatch(pattern, text):
        raise ConfigurationError(
            f"[{SECTION}] {option} = {text}",
            why=f"Allowed: {allowed}",
            do="Correct the option in airflow.cfg or in the environment, then clear this task.",
        )
    return text


def _get(option: str) -> str:
    from airflow.sdk.configuration import conf

    text = str(conf.get(SECTION, option, fallback=OPTIONS[option]["default"])).strip()
    return text.replace("{AIRFLOW_HOME}", str(airflow_home()))
