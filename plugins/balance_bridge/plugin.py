"""The Airflow plugin; its entry point makes Airflow show the package among its plugins."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class BalanceBridgePlugin(AirflowPlugin):
    """Registers the package. Its operators and hooks are imported by path and need no registration."""

    name = "balance_bridge"
