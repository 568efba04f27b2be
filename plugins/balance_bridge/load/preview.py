"""What would be sent: kept in the store by a dry run, for people to look at before anything goes out.

::

    dry/<account>/<day>/<destination>/0001.json   a higher number is a later dry run that came to something else
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import msgspec

from balance_bridge.errors import StoreDamaged
from balance_bridge.load.batches import Batch, Row
from balance_bridge.load.destination import LocalRejection
from balance_bridge.store import Store

VERSION = 1


class Unsendable(msgspec.Struct):
    """A balance that could not be sent, and why."""

    asset: str
    at_ms: int
    amount: str
    text: str


class Preview(msgspec.Struct):
    """What a delivery would do.

    Attributes:
        version: Of this format.
        account: The account's name.
        day: The UTC day, ``YYYY-MM-DD``.
        destination: The destination's name.
        kind: Its type.
        batches: The rows of each request, as they would be sent under their numbers.
        rejected: What cannot be sent.
        ignored: Number of balances that the accounts file leaves out, by asset.
    """

    version: int
    account: str
    day: str
    destination: str
    kind: str
    batches: list[list[Row]]
    rejected: list[Unsendable]
    ignored: dict[str, int]


def keep(
    store: Store,
    account: str,
    day: date,
    *,
    destination: str,
    kind: str,
    batches: Sequence[Batch],
    rejected: Iterable[LocalRejection],
    ignored: Mapping[str, int],
) -> str:
    """Write down what would be sent.

    Returns:
        The key; the one before, if it says the very same.
    """
    document = Preview(
        version=VERSION,
        account=account,
        day=day.isoformat(),
        destination=destination,
        kind=kind,
        batches=[list(batch.rows) for batch in batches],
        rejected=[
            Unsendable(each.balance.asset, each.balance.at_ms, format(each.balance.amount, "f"), each.text)
            for each in rejected
        ],
        ignored=dict(sorted(ignored.items())),
    )
    data = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
    return store.append(f"dry/{account}/{day.isoformat()}/{destination}", ".json", data)


def read(store: Store, key: str) -> Preview:
    """Read what :func:`keep` wrote.

    Raises:
        StoreDamaged: If it is missing, damaged or of another version.
    """
    try:
        found = msgspec.json.decode(store.read(key), type=Preview)
    except msgspec.DecodeError as error:
        raise StoreDamaged(f"{store.describe(key)} is not what a dry run wrote: {error}") from error
    if found.version != VERSION:
        raise StoreDamaged(f"{store.describe(key)} has format {found.version}; this release reads {VERSION}")
    return found
