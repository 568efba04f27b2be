"""What the three hooks share: reading a connection, and hiding its secrets."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from balance_bridge.errors import BalanceBridgeError, ConfigurationError


class ApiHook(BaseHook):
    """Reads a connection of one type.

    Args:
        conn_id: The connection's id.
    """

    conn_type = ""
    default_url = ""

    def __init__(self, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
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
                    f"connection {self.conn_id!r} does not exist: make one of type {self.conn_type} in Airflow's UI "
                    f"(Admin, Connections) or set AIRFLOW_CONN_{self.conn_id.upper()}"
                ) from error
            if found.conn_type != self.conn_type:
                raise ConfigurationError(
                    f"connection {self.conn_id!r} is of type {found.conn_type!r}; {self.conn_type!r} is expected"
                )
            # Airflow masks passwords by itself, but not logins; an API key is as secret as its secret.
            for secret in (found.login, found.password):
                if secret:
                    mask_secret(secret)
            self._connection = found
        return self._connection

    @property
    def base_url(self) -> str:
        """Scheme, host and port, without a slash at the end.

        Raises:
            ConfigurationError: If the host is missing where there is no default, or is no address.
        """
        return base_url(self.connection, self.default_url)

    def secret(self, field: str, name: str) -> str:
        """The connection's login or password.

        Args:
            field: ``login`` or ``password``.
            name: What the form calls it.

        Raises:
            ConfigurationError: If it is empty, or holds what cannot be sent in a header.
        """
        value = getattr(self.connection, field)
        if not value or not str(value).strip():
            raise ConfigurationError(f"connection {self.conn_id!r} has no {name} ({field}): fill it in")
        text = str(value).strip()
        if not re.fullmatch(r"[\x21-\x7e]+", text):
            # The value itself must not appear in a message, not even a wrong one.
            raise ConfigurationError(
                f"connection {self.conn_id!r}: the {name} ({field}) holds blanks or other than plain ASCII characters: "
                "enter it again, without line breaks"
            )
        return text

    def get_conn(self) -> Any:
        """The client."""
        raise NotImplementedError

    def test_connection(self) -> tuple[bool, str]:
        """Airflow's connection test.

        Returns:
            Whether it works, and what was seen.
        """
        try:
            return self._test()
        except BalanceBridgeError as error:
            return False, str(error)

    def _test(self) -> tuple[bool, str]:
        raise NotImplementedError


def base_url(connection: Any, default: str) -> str:
    """The address of a connection; its host may be a full URL with scheme and port, or a bare name (then https).

    Raises:
        ConfigurationError: If the host is missing where there is no default, or is no address.
    """
    host = (connection.host or "").strip() or default
    if not host:
        raise ConfigurationError(
            f"connection {connection.conn_id!r} has no host: {connection.conn_type} has no common address, "
            "fill in your tenant's base URL, such as https://tenant.example"
        )
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    try:
        parts = urlsplit(host)
        port = parts.port or connection.port
    except ValueError:
        parts, port = urlsplit(""), None
    name = parts.hostname or ""
    if (
        parts.scheme not in ("http", "https")
        or not re.fullmatch(r"[A-Za-z0-9.:_-]+", name)
        or parts.query
        or parts.fragment
        or parts.username
    ):
        # What stands before an @ or behind a ? may be a credential.
        shown = "its host" if re.search(r"[@?#]", host) else repr(connection.host)
        raise ConfigurationError(
            f"connection {connection.conn_id!r}: {shown} is no base URL; scheme, name and, if needed, port are "
            "expected and nothing else, such as https://api.example:8443; credentials go into login and password"
        )
    bracketed = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{bracketed}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
