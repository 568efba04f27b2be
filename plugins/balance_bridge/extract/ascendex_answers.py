"""AscendEX's answers, typed: what is missing or malformed is refused here, and nothing behind this border checks again.

Accepted, because the documentation contradicts itself or clients have seen it: an answer bare or inside
``{code: 0, data}``, the snapshot's list as ``snapshot`` or ``balance`` and its instant as ``snapshotTime`` or
``balanceTime``, lists that are missing or null, unknown fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import chain
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from balance_bridge import money
from balance_bridge.errors import InvalidAmount, InvalidResponse
from balance_bridge.extract.source import Page, Record, SnapshotResponse
from balance_bridge.transform.schema import AMOUNT, LEGS
from balance_bridge.transform.snapshot import Snapshot

Body = TypeVar("Body")

ASSET = re.compile(r"[^\s\x00-\x1f]{1,64}")

SequenceNumber = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# Up to the end of the year 9999: what a millisecond timestamp can mean.
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
Asset = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[^\s\x00-\x1f]+\Z")]


class Meta(msgspec.Struct):
    """The ``meta`` of both answers."""

    ac: str
    accountId: str  # noqa: N815
    sn: SequenceNumber | None = None
    snapshotTime: Milliseconds | None = None  # noqa: N815
    balanceTime: Milliseconds | None = None  # noqa: N815


class Holding(msgspec.Struct):
    """One asset of a snapshot."""

    asset: Asset
    totalBalance: str  # noqa: N815


class SnapshotBody(msgspec.Struct):
    """A snapshot answer without its envelope."""

    meta: Meta
    snapshot: list[Holding] | None = None
    balance: list[Holding] | None = None


class Leg(msgspec.Struct, gc=False):
    """One asset's change within a record. ``curBalance`` is the balance after the whole record."""

    asset: str
    curBalance: str  # noqa: N815
    deltaQty: str  # noqa: N815
    dataType: str | None = None  # noqa: N815


class OrderRecord(msgspec.Struct):
    """A change by an order fill."""

    sn: SequenceNumber
    transactTime: Milliseconds  # noqa: N815
    orderId: str  # noqa: N815
    data: list[Leg]
    orderType: str | None = None  # noqa: N815
    side: str | None = None


class BalanceRecord(msgspec.Struct):
    """A change by anything else: deposit, withdrawal, reward. The set of event types is open."""

    sn: SequenceNumber
    transactTime: Milliseconds  # noqa: N815
    eventType: str  # noqa: N815
    data: list[Leg]


class HistoryBody(msgspec.Struct):
    """A history answer without its envelope."""

    meta: Meta
    order: list[OrderRecord] | None = None
    balance: list[BalanceRecord] | None = None


class Envelope(msgspec.Struct):
    """What tells an error and an envelope from a bare answer."""

    code: int | str | None = None
    reason: str | None = None
    message: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")

    @property
    def failed(self) -> bool:
        """Whether this is an error."""
        return self.code is not None and str(self.code) != "0"


# What Arrow's cast is exact for. Of longer texts and of exponents it makes other numbers without a word.
_PLAIN_AMOUNT = r"^[+-]?[0-9]{1,20}(\.[0-9]{1,18})?$"

# Text that is no UTF-8 and nesting without end are told by errors of their own.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_envelope = msgspec.json.Decoder(Envelope)
_snapshot = msgspec.json.Decoder(SnapshotBody)
_history = msgspec.json.Decoder(HistoryBody)


def read_envelope(body: bytes) -> Envelope:
    """The envelope of an answer; its ``code`` is None where there is none.

    Raises:
        InvalidResponse: If the body is no JSON object.
    """
    try:
        return _envelope.decode(body)
    except _UNREADABLE as error:
        look = body[:200].decode("utf-8", "replace")
        raise InvalidResponse(f"the answer is not what the exchange documents ({error}): {look!r}") from error


def read_snapshot(body: bytes, *, category: str, day: date) -> SnapshotResponse:
    """Interpret an answer of ``balance/snapshot``.

    Raises:
        InvalidResponse: If a field is missing or malformed, an asset comes twice, or it is another day's or category's.
    """
    answer = _decode(_snapshot.decode, body)
    _check_category(answer.meta, category)
    at_ms = answer.meta.snapshotTime if answer.meta.snapshotTime is not None else answer.meta.balanceTime
    if answer.meta.sn is None or at_ms is None:
        raise InvalidResponse("meta.sn or meta.snapshotTime (also known as balanceTime) is missing from the snapshot")
    midnight_ms = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
    if at_ms != midnight_ms:
        raise InvalidResponse(
            f"meta.snapshotTime is {at_ms} ({_utc(at_ms)}), but the snapshot of {day} was asked for, "
            f"which is of {midnight_ms} ({_utc(midnight_ms)})"
        )
    balances: dict[str, Decimal] = {}
    for holding in chain(answer.snapshot or (), answer.balance or ()):
        if holding.asset in balances:
            raise InvalidResponse(f"asset {holding.asset} comes twice in the snapshot of {day}")
        try:
            balances[holding.asset] = money.parse(holding.totalBalance)
        except InvalidAmount as error:
            raise InvalidResponse(f"totalBalance of {holding.asset} in the snapshot of {day}: {error}") from error
    return SnapshotResponse(answer.meta.accountId, Snapshot(answer.meta.sn, at_ms, balances))


def read_page(body: bytes, *, category: str) -> Page:
    """Interpret an answer of ``balance/history``.

    Raises:
        InvalidResponse: If a field is missing or malformed, or the page is another category's.
    """
    answer = _decode(_history.decode, body)
    _check_category(answer.meta, category)
    return Page(answer.meta.accountId, (answer.order or [], answer.balance or []))


def legs(records: Sequence[Record]) -> pa.Table:
    """Records as a table of legs, column by column.

    Raises:
        InvalidResponse: If an asset or an amount is malformed; names the sequence number and the value.
    """
    orders = [record for record in records if isinstance(record, OrderRecord)]
    others = [record for record in records if isinstance(record, BalanceRecord)]
    everything: list[OrderRecord | BalanceRecord] = [*orders, *others]
    counts = np.fromiter((len(record.data) for record in everything), np.int64, len(everything))
    of_leg = pa.array(np.repeat(np.arange(len(everything)), counts))
    all_legs = list(chain.from_iterable(record.data for record in everything))

    def per_record(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(of_leg)

    def named(values: list[Any]) -> pa.Array:
        return pa.array(values, pa.string()).dictionary_encode().take(of_leg).cast(pa.string())

    sn = per_record([record.sn for record in everything], pa.int64())
    columns = {
        "sn": sn,
        "at": per_record([record.transactTime for record in everything], pa.int64()).cast(pa.timestamp("ms", "UTC")),
        "kind": named(["order"] * len(orders) + ["balance"] * len(others)),
        "event": named([_order_event(record) for record in orders] + [record.eventType for record in others]),
        "order_id": per_record([record.orderId for record in orders] + [None] * len(others), pa.string()),
        "asset": _assets([leg.asset for leg in all_legs], sn),
        "fee": pa.array([leg.dataType == "fee" for leg in all_legs], pa.bool_()),
        "delta": _amounts([leg.deltaQty for leg in all_legs], sn, "deltaQty"),
        "balance": _amounts([leg.curBalance for leg in all_legs], sn, "curBalance"),
    }
    return pa.table([columns[field.name].cast(field.type) for field in LEGS], schema=LEGS)


def _order_event(record: OrderRecord) -> str:
    # The case of both varies from answer to answer.
    return " ".join(part.lower() for part in (record.side, record.orderType) if part) or "order"


def _assets(values: list[str], sn: pa.Array) -> pa.Array:
    encoded = pa.array(values, pa.string()).dictionary_encode()
    for index, asset in enumerate(encoded.dictionary.to_pylist()):
        if not ASSET.fullmatch(asset):
            first = pc.index(encoded.indices, index).as_py()
            raise InvalidResponse(f"asset of sn {sn[first]}: {asset!r} is not an asset code")
    return encoded


def _amounts(texts: list[str], sn: pa.Array, field: str) -> pa.Array:
    column = pa.array(texts, pa.string())
    if pc.all(pc.match_substring_regex(column, _PLAIN_AMOUNT), min_count=0).as_py():
        return column.cast(AMOUNT)
    # Ten times as slow, for the few pages that need it: exponents, needless zeros, and what is refused.
    exact: list[Decimal] = []
    for text, number in zip(texts, sn, strict=True):
        try:
            exact.append(money.parse(text))
        except InvalidAmount as error:
            raise InvalidResponse(f"{field} of sn {number}: {error}") from error
    return pa.array(exact, AMOUNT)


def _check_category(meta: Meta, category: str) -> None:
    if meta.ac.lower() != category:
        raise InvalidResponse(f"meta.ac is {meta.ac!r}, but the {category} account was asked for")


def _decode(decode: Callable[[bytes | msgspec.Raw], Body], body: bytes) -> Body:
    content: bytes | msgspec.Raw = body
    envelope = read_envelope(body)
    if envelope.failed:
        raise InvalidResponse(f"the answer is an error: code {envelope.code}, {envelope.reason}: {envelope.message}")
    if envelope.code is not None and bytes(envelope.data):
        content = envelope.data
    try:
        return decode(content)
    except _UNREADABLE as error:
        raise InvalidResponse(_explain(error, bytes(content))) from error


def _explain(error: Exception, body: bytes) -> str:
    """The decoder's message with the sequence number and the value that it is about."""
    text = str(error)
    path = re.search(r"`(\$[^`]*)`$", text)
    if not path:
        return f"the answer is not what the exchange documents: {text}"
    number: Any = None
    try:
        # Numbers as they are spelled: some have more digits than an int is made from.
        value: Any = json.loads(body.decode("utf-8", "replace"), parse_float=str, parse_int=str, parse_constant=str)
        for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path.group(1)):
            value = value[key] if key else value[int(index)]
            if isinstance(value, dict):
                number = value.get("sn", number)
    except (ValueError, RecursionError):
        value = body.decode("utf-8", "replace")
    shown = str(value)
    where = f" (sn {number})" if number is not None else ""
    return f"{path.group(1)}{where}: {text.removesuffix(f' - at {path.group(0)}')}; the value is {shown[:200]}"


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
