"""The webhook connection."""

from __future__ import annotations

from balance_bridge.accounts import WebhookDestination
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.hooks.transport import MaskingTransport
from balance_bridge.load.webhook import Webhook
from balance_bridge.transport import Credentials


class WebhookHook(ApiHook):
    """A webhook as a destination, from an Airflow connection of type ``webhook``.

    Args:
        conn_id: The connection's id.
    """

    conn_type = "webhook"
    default_conn_name = "webhook_default"
    hook_name = "Balance webhook"

    def get_conn(self, config: WebhookDestination | None = None, account: str = "connection-test") -> Webhook:
        """The destination.

        Args:
            config: As the accounts file has it; None for a client that can only be tested.
            account: The account's name in the accounts file.
        """
        # The base URL of an API has no slash at its end; a URL to post to has one if it was given with one.
        slash = "/" if (self.connection.host or "").strip().endswith("/") else ""
        credentials = Credentials(self.base_url + slash, "", self.secret("password", "shared secret"))
        config = config or WebhookDestination.model_construct(name=self.conn_id)
        return Webhook(config, credentials, MaskingTransport(), account=account)
