"""The Airflow plugin: the page "Balances", its entry in Airflow's menu, and the schedule of the daily DAGs."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from balance_bridge.timetable import DayTimetable


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


_TIMETABLES: list[Any] = [DayTimetable]


class BalanceBridgePlugin(AirflowPlugin):
    """Registers the page and the schedule. Operators and hooks are imported by path and need no registration."""

    name = "balance_bridge"
    fastapi_apps = _APPS
    external_views = _VIEWS
    timetables = _TIMETABLES
