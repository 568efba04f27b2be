"""The transport as tasks use it: what it signs is hidden in Airflow's logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.log import mask_secret

from balance_bridge.transport import Response, Transport, credentials


class MaskingTransport(Transport):
    """Tells Airflow to mask every credential and signature before it is sent.

    Airflow masks what it knows from connections; a signature is made for one request and known to nobody else.
    """

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], secrets: Sequence[str] = (), **kwargs: Any
    ) -> Response:
        """See :meth:`Transport.send`."""
        for secret in (*secrets, *credentials(headers)):
            mask_secret(secret)
        return super().send(method, url, headers=headers, secrets=secrets, **kwargs)
