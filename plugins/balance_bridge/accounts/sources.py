"""Where an account's balances come from: a model per type of source.

A field's description says what is allowed there; messages quote it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from balance_bridge.accounts.fields import ConnectionId, Model, WholeNumber, line, parse_duration

_MAX_PATH = 1000


def _without_password(path: str) -> str:
    _, mark, rest = path.partition("://")
    login, _, _ = rest.rpartition("@")
    # A ":" behind the first "/" counts as well: nobody escapes a password that has a "/" in it.
    if mark and ":" in login:
        raise ValueError(
            "has a ':' before the '@', as a password would; put login and password into an Airflow connection, and "
            "name that before the '@'"
        )
    return path


Settle = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    Field(ge=timedelta(0), le=timedelta(hours=3), description="0, or a whole number of s, min or h up to 3h, as 10min"),
]


class AscendexSource(Model):
    """An account at AscendEX.

    Attributes:
        conn_id: The Airflow connection with the API key.
        category: Which of the key's accounts.
        retention_days: How many days back the exchange answers.
        settle: How long after a day's end its closing snapshot is first fetched.
    """

    type: Literal["ascendex"] = "ascendex"
    conn_id: ConnectionId
    category: Literal["cash", "margin"]
    retention_days: Annotated[WholeNumber, Field(ge=1, le=365)] = 7
    settle: Settle = timedelta(minutes=10)

    @property
    def pool(self) -> str | None:
        """The Airflow pool in which the extraction runs: the key's, since its tasks would wait for each other."""
        return self.conn_id


class FilesSource(Model):
    """Files that somebody, such as a custodian or a bank, puts into a folder or bucket.

    Attributes:
        path: A folder, absolute or relative to AIRFLOW_HOME, or an fsspec URL with an Airflow connection's id as its
            login, as ``ObjectStoragePath`` reads it.
        retention_days: How many days back the files are there; None: files are never removed.
        settle: How long after a day's end its closing snapshot is first looked for.
    """

    type: Literal["files"] = "files"
    path: Annotated[
        str,
        line(_MAX_PATH),
        AfterValidator(_without_password),
        Field(
            description="a folder, absolute or relative to AIRFLOW_HOME, or a URL such as s3://CONN_ID@bucket/folder; "
            f"1 to {_MAX_PATH} characters, without a password"
        ),
    ]
    retention_days: Annotated[
        Annotated[WholeNumber, Field(ge=1, le=3650)] | None,
        Field(description="a whole number from 1 to 3650; without the key files are never removed"),
    ] = None
    settle: Settle = timedelta(0)

    @property
    def pool(self) -> str | None:
        """None: nothing is counted, so that its tasks run in the default pool."""
        return None


Source = Annotated[AscendexSource | FilesSource, Field(discriminator="type")]
