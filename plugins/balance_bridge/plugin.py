"""The Airflow plugin: the page "Balances", and its entry in Airflow's menu."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin


async def _page(scope: Any, receive: Any, send: Any) -> None:
    # Imported by the first request: schedulers and workers load plugins too, and have no use for it.
    from balance_bridge.ui.app import app

    await app(scope, receive, send)


_APPS: list[Any] = [{"app": _page, "url_prefix": "/balances", "name": "Balances"}]
_VIEWS: list[Any] = [
    {
        "name": "Balances",
        # Relative, so that it holds behind a prefix as well.
        "href": "balances/",
        "destination": "nav",
        "url_route": "balances",
        "icon": "balances/static/icon.svg",
        "icon_dark_mode": "balances/static/icon-dark.svg",
    }
]


class BalanceBridgePlugin(AirflowPlugin):
    """Registers the page. Operators and hooks are imported by path and need no registration."""

    name = "balance_bridge"
    fastapi_apps = _APPS
    external_views = _VIEWS
