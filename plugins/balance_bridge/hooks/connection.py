"""What the hooks share: reading a connection, hiding its secrets, testing it."""

from __future__ import annotations

import re
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from balance_bridge.errors import BalanceBridgeError, ConfigurationError

_ADDRESS = re.compile(r"(https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(/[^?#\s]*)?")


class ApiHook(BaseHook):
    """Reads a connection of one type.

    Args:
        conn_id: The connection's id; the type's default one if there is none.
    """

    conn_name_attr = "conn_id"
    conn_type = ""
    default_conn_name = ""
    default_url = ""

    def __init__(self, conn_id: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id or self.default_conn_name
        self._connection: Any = None

    @property
    def connection(self) -> Any:
        """The connection, its key and secret masked in logs.

        Raises:
            ConfigurationError: If there is none, or it is of another type.
        """
        if self._connection is None:
            try:
                found = self.get_connection(self.conn_id)
            except AirflowNotFoundException as error:
                raise ConfigurationError(
                    f"connection {self.conn_id!r} does not exist",
                    do=f"Make one of type {self.conn_type} in Airflow (Admin, Connections), or set "
                    f"AIRFLOW_CONN_{self.conn_id.upper()}.",
                ) from error
            if found.conn_type != self.conn_type:
                raise ConfigurationError(
                    f"connection {self.conn_id!r} is of type {found.conn_type!r}; {self.conn_type!r} is expected",
                    do="Name another connection in the accounts file, or change this one's type.",
                )
            # Airflow masks passwords, but not logins; an API key is as secret as its secret.
            for secret in (found.login, found.password):
                if secret:
                    mask_secret(secret)
            self._connection = found
        return self._connection

    @property
    def base_url(self) -> str:
        """Scheme, host, port and path, without a slash at the end; a host may be a bare name (then https) or a URL.

        Raises:
            ConfigurationError: If the host is missing where there is no default, or is not an address.
        """
        connection = self.connection
        host = (connection.host or "").strip() or self.default_url
        if not host:
            raise ConfigurationError(
                f"connection {self.conn_id!r} has no host",
                why=f"{self.conn_type} has no common address",
                do="Enter the base URL as the host, such as https://tenant.example.",
            )
        address = _ADDRESS.fullmatch(host if "://" in host else f"{connection.schema or 'https'}://{host}")
        port = int((address and address[3]) or connection.port or 0)
        if address is None or port > 65535:
            # What stands before an @ or behind a ? may be a credential.
            shown = "its host" if re.search(r"[@?#]", host) else repr(connection.host)
            raise ConfigurationError(
                f"connection {self.conn_id!r}: {shown} is not a base URL",
                why="a host is a name or scheme, name and port; credentials go into login and password",
                do="Enter an address such as https://api.example:8443.",
            )
        scheme, name, _, path = address.groups()
        return f"{scheme}://{name.lower()}{f':{port}' if port else ''}{(path or '').rstrip('/')}"

    def secret(self, field: str, name: str) -> str:
        """The connection's login or password.

        Args:
            field: ``login`` or ``password``.
            name: What the form calls it.

        Raises:
            ConfigurationError: If it is empty, or holds what cannot be sent in a header.
        """
        text = str(getattr(self.connection, field) or "").strip()
        what = f"connection {self.conn_id!r}: the {name} ({field})"
        if not text:
            raise ConfigurationError(f"{what} is empty", do="Fill it in, then clear this task.")
        if not re.fullmatch(r"[\x21-\x7e]+", text):
            # The value itself must not appear in a message, not even a wrong one.
            raise ConfigurationError(
                f"{what} cannot be sent",
                why="it contains blanks, or characters other than plain ASCII",
                do="Enter it again, without line breaks.",
            )
        return text

    def get_conn(self, *args: Any, **kwargs: Any) -> Any:
        """The client; without arguments, one that can only be tested."""
        raise NotImplementedError

    def test_connection(self) -> tuple[bool, str]:
        """Airflow's connection test: whether it works, and what was seen."""
        try:
            return self._test()
        except BalanceBridgeError as error:
            return False, str(error)

    def _test(self) -> tuple[bool, str]:
        tested: tuple[bool, str] = self.get_conn().check()
        return tested
