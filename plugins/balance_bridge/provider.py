"""What Airflow is told about this package: connection types with their forms, and options."""

from __future__ import annotations

from typing import Any

import balance_bridge

OPERATORS = ("approval", "daily", "deliver", "intraday", "preflight", "refuse")
HOOKS = ("amlyze", "ascendex", "elven", "webhook")


def _option(description: str, default: str, example: str | None, **more: Any) -> dict[str, Any]:
    common = {"description": f"{description}\n", "version_added": "0.1.0", "type": "string"}
    return {**common, "example": example, "default": default, **more}


# The options of [balance_bridge]; settings.py reads them, with these defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "accounts_file": _option(
        "The accounts file (YAML): which account goes where. Relative to AIRFLOW_HOME.",
        "include/accounts.yaml",
        "/etc/balance-bridge/accounts.yaml",
    ),
    "store": _option(
        "Where raw responses, ledgers, reports, balances and receipts are stored: a folder, or a bucket by URL as "
        "ObjectStoragePath reads it.",
        "{AIRFLOW_HOME}/balances",
        "s3://aws_default@treasury/balances",
    ),
    "retry_delay": _option(
        "Seconds before the first retry of a task; doubled for each further one.", "60", None, type="integer"
    ),
    "budget": _option(
        "SQLAlchemy URL of the database in which the requests of all processes to one exchange key are counted: "
        "an SQLite file on a local disk for one machine, PostgreSQL for several.",
        "sqlite:///{AIRFLOW_HOME}/balance_bridge_budget.db",
        "postgresql://balances:password@db.internal/airflow",
        # It may hold a password.
        sensitive=True,
    ),
    "namespace": _option(
        "First part of every communication number. Two deployments that write to one Amlyze tenant must differ in it.",
        "bb",
        "acme",
    ),
}


def get_provider_info() -> dict[str, Any]:
    """The provider's description, as Airflow's schema for it asks (entry point ``apache_airflow_provider``)."""
    return {
        "package-name": "balance-bridge",
        "name": "Balance Bridge",
        "description": "Daily exchange balances, proven and delivered: AscendEX to Elven and Amlyze.",
        "versions": [balance_bridge.__version__],
        "integrations": [
            {
                "integration-name": "Balance Bridge",
                "external-doc-url": "https://ascendex.github.io/ascendex-pro-api/",
                "tags": ["service"],
            }
        ],
        "operators": [{"integration-name": "Balance Bridge", "python-modules": _modules("operators", OPERATORS)}],
        "hooks": [{"integration-name": "Balance Bridge", "python-modules": _modules("hooks", HOOKS)}],
        # Their names are taken as they are: balance-bridge://<account>/<destination>.
        "asset-uris": [{"schemes": ["balance-bridge"], "handler": None}],
        # No "plugins" here: Airflow loads those of providers only if `lazy_discover_providers` is off, and then reports
        # the plugin of the entry point, which it always loads, as registered twice.
        "connection-types": _connection_types(),
        "config": {
            "balance_bridge": {
                "description": "Options of balance-bridge, the daily delivery of exchange balances.",
                "options": OPTIONS,
            }
        },
    }


def _modules(room: str, names: tuple[str, ...]) -> list[str]:
    return [f"balance_bridge.{room}.{name}" for name in names]


def _connection_types() -> list[dict[str, Any]]:
    ascendex = _connection_type(
        *("ascendex", "AscendEX", "AscendexHook"),
        host=("Base URL", "https://ascendex.com"),
        login=("API key", "A key with the permission to view, and no other"),
        password=("API secret", "The key's secret, as AscendEX showed it once"),
    )
    ascendex["conn-fields"] = {
        "requests_per_minute": {
            "label": "Requests per minute",
            "description": "How many the key may make in any 60 s; enter the same wherever the key is used.",
            "schema": {"type": ["integer", "null"], "default": 8, "minimum": 1, "maximum": 600},
        }
    }
    elven = _connection_type(
        *("elven", "Elven", "ElvenHook"),
        host=("Base URL", "https://openapi.elven.com"),
        login=("API key", "The OpenAPI key of your Elven workspace"),
        password=("API secret", "The key's secret"),
    )
    amlyze = _connection_type(
        *("amlyze", "Amlyze", "AmlyzeHook"),
        host=("Tenant's base URL", "https://your-tenant.example (required; without /amlyze-ws-rest)"),
        password=("Bearer token", "The token, without the word Bearer"),
    )
    webhook = _connection_type(
        *("webhook", "Balance webhook", "WebhookHook"),
        host=("URL", "https://ledger.your-company.example/balances (required)"),
        password=("Shared secret", "Signs every request; the receiver has it too"),
    )
    return [ascendex, elven, amlyze, webhook]


def _connection_type(kind: str, name: str, hook: str, **fields: tuple[str, str]) -> dict[str, Any]:
    """A type of connection; of each field of its form the label and the placeholder, and no other field is shown."""
    return {
        "connection-type": kind,
        "hook-name": name,
        "hook-class-name": f"balance_bridge.hooks.{kind}.{hook}",
        "ui-field-behaviour": {
            "hidden-fields": [field for field in ("schema", "port", "login", "extra") if field not in fields],
            "relabeling": {field: label for field, (label, _) in fields.items()},
            "placeholders": {field: placeholder for field, (_, placeholder) in fields.items()},
        },
    }
