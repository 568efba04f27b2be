"""Where an account's balances come from, as pydantic models: a model per type of source.

Every field's description says what is allowed there; messages quote it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from balance_bridge.accounts.fields import ConnectionId, Model, printable, whole_number

_PATH_CHARACTERS = 1000
_TYPES = "ascendex, files"


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


class AscendexSource(Model):
    """An account at AscendEX.

    Attributes:
        conn_id: The Airflow connection with the API key.
        category: Which of the key's accounts.
        retention_days: How many days back the exchange answers.
    """

    type: Literal["ascendex"] = Field(default="ascendex", description=_TYPES)
    conn_id: ConnectionId
    category: Literal["cash", "margin"] = Field(description="cash, margin")
    retention_days: Annotated[
        int, BeforeValidator(whole_number), Field(ge=1, le=365, description="a whole number from 1 to 365")
    ] = 7

    @property
    def pool(self) -> str | None:
        """The Airflow pool in which the extraction runs: the key's, since its tasks would wait for each other."""
        return self.conn_id


class FilesSource(Model):
    """Files that somebody, such as a custodian or a bank, puts into a folder or bucket.

    Attributes:
        path: A folder, absolute or relative to AIRFLOW_HOME, or an fsspec URL with an Airflow connection's id as its
            login, as ``ObjectStoragePath`` reads it.
        retention_days: How many days back the files are there; None: no file is ever taken away.
    """

    type: Literal["files"] = Field(default="files", description=_TYPES)
    path: Annotated[
        str,
        AfterValidator(printable(_PATH_CHARACTERS, blanks=True)),
        AfterValidator(_without_password),
        Field(
            description="a folder, absolute or relative to AIRFLOW_HOME, or a URL such as s3://CONN_ID@bucket/folder; "
            f"1 to {_PATH_CHARACTERS} characters, without a password"
        ),
    ]
    retention_days: Annotated[
        Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=3650)] | None,
        Field(description="a whole number from 1 to 3650; without the key the files stay for ever"),
    ] = None

    @property
    def pool(self) -> str | None:
        """None: nothing is counted, so that its tasks run in the default pool."""
        return None


Source = Annotated[AscendexSource | FilesSource, Field(discriminator="type")]
SOURCES: dict[str, type[AscendexSource] | type[FilesSource]] = {"ascendex": AscendexSource, "files": FilesSource}
