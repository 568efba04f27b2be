"""AscendEX's responses, typed: what is missing or malformed is refused here, and nothing behind it checks again.

Accepted, because the documentation contradicts itself or clients have seen it: a response bare or inside
``{code: 0, data}``, the snapshot's list as ``snapshot`` or ``balance`` and its instant as ``snapshotTime`` or
``balanceTime``, a list that is null, a list of changes that is missing, unknown fields.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from balance_bridge import money
from balance_bridge.clock import utc_text
from balance_bridge.errors import Contradiction, InvalidAmount, InvalidResponse
from balance_bridge.extract.source import Page, SnapshotResponse
from balance_bridge.transform.schema import AMOUNT, LEGS
from balance_bridge.transform.snapshot import Snapshot

SequenceNumber = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# Up to the end of the year 9999: what a millisecond timestamp can mean.
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
Asset = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[^\s\x00-\x1f]+\Z")]


class Meta(msgspec.Struct):
    """The ``meta`` of both responses."""

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
    """A snapshot without its envelope. Its list may be null, but not missing: that would read as an empty account."""

    meta: Meta
    snapshot: list[Holding] | msgspec.UnsetType | None = msgspec.UNSET
    balance: list[Holding] | msgspec.UnsetType | None = msgspec.UNSET


class Leg(msgspec.Struct, gc=False):
    """One asset's change within a record. ``curBalance`` is the balance after the whole record."""

    asset: Asset
    curBalance: str  # noqa: N815
    deltaQty: str  # noqa: N815
    dataType: str | None = None  # noqa: N815


class OrderRecord(msgspec.Struct, gc=False):
    """A change by an order fill."""

    kind: ClassVar[str] = "order"
    shares_sn: ClassVar[bool] = False

    sn: SequenceNumber
    transactTime: Milliseconds  # noqa: N815
    orderId: str  # noqa: N815
    data: list[Leg]
    orderType: str | None = None  # noqa: N815
    side: str | None = None

    @property
    def event(self) -> str:
        """Side and type of the order; the case of both varies from response to response."""
        return _order_event(self.side, self.orderType)


@lru_cache(1000)
def _order_event(*parts: str | None) -> str:
    return " ".join(part.lower() for part in parts if part) or "order"


class BalanceRecord(msgspec.Struct, gc=False):
    """A change by anything else: deposit, withdrawal, reward. The set of event types is open.

    Only orders are said to have a sequence number of their own: several of these with one number are one event.
    """

    kind: ClassVar[str] = "balance"
    shares_sn: ClassVar[bool] = True
    orderId: ClassVar[None] = None  # noqa: N815

    sn: SequenceNumber
    transactTime: Milliseconds  # noqa: N815
    eventType: str  # noqa: N815
    data: list[Leg]

    @property
    def event(self) -> str:
        """The event's type as it came."""
        return self.eventType


class HistoryBody(msgspec.Struct):
    """A page of changes without its envelope."""

    meta: Meta
    order: list[OrderRecord] | None = None
    balance: list[BalanceRecord] | None = None


Body = TypeVar("Body", SnapshotBody, HistoryBody)


class Envelope(msgspec.Struct):
    """What distinguishes an error and an envelope from a bare response."""

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

# Text that is no UTF-8 and nesting without end have errors of their own.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_envelope = msgspec.json.Decoder(Envelope)
_snapshot = msgspec.json.Decoder(SnapshotBody)
_history = msgspec.json.Decoder(HistoryBody)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_envelope(body: bytes) -> Envelope:
    """The envelope of a response; its ``code`` is None where there is none.

    Raises:
        InvalidResponse: If the body is no JSON object.
    """
    try:
        return _envelope.decode(body)
    except _UNREADABLE as error:
        look = body[:200].decode("utf-8", "replace")
        raise InvalidResponse(f"the response is not what the exchange documents ({error}): {look!r}") from error


def read_snapshot(body: bytes, *, category: str, day: date) -> SnapshotResponse:
    """Interpret a response of ``balance/snapshot``.

    Raises:
        InvalidResponse: If its list or a field is missing or malformed, an asset comes twice, or it is another day's or
            category's.
    """
    answer = _decode(_snapshot, body, category)
    at_ms = answer.meta.snapshotTime if answer.meta.snapshotTime is not None else answer.meta.balanceTime
    if answer.meta.sn is None or at_ms is None:
        raise InvalidResponse("meta.sn or meta.snapshotTime (also known as balanceTime) is missing from the snapshot")
    midnight_ms = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
    if at_ms != midnight_ms:
        raise InvalidResponse(
            f"meta.snapshotTime is {at_ms} ({utc_text(at_ms / 1000)}), but the snapshot of {day} was asked for, "
            f"which is of {utc_text(midnight_ms / 1000)}"
        )
    lists = [each for each in (answer.snapshot, answer.balance) if each is not msgspec.UNSET]
    if not lists:
        raise InvalidResponse(
            f"the snapshot of {day} has no list of balances",
            why="it has neither `snapshot` nor `balance`: read as it is, the account would be empty",
        )
    balances: dict[str, Decimal] = {}
    for holding in chain.from_iterable(each or () for each in lists):
        if holding.asset in balances:
            raise InvalidResponse(f"asset {holding.asset} comes twice in the snapshot of {day}")
        try:
            balances[holding.asset] = money.parse(holding.totalBalance)
        except InvalidAmount as error:
            raise InvalidResponse(f"totalBalance of {holding.asset} in the snapshot of {day}: {error}") from error
    return SnapshotResponse(answer.meta.accountId, Snapshot(answer.meta.sn, at_ms, balances))


def read_page(body: bytes, *, category: str) -> Page:
    """Interpret a response of ``balance/history``.

    Raises:
        InvalidResponse: If a field is missing or malformed, or the page is another category's.
        Contradiction: If a sequence number comes twice with different content.
    """
    answer = _decode(_history, body, category)
    orders, others = answer.order or [], answer.balance or []
    return Page(answer.meta.accountId, (orders, others), _legs(_without_repeats([*orders, *others])))


def _without_repeats(records: list[OrderRecord | BalanceRecord]) -> list[OrderRecord | BalanceRecord]:
    """Each event once."""
    if len({record.sn for record in records}) == len(records):
        return records
    events: dict[int, OrderRecord | BalanceRecord] = {}
    for record in records:
        first = events.setdefault(record.sn, record)
        events[record.sn] = first if first == record else _one_event(first, record)
    return list(events.values())


def _one_event(first: OrderRecord | BalanceRecord, second: OrderRecord | BalanceRecord) -> BalanceRecord:
    """Two records of one sequence number as the one event that they are.

    Raises:
        Contradiction: If they cannot be: orders have numbers of their own, and an asset has one change in an event.
    """
    shared = {leg.asset for leg in first.data} & {leg.asset for leg in second.data}
    known, again = (
        sorted((leg for leg in record.data if leg.asset in shared), key=lambda leg: leg.asset)
        for record in (first, second)
    )
    if (
        not isinstance(first, BalanceRecord)
        or not isinstance(second, BalanceRecord)
        or first.transactTime != second.transactTime
        or known != again
    ):
        raise Contradiction(f"sn {first.sn} comes twice with different content: {first} and {second}")
    return msgspec.structs.replace(first, data=first.data + [leg for leg in second.data if leg.asset not in shared])


def _legs(records: list[OrderRecord | BalanceRecord]) -> pa.Table:
    """Records as a table of legs, column by column; names the sequence number of what is malformed."""
    legs = [leg for record in records for leg in record.data]
    of_leg = [record for record in records for _ in record.data]
    sns = [record.sn for record in of_leg]
    columns = {
        "sn": sns,
        "at": [record.transactTime for record in of_leg],
        "kind": [record.kind for record in of_leg],
        "event": [record.event for record in of_leg],
        "order_id": [record.orderId for record in of_leg],
        "asset": [leg.asset for leg in legs],
        "fee": [leg.dataType == "fee" for leg in legs],
        "delta": _amounts([leg.deltaQty for leg in legs], sns, "deltaQty"),
        "balance": _amounts([leg.curBalance for leg in legs], sns, "curBalance"),
    }
    return pa.table(columns, schema=LEGS)


def _amounts(texts: list[str], sns: list[int], field: str) -> pa.Array:
    column = pa.array(texts, pa.string())
    if pc.all(pc.match_substring_regex(column, _PLAIN_AMOUNT), min_count=0).as_py():
        return column.cast(AMOUNT)
    # Ten times as slow, for the few pages that need it: exponents, needless zeros, and what is refused.
    exact: list[Decimal] = []
    for text, sn in zip(texts, sns, strict=True):
        try:
            exact.append(money.parse(text))
        except InvalidAmount as error:
            raise InvalidResponse(f"{field} of sn {sn}: {error}") from error
    return pa.array(exact, AMOUNT)


def _decode(decoder: msgspec.json.Decoder[Body], body: bytes, category: str) -> Body:
    content: bytes | msgspec.Raw = body
    envelope = read_envelope(body)
    if envelope.failed:
        raise InvalidResponse(f"the response is an error: code {envelope.code}, {envelope.reason}: {envelope.message}")
    if envelope.code is not None and bytes(envelope.data):
        content = envelope.data
    try:
        found = decoder.decode(content)
        fields = _fields.decode(content)
    except _UNREADABLE as error:
        raise InvalidResponse(_explain(error, bytes(content))) from error
    if found.meta.ac.lower() != category:
        raise InvalidResponse(f"meta.ac is {found.meta.ac!r}, but the {category} account was asked for")
    # Unknown fields are let pass, but not lists: the one that is looked for may have got another name.
    known = found.__struct_fields__
    unknown = [name for name, value in fields.items() if name not in known and bytes(value).startswith(b"[")]
    if unknown:
        raise InvalidResponse(
            f"the response has a list that the exchange does not document: {', '.join(map(repr, unknown))[:200]}",
            why=f"known are {', '.join(known)}",
            do="Look at the raw response in the store, and ask the exchange what has changed",
        )
    return found


def _explain(error: Exception, body: bytes) -> str:
    """The decoder's message with the sequence number and the value that it is about."""
    text = str(error)
    path = re.search(r"`(\$[^`]*)`$", text)
    if not path:
        return f"the response is not what the exchange documents: {text}"
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
    where = f" (sn {number})" if number is not None else ""
    return f"{path.group(1)}{where}: {text.removesuffix(f' - at {path.group(0)}')}; the value is {repr(value)[:200]}"
