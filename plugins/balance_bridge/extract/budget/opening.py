"""The budget that a URL names."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack
from urllib.parse import urlsplit

from balance_bridge.errors import ConfigurationError
from balance_bridge.extract.budget.base import Budget, Options
from balance_bridge.extract.budget.sqlite import SqliteBudget

_OPTION = "[balance_bridge] budget"
_ALLOWED = "sqlite:////absolute/path/to/file.db, redis://host:6379/0, rediss://..., postgresql://user@host/database"


def open_budget(url: str, key: str, **options: Unpack[Options]) -> Budget:
    """The budget that a URL names. Nothing is connected to yet.

    Args:
        url: ``sqlite:////absolute/path/to/file.db``, ``redis://...``, ``rediss://...`` or ``postgresql://...``.
        key: As :func:`budget_key` makes it.
        options: As :class:`Budget` takes them.

    Raises:
        ConfigurationError: If the URL is of another kind, cannot be read, or its driver is not installed.
    """
    kind = url.split(":", 1)[0].split("+", 1)[0]
    if kind == "sqlite":
        # Taken as it is: a folder's name may hold what has a meaning in a URL.
        path = url.removeprefix("sqlite:///")
        if path != url and path.startswith("/"):
            return SqliteBudget(Path(path), key, **options)
    elif kind in ("redis", "rediss") and "://" in url:
        try:
            import redis

            from balance_bridge.extract.budget.redis_server import RedisBudget

            redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
        except ImportError as error:
            raise _not_installed("redis") from error
        except ValueError:
            raise _unusable("this is no URL of a Redis server") from None
        return RedisBudget(url, key, **options)
    elif kind in ("postgresql", "postgres") and "://" in url:
        try:
            import psycopg

            from balance_bridge.extract.budget.postgresql import PostgresBudget

            plain = f"postgresql://{url.split('://', 1)[1]}"
            psycopg.conninfo.conninfo_to_dict(plain)
        except ImportError as error:
            raise _not_installed("postgresql") from error
        except psycopg.Error:
            raise _unusable("this is no URL of a PostgreSQL database") from None
        return PostgresBudget(plain, key, **options)
    raise _unusable("this names no backend that is known")


def redacted(url: str) -> str:
    """A URL that a budget was opened with, without the credentials in it; drivers read them from the query too."""
    if url.startswith("sqlite:"):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _unusable(why: str) -> ConfigurationError:
    # Without the value: in a URL that cannot be read, nobody can tell the password from the rest.
    return ConfigurationError(f"{_OPTION}: {why}; allowed: {_ALLOWED}")


def _not_installed(extra: str) -> ConfigurationError:
    return ConfigurationError(f"{_OPTION}: its driver is not installed: pip install 'balance-bridge[{extra}]'")
