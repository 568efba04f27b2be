"""The transport as tasks use it: what it signs is hidden in Airflow's logs."""

from __future__ import annotations

from typing import Unpack

from airflow.sdk.log import mask_secret

from balance_bridge.transport import Options, Response, Transport, credentials


class MaskingTransport(Transport):
    """Has Airflow mask every credential and signature before it is sent.

    Airflow masks what it knows from connections; a signature is made for one request and known to nobody else.
    """

    def send(self, method: str, url: str, **options: Unpack[Options]) -> Response:
        """See :meth:`Transport.send`."""
        for secret in (*options.get("secrets", ()), *credentials(options["headers"])):
            mask_secret(secret)
        return super().send(method, url, **options)
