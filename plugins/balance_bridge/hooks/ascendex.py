"""The AscendEX connection."""

from __future__ import annotations

from balance_bridge import settings
from balance_bridge.extract.ascendex import DEFAULT_URL, AscendexClient, AscendexSource, Category
from balance_bridge.extract.budget import budget_key, open_budget
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.hooks.transport import MaskingTransport


class AscendexHook(ApiHook):
    """A signed, budgeted client from an Airflow connection of type ``ascendex``.

    Args:
        conn_id: The connection's id.
    """

    conn_name_attr = "conn_id"
    conn_type = "ascendex"
    default_conn_name = "ascendex_default"
    hook_name = "AscendEX"
    default_url = DEFAULT_URL

    def __init__(self, conn_id: str = default_conn_name, **kwargs: object) -> None:
        super().__init__(conn_id, **kwargs)

    def get_conn(self) -> AscendexClient:
        """The client; its requests count in the budget of the connection's key."""
        url, api_key = self.base_url, self.secret("login", "API key")
        budget = open_budget(settings.budget_url(), budget_key(api_key), log=self.log.info)
        return AscendexClient(
            MaskingTransport(),
            url,
            api_key,
            self.secret("password", "API secret"),
            budget=budget,
            log=self.log.info,
        )

    def source(self, category: str) -> AscendexSource:
        """One account of the key.

        Args:
            category: ``cash`` or ``margin``.
        """
        return AscendexSource(self.get_conn(), Category(category))

    def _test(self) -> tuple[bool, str]:
        client = self.get_conn()
        client.info()
        skew = client.clock_skew_s
        clocks = f"; the clocks differ by {abs(skew):.0f} s" if skew is not None and abs(skew) >= 2 else ""
        return True, f"{self.base_url} accepts this key (GET /api/pro/v1/info){clocks}"
