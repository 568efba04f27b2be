"""The accounts file: which accounts there are, where they come from and where their balances go.

:func:`load_accounts` reads the whole file. An account that is wrong lands in :attr:`AccountsFile.broken` with one
message that holds all of its problems; the others are in :attr:`AccountsFile.accounts`. Only what is wrong with the
file as a whole (no such file, no YAML, no ``accounts``) is raised. :func:`accounts_in_force` does not even raise that:
it goes on with the last version of the file that could be read.

DAG files import this room: nothing in here may import pandas, pyarrow, requests, pendulum or Airflow.
"""

from __future__ import annotations

from balance_bridge.accounts.destinations import (
    AmlyzeDestination,
    Destination,
    ElvenAsset,
    ElvenDestination,
    Equivalent,
    WebhookDestination,
)
from balance_bridge.accounts.last_good import accounts_in_force
from balance_bridge.accounts.loading import AccountsFile, BrokenAccount, load_accounts
from balance_bridge.accounts.models import Account
from balance_bridge.accounts.sources import AscendexSource, FilesSource, Source

__all__ = [
    "Account",
    "AccountsFile",
    "AmlyzeDestination",
    "AscendexSource",
    "BrokenAccount",
    "Destination",
    "ElvenAsset",
    "ElvenDestination",
    "Equivalent",
    "FilesSource",
    "Source",
    "WebhookDestination",
    "accounts_in_force",
    "load_accounts",
]
