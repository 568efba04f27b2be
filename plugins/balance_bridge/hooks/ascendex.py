"""The AscendEX connection."""

from __future__ import annotations

import math
import re

from balance_bridge import settings
from balance_bridge.errors import ConfigurationError
from balance_bridge.extract.ascendex import DEFAULT_URL, AscendexClient
from balance_bridge.extract.budget import REQUESTS_PER_WINDOW, Budget, Limits, budget_key
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.hooks.transport import MaskingTransport
from balance_bridge.transport import Credentials

MOST_REQUESTS_PER_MINUTE = 600


class AscendexHook(ApiHook):
    """A signed, budgeted client from an Airflow connection of type ``ascendex``.

    Args:
        conn_id: The connection's id.
    """

    conn_type = "ascendex"
    default_conn_name = "ascendex_default"
    hook_name = "AscendEX"
    default_url = DEFAULT_URL

    @property
    def requests_per_minute(self) -> int:
        """How many requests the key is granted in any 60 s, from the connection's extra.

        Raises:
            ConfigurationError: If it is not a whole number from 1 to 600.
        """
        value = self.connection.extra_dejson.get("requests_per_minute")
        if value is None or value == "":
            return REQUESTS_PER_WINDOW
        if not re.fullmatch(r"[1-9][0-9]{0,2}", str(value)) or int(value) > MOST_REQUESTS_PER_MINUTE:
            raise ConfigurationError(
                f"connection {self.conn_id!r}: requests_per_minute = {str(value)[:20]!r}: a whole number from 1 to "
                f"{MOST_REQUESTS_PER_MINUTE} is expected; without it, it is {REQUESTS_PER_WINDOW}"
            )
        return int(value)

    def budget(self, patience_s: float = math.inf) -> Budget:
        """The budget in which the requests of the connection's key are counted.

        Args:
            patience_s: The longest wait for a slot that is slept through.
        """
        return Budget(
            settings.budget_url(),
            budget_key(self.secret("login", "API key")),
            limits=Limits(self.requests_per_minute),
            patience_s=patience_s,
            log=self.log.info,
        )

    def get_conn(self, patience_s: float = math.inf) -> AscendexClient:
        """The client; its requests count in the budget of the connection's key.

        Args:
            patience_s: The longest wait for a slot of the budget that is slept through.
        """
        credentials = Credentials(
            self.base_url,
            self.secret("login", "API key"),
            self.secret("password", "API secret"),
            name=f"connection {self.conn_id!r}",
        )
        return AscendexClient(MaskingTransport(), credentials, budget=self.budget(patience_s), log=self.log.info)

    def _test(self) -> tuple[bool, str]:
        client = self.get_conn()
        client.info()
        skew = client.clock_skew_s
        clocks = f"; the clocks differ by {abs(skew):.0f} s" if skew is not None and abs(skew) >= 2 else ""
        return True, f"{self.base_url} accepts this key (GET /api/pro/v1/info){clocks}"
