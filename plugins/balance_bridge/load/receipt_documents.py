"""The documents that receipts are made of, and how they are written and read.

Each carries the digest of the rest of itself, so that a receipt which was changed afterwards is found, not believed.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from balance_bridge.errors import StoreDamaged
from balance_bridge.load.batches import Row
from balance_bridge.load.history import Claim
from balance_bridge.load.outcomes import Outcome
from balance_bridge.store import Store

VERSION = 1

Document = TypeVar("Document", bound=msgspec.Struct)


class Begun(msgspec.Struct):
    """Which balances a delivery stands for: how many, and a digest of their keys, amounts and all that is sent."""

    version: int
    balances: int
    stands_for: str


class Planned(msgspec.Struct):
    """The rows of a batch, written before the first request."""

    version: int
    account: str
    day: str
    destination: str
    kind: str
    run_id: str
    created_at: str
    rows: list[Row]


class Answered(msgspec.Struct):
    """What became of one request: its answer, or that there was none.

    ``after`` is there if another run had overtaken this one by then: per number the last attempt that was made under
    its key, which this one may have followed.
    """

    version: int
    run_id: str
    sent_at: str
    ended_at: str
    http_status: int | None
    request_id: str
    body_sha256: str
    foreign_results: int
    outcomes: dict[str, Outcome]
    refused_whole: bool = False
    # Not written where there is none: receipts of before have the same digest.
    after: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


class Resolved(msgspec.Struct):
    """What a person found out about rows whose outcome was not known."""

    version: int
    by: str
    reason: str
    resolved_at: str
    outcomes: dict[str, Outcome]


class LocalRow(msgspec.Struct):
    """A balance that was rejected before anything was sent."""

    asset: str
    at_ms: int
    amount: str
    code: str
    text: str


class Local(msgspec.Struct):
    """What a run did not send at all."""

    version: int
    rejected: list[LocalRow]
    ignored: dict[str, int]


class Agreed(msgspec.Struct):
    """A day's claims."""

    version: int
    claims: list[Claim]


class Pointer(msgspec.Struct):
    """That another day's run planned rows whose instant lies on this day."""

    version: int
    day: str


class _Head(msgspec.Struct):
    version: int
    sha256: str = ""


def encode(document: msgspec.Struct) -> bytes:
    """A document as the bytes of an object: JSON, with its digest."""
    # Fields stay in the order in which they are sent, so that what is sent again is the same bytes.
    plain = msgspec.json.encode(document)
    sealed = b'{"sha256":"' + hashlib.sha256(plain).hexdigest().encode() + b'",' + plain[1:]
    return msgspec.json.format(sealed, indent=1) + b"\n"


def decode(store: Store, key: str, kind: type[Document]) -> Document:
    """Read a document of the store.

    Raises:
        StoreDamaged: If it is missing, not what was written, or of another version.
    """
    data, place = store.read(key), store.describe(key)
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.version != VERSION:
            raise StoreDamaged(f"{place} has format version {head.version}; this release reads {VERSION}")
        document = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreDamaged(f"{place} is not the receipt that was written: {error}") from error
    if head.sha256 and hashlib.sha256(msgspec.json.encode(document)).hexdigest() != head.sha256:
        raise StoreDamaged(f"{place} is not the receipt that was written: its digest is another one")
    return document


def time_text(seconds: float) -> str:
    """Seconds since the epoch (UTC) as they stand on a receipt."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
