"""A destination's interface: from balances to rows on the wire, one request, and what its answer says.

A new import API is one module with a subclass of :class:`Destination`, its sandbox and its tests.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from balance_bridge.errors import BalanceBridgeError, ConfigurationError, InvalidAmount, StoreDamaged
from balance_bridge.load.batches import Batch, Limits
from balance_bridge.load.numbers import is_instant
from balance_bridge.load.policy import Places, Policy
from balance_bridge.load.replies import Reader, Reply, Verdict, read
from balance_bridge.money import to_text
from balance_bridge.transport import Answer, Transport

IGNORE = "ignore"
LOCAL = "LOCAL"

_ENCODE = msgspec.json.Encoder().encode
_DIGITS = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?(?<!\n)")
_SECRET = re.compile(r"[\x21-\x7e]+(?<!\n)")
_COLUMNS = ("asset", "at", "balance", "points")


class Balance(msgspec.Struct, frozen=True, gc=False):
    """What an account held of an asset at an instant.

    Attributes:
        asset: The exchange's asset code.
        at_ms: UTC milliseconds since the epoch.
        amount: Exact.
        points: Which points asked for the instant (``open``, ``close``, ``changes``, ``every 1h``, ...).
        equivalent: What it is worth in the currency that the destination counts in; None if that is not known.
    """

    asset: str
    at_ms: int
    amount: Decimal
    points: tuple[str, ...]
    equivalent: Decimal | None = None


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A balance in a destination's own words, not yet numbered.

    Attributes:
        balance: Where it comes from.
        key: What the destination tells balances apart by.
        amount: The exact digits.
        wire: The destination's fields, the amount as text.
    """

    balance: Balance
    key: str
    amount: str
    wire: dict[str, str]


@dataclass(frozen=True, slots=True)
class LocalRejection:
    """A balance that cannot be sent, found before anything was sent.

    Attributes:
        balance: The balance.
        text: What is wrong with it, and what to do.
    """

    balance: Balance
    text: str


@dataclass(slots=True)
class Prepared:
    """What became of balances before any is sent; every one is in exactly one of the three.

    Attributes:
        candidates: What can be sent, in order.
        rejected: What cannot, and why.
        ignored: What the accounts file says to leave out.
    """

    candidates: list[Candidate] = field(default_factory=list)
    rejected: list[LocalRejection] = field(default_factory=list)
    ignored: list[Balance] = field(default_factory=list)


class Destination(ABC):
    """Where balances go.

    Args:
        name: The destination's name in the accounts file.
        transport: Sends the requests.
        base_url: Scheme, host and port, and a path if a gateway stands in front.
        limits: What one request may hold.
        ignored: Assets that are left out.
        secrets: The credentials; they are kept out of every text that comes back.
        policy: How what goes wrong is dealt with; the destination's own by default.
        places: Places in the window of requests; None for as many as one likes.
        timeout_s: Seconds without a byte after which an answer counts as lost, for an empty request; each row adds to
            it. None: the destination's own.

    Raises:
        ConfigurationError: If the URL or a credential cannot be used, or a limit is not positive.
    """

    kind: ClassVar[str]
    #: What stands before and after the rows in a request's body.
    envelope: tuple[bytes, bytes]
    #: The wire field that is the balance; it is a JSON number.
    amount_field: ClassVar[str]
    #: Other wire fields that are JSON numbers, where they are there.
    number_fields: ClassVar[tuple[str, ...]] = ()
    #: HTTP statuses that say: this very request came before. What was made of its rows is another matter.
    seen_statuses: ClassVar[frozenset[int]] = frozenset()
    #: How what goes wrong is dealt with, unless the accounts file says otherwise.
    default_policy: ClassVar[Policy] = Policy()
    #: Seconds without a byte after which the answer to an empty request counts as lost, and what each row adds.
    default_timeout_s: ClassVar[float] = 30.0
    timeout_per_row_s: ClassVar[float] = 0.05

    def __init__(
        self,
        name: str,
        *,
        transport: Transport,
        base_url: str,
        limits: Limits,
        ignored: Iterable[str],
        secrets: Mapping[str, str],
        policy: Policy | None = None,
        places: Places | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.name = name
        self.limits = limits
        self.policy = policy or self.default_policy
        self._places = places
        self._timeout_s = timeout_s or self.default_timeout_s
        self._transport = transport
        self._base_url = _base_url(name, base_url)
        self._ignored = frozenset(ignored)
        for what, value in secrets.items():
            # Neither a log nor an exception may show the value, not even a wrong one.
            if not _SECRET.fullmatch(value):
                raise ConfigurationError(
                    f"{name}: the connection's {what} is {'empty' if not value else 'not plain ASCII without blanks'}; "
                    f"enter it again, without line breaks"
                )
        if limits.max_rows < 1 or limits.max_bytes < 1:
            raise ConfigurationError(f"{name}: max_rows {limits.max_rows} and max_bytes {limits.max_bytes} must be > 0")
        self._reader = Reader(name, self._verdict, self._reason, tuple(secrets.values()), self.seen_statuses)

    def prepare(self, balances: Iterable[Balance]) -> Prepared:
        """Put balances into this destination's words, or say why one cannot be sent. Sends nothing."""
        prepared = Prepared()
        sendable: list[tuple[Balance, str]] = []
        for balance in balances:
            if balance.asset in self._ignored:
                prepared.ignored.append(balance)
                continue
            try:
                digits = to_text(balance.amount)
            except InvalidAmount as error:
                prepared.rejected.append(LocalRejection(balance, str(error)))
                continue
            if not is_instant(balance.at_ms):
                text = f"the instant {balance.at_ms} ms lies outside the years 1 to 9999"
                prepared.rejected.append(LocalRejection(balance, text))
                continue
            sendable.append((balance, digits))
        self._translate(sendable, prepared)
        return prepared

    def encode_row(self, wire: Mapping[str, str]) -> bytes:
        """A row's JSON text, the amount as a bare number with its exact digits.

        Raises:
            InvalidAmount: If the amount's text is not plain digits; nothing else may stand in the JSON unquoted.
        """
        fields: dict[str, Any] = dict(wire)
        fields[self.amount_field] = self._bare(wire.get(self.amount_field))
        for name in self.number_fields:
            if name in wire:
                fields[name] = self._bare(wire[name])
        return _ENCODE(fields)

    def _bare(self, digits: str | None) -> msgspec.Raw:
        if digits is None or not _DIGITS.fullmatch(digits):
            raise InvalidAmount(f"{self.name}: {digits!r} is not the plain digits of an amount")
        return msgspec.Raw(digits.encode())

    def encode(self, wires: Iterable[Mapping[str, str]]) -> bytes:
        """The body of a request that holds these rows."""
        start, end = self.envelope
        return start + b",".join(map(self.encode_row, wires)) + end

    def place(self) -> AbstractContextManager[None]:
        """Hold a place in the window of requests for one of them; waits until there is one."""
        return nullcontext() if self._places is None else self._places.place()

    def timeout_s(self, rows: int) -> float:
        """Seconds without a byte after which the answer to a request with so many rows counts as lost."""
        return self._timeout_s + rows * self.timeout_per_row_s

    def deadline_s(self, rows: int) -> float:
        """Seconds after which a request with so many rows ends whatever happens: an answer that drips in counts too."""
        return 2 * self.timeout_s(rows)

    def numbered(
        self,
        wire: dict[str, str],
        number: str,  # noqa: ARG002 - not all send it
        *,
        replaces: str,  # noqa: ARG002
        supersedes: str,  # noqa: ARG002
    ) -> dict[str, str]:
        """A row's fields as they are sent under a number; the very same where the number stays on our receipt.

        Args:
            wire: The fields, under no number or under another one.
            number: The communication number.
            replaces: The number of the attempt before this one; empty if there was none.
            supersedes: The digits that were accepted (or seen) before, if they are others; else empty.
        """
        return wire

    def send(self, batch: Batch) -> Reply:
        """Send a batch once, signed anew, and read the answer.

        Raises:
            NotReached: Nothing was sent.
            WindowFull: 429; nothing was applied.
            AnswerLost: What became of the rows is unknown.
            BadAnswer: The answer is too large to be read; what became of the rows is unknown.
            FinalError: The URL cannot be used or the certificate is not trusted; nothing was sent.
        """
        answer = self._post(batch.body, len(batch.rows))
        return read(answer, [row.number for row in batch.rows], self._reader)

    def check(self) -> tuple[bool, str]:
        """The connection test: whether it passed, and exactly what was and what was not checked."""
        try:
            return self._check()
        except BalanceBridgeError as error:
            return False, self._reader.clean(str(error))

    @abstractmethod
    def _translate(self, sendable: Sequence[tuple[Balance, str]], prepared: Prepared) -> None:
        """Add each balance (with its digits) to the candidates or to the rejected."""

    @abstractmethod
    def _post(self, body: bytes, rows: int) -> Answer:
        """Send a body that holds a number of rows."""

    @abstractmethod
    def _verdict(self, document: Any, numbers: Sequence[str]) -> Verdict:
        """Read the document of a 2xx answer; BadAnswer if it is not what the API documents."""

    @abstractmethod
    def _reason(self, document: Any) -> tuple[str, str]:
        """Code and text of an error document."""

    @abstractmethod
    def _check(self) -> tuple[bool, str]:
        """As :meth:`check`, but may raise."""


def balances_from_table(table: Any, equivalents: Sequence[Decimal | None] | None = None) -> list[Balance]:
    """Read balances from the table that the transform left in the store.

    Args:
        table: A ``pyarrow.Table`` or ``pandas.DataFrame`` with the columns ``asset`` (text), ``at`` (timestamp in
            UTC, whole milliseconds), ``balance`` (decimal128(38, 18)) and ``points`` (list of text, or text joined
            by commas).
        equivalents: What each is worth, row by row, where that is to be told.

    Raises:
        StoreDamaged: If a column is missing, of another type or has nulls.
    """
    # Heavy, and not needed by whoever only tests a connection.
    import pyarrow as pa

    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise StoreDamaged(f"the balances table has no column {', '.join(missing)}; it has {table.column_names}")
    for name in _COLUMNS:
        if table[name].null_count:
            raise StoreDamaged(f"the balances table has {table[name].null_count} nulls in column {name}")
    at = table["at"]
    if not pa.types.is_timestamp(at.type) or at.type.tz is None:
        raise StoreDamaged(f"the balances table's column at is {at.type}; a timestamp with a time zone is expected")
    if not pa.types.is_decimal(table["balance"].type):
        raise StoreDamaged(f"the balances table's column balance is {table['balance'].type}; a decimal is expected")
    try:
        at_ms = at.cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).to_pylist()
    except pa.ArrowInvalid as error:
        raise StoreDamaged(f"the balances table's column at holds parts of a millisecond: {error}") from error
    points = [_points(value) for value in table["points"].to_pylist()]
    worth = equivalents if equivalents is not None else [None] * len(points)
    assets, amounts = table["asset"].cast(pa.string()).to_pylist(), table["balance"].to_pylist()
    return list(map(Balance, assets, at_ms, amounts, points, worth))


def length_problem(what: str, value: str, limit: int) -> str:
    """What is wrong with a text that an API limits to a number of characters; empty if nothing is."""
    if not value:
        return f"{what} is empty"
    return f"{what} {value[:40]!r}... has {len(value)} characters, {limit} are allowed" if len(value) > limit else ""


@lru_cache(maxsize=256)
def _points_of(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))


def _points(value: Any) -> tuple[str, ...]:
    return _points_of(value if isinstance(value, str) else ",".join(value))


def _base_url(name: str, url: str) -> str:
    whole = url.strip().rstrip("/")
    try:
        parts = urlsplit(whole if "://" in whole else f"https://{whole}")
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    # The URL itself is not shown before it is known to hold no password.
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{name}: the connection's host must be a URL such as https://api.example.com:8443, "
            f"without user, password, query or fragment"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
