"""A destination's interface: from balances to records on the wire, one request, and the facts of its response.

A new import API is one module with a subclass of :class:`Destination`, its sandbox and its tests.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from balance_bridge.accounts import Destination as DestinationConfig
from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import BalanceBridgeError, InvalidAmount, RecordsRejected
from balance_bridge.load.documents import Action, Result, Row
from balance_bridge.load.numbers import is_instant, rfc3339
from balance_bridge.load.replies import Reply, read
from balance_bridge.money import to_text
from balance_bridge.transport import Credentials, Response, Transport

if TYPE_CHECKING:
    import pandas as pd

_ENCODE = msgspec.json.Encoder().encode
_DIGITS = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?(?<!\n)")
# Fields that are not part of a record's content.
_NO_CONTENT = frozenset({"number", "communicationNumber", "replaces", "supersedes", "points"})
# Room for a result with three ids of 255 characters and a long description, all of it escaped.
_RESPONSE_BYTES = 64 * 1024
_RESPONSE_BYTES_PER_ROW = 4 * 1024


class Balance(msgspec.Struct, frozen=True, gc=False):
    """What an account held of an asset at an instant.

    Attributes:
        asset: The exchange's asset code.
        at_ms: UTC milliseconds since the epoch.
        amount: Exact.
        points: The points that the instant is for, joined by commas (``open``, ``close``, ``every 1h``, ...).
        equivalent: Its value in the currency that the destination counts in; None if unknown.
    """

    asset: str
    at_ms: int
    amount: Decimal
    points: str
    equivalent: Decimal | None = None


class Destination(ABC):
    """Where balances go.

    Args:
        config: The destination as the accounts file has it.
        credentials: Its connection.
        transport: Sends the requests.
        account: The account's name in the accounts file.
        clock: Where a signature's timestamp comes from.
    """

    kind: ClassVar[str]
    #: What follows the connection's URL where balances are posted to.
    path: ClassVar[str] = ""
    #: The wire field that is the balance; it is a JSON number.
    amount_field: ClassVar[str]
    #: Other wire fields that are JSON numbers, where they are present.
    number_fields: ClassVar[tuple[str, ...]] = ()
    #: HTTP statuses that say: this very request came before. They do not say what became of its records.
    used_statuses: ClassVar[frozenset[int]] = frozenset()
    #: The API's codes for a bad record, unless the accounts file has others.
    default_bisect_codes: ClassVar[frozenset[str]] = frozenset()
    #: What each record adds to the seconds without a byte after which a response counts as lost.
    timeout_per_row_s: ClassVar[float] = 0.05
    #: Bytes of a request's body, where the accounts file has no limit of its own.
    max_bytes: int = 1_000_000
    config: DestinationConfig

    def __init__(
        self,
        config: DestinationConfig,
        credentials: Credentials,
        transport: Transport,
        *,
        account: str = "",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.config = config
        self.name = config.name
        self.max_rows = config.max_rows
        self.max_bytes = getattr(config, "max_bytes", self.max_bytes)
        codes = config.bisect_codes
        self.bisect_codes = self.default_bisect_codes if codes is None else frozenset(codes)
        self._credentials = credentials
        self._transport = transport
        self._account = account
        self._clock = clock
        self._ignored = frozenset(asset for asset, target in config.assets.items() if target == "ignore")

    def place(self) -> dict[str, str]:
        """What identifies the place at the far side, without secrets."""
        return {"kind": self.kind, "url": normalised(self._credentials.url)}

    def key_settings(self) -> dict[str, str]:
        """The settings that keys depend on, besides the assets' mapping."""
        return {}

    def account_at(self, wire: Mapping[str, str]) -> str:  # noqa: ARG002 - for those that have accounts there
        """The account at the far side that a record goes to; empty where accounts may share an address."""
        return ""

    def prepare(self, balances: Iterable[Balance]) -> list[Row]:
        """Balances as rows, not yet numbered: in this destination's words, or why one cannot be sent. Sends nothing."""
        due = list(balances)
        instants = list({each.at_ms for each in due if is_instant(each.at_ms)})
        written = dict(zip(instants, self._times(instants), strict=True))
        return [self._row(balance, written.get(balance.at_ms, "")) for balance in due]

    def encode_row(self, wire: Mapping[str, str]) -> bytes:
        """A record's JSON text, its numbers bare and with their exact digits.

        Raises:
            InvalidAmount: If a number's text is not plain digits; nothing else may go into the JSON unquoted.
        """
        fields: dict[str, Any] = dict(wire)
        fields[self.amount_field] = self._bare(wire.get(self.amount_field))
        for name in self.number_fields:
            if name in wire:
                fields[name] = self._bare(wire[name])
        return _ENCODE(fields)

    def encode(self, wires: Iterable[Mapping[str, str]]) -> bytes:
        """The body of a request that holds these records."""
        start, end = self.envelope
        return start + b",".join(map(self.encode_row, wires)) + end

    def numbered(self, row: Row) -> dict[str, str]:
        """A row's fields as they are sent under its number; unchanged if the API has no numbers."""
        return row.wire

    def timeout_s(self, rows: int) -> float:
        """Seconds without a byte after which the response to a request with so many records counts as lost."""
        return self.config.timeout_s + rows * self.timeout_per_row_s

    def deadline_s(self, rows: int) -> float:
        """Seconds after which any request with so many records is over, even if its response drips in."""
        return 2 * self.timeout_s(rows)

    def send(self, body: bytes, numbers: Sequence[str]) -> Reply:
        """Send one request, signed for this attempt, and read its response.

        Args:
            body: As :meth:`encode` makes it.
            numbers: The numbers of its records, in order.

        Raises:
            ConnectionFailed: Nothing was sent.
            RateLimited: 429; nothing was applied.
            ResponseLost: What became of the records is unknown.
            InvalidResponse: The response is too large to be read; what became of the records is unknown.
            PermanentError: The URL cannot be used or the certificate is not trusted; nothing was sent.
        """
        return read(self._post(body, len(numbers)), numbers, self)

    def check(self) -> tuple[bool, str]:
        """The connection test: whether it passed, and exactly what was and what was not checked."""
        try:
            return self._check()
        except BalanceBridgeError as error:
            return False, str(error)

    def _post(self, body: bytes, rows: int) -> Response:
        return self._transport.send(
            "POST",
            self._credentials.url + self.path,
            headers={"content-type": "application/json", **self._headers(body)},
            body=body,
            secrets=self._credentials.secrets,
            timeout_s=self.timeout_s(rows),
            deadline_s=self.deadline_s(rows),
            max_bytes=response_bytes(rows),
        )

    def _bare(self, digits: str | None) -> msgspec.Raw:
        if digits is None or not _DIGITS.fullmatch(digits):
            raise InvalidAmount(f"{self.name}: {digits!r} is not a number in plain digits")
        return msgspec.Raw(digits.encode())

    def _row(self, balance: Balance, at: str) -> Row:
        action, digits, key, wire, text = Action.SEND, "", "", dict[str, str](), ""
        if balance.asset in self._ignored:
            action = Action.IGNORE
        elif not at:
            action, text = Action.REJECT, f"the instant {balance.at_ms} ms lies outside the years 1 to 9999"
        else:
            try:
                digits = to_text(balance.amount)
                key, wire = self._record(balance, at, digits)
            except (InvalidAmount, RecordsRejected) as error:
                action, text = Action.REJECT, str(error)
        digits = digits or format(balance.amount, "f")
        return Row(balance.asset, balance.at_ms, digits, balance.points, action, "", key, wire, text=text)

    def _times(self, at_ms: Sequence[int]) -> Sequence[str]:
        """Instants (UTC ms) as the destination writes them, all of one length."""
        return list(map(rfc3339, at_ms))

    @property
    @abstractmethod
    def envelope(self) -> tuple[bytes, bytes]:
        """The bytes before and after the records in a request's body."""

    @abstractmethod
    def _record(self, balance: Balance, at: str, digits: str) -> tuple[str, dict[str, str]]:
        """A balance's key and fields, given its instant and its digits; RecordsRejected if it cannot be sent."""

    @abstractmethod
    def _headers(self, body: bytes) -> dict[str, str]:
        """What authenticates one attempt to post a body."""

    @abstractmethod
    def verdict(self, document: Any, numbers: Sequence[str]) -> Result:
        """What a response's document says, its codes and texts as they came.

        Args:
            document: Parsed JSON.
            numbers: The numbers that were sent, in order.

        Raises:
            InvalidResponse: Without quoting the document, if it is not what the API documents.
        """

    @abstractmethod
    def reason(self, document: Any) -> tuple[str, str]:
        """Code and text of an error document, as they came; empty if it has none."""

    @abstractmethod
    def _check(self) -> tuple[bool, str]:
        """As :meth:`check`, but may raise."""


def content(wire: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """A record without its number, its predecessors and its points: equal content is sent once."""
    return frozenset(item for item in wire.items() if item[0] not in _NO_CONTENT)


def balances_from_table(frame: pd.DataFrame, equivalents: Sequence[Decimal | None] | None = None) -> list[Balance]:
    """A day's balances as objects.

    Args:
        frame: As ``transform.balances.from_parquet`` returns it, which has checked its columns.
        equivalents: What each is worth, row by row, if that is sent.
    """
    # Heavy, and a connection test does without it.
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    at_ms = table["at"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).to_pylist()
    assets, amounts, points = (table[name].to_pylist() for name in ("asset", "balance", "points"))
    worth = equivalents if equivalents is not None else [None] * len(assets)
    return list(map(Balance, assets, at_ms, amounts, points, worth))


def response_bytes(rows: int) -> int:
    """The bytes that a response about so many records may have."""
    return _RESPONSE_BYTES + rows * _RESPONSE_BYTES_PER_ROW


def normalised(url: str) -> str:
    """An address as places are compared by: without the scheme's own port, a user, a password or a query."""
    # Put together from its parts, so that no user, password or query is left in it.
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = "" if parts.port in (None, {"http": 80, "https": 443}.get(parts.scheme)) else f":{parts.port}"
    path = "" if parts.path == "/" else parts.path
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{path}"
