"""What the APIs share: a call, a reply, refusals, the journal of requests, strict JSON and the rows in it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from balance_bridge.clock import Clock

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Call:
    """One HTTP request: the query as it came, without its question mark; the headers' names in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def params(self) -> dict[str, str]:
        """The query's parameters; of one that is repeated, the last."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


@dataclass(frozen=True)
class Reply:
    """An API's response: a status and a JSON document."""

    status: int
    document: Any

    def body(self) -> bytes:
        """The document as JSON."""
        return json.dumps(self.document, ensure_ascii=False).encode()


class Refused(Exception):
    """A request that the API does not take, with the response and, for the journal, the reason."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply


@dataclass(frozen=True)
class Request:
    """One line of the journal; ``key`` is the public half of the credentials, ``reason`` why it was refused."""

    at_s: float
    api: str
    key: str
    method: str
    path: str
    status: int
    reason: str


class Journal:
    """Every request that arrived, in order."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def refusals(self, status: int | None = None) -> list[Request]:
        """Requests that were refused, all or those with one HTTP status."""
        return [line for line in self.requests if line.reason and status in (None, line.status)]

    def document(self) -> dict[str, Any]:
        """Counts per API and key, and the refusals, as JSON."""
        per_key: dict[str, dict[str, int]] = {}
        for (api, key), count in sorted(Counter((line.api, line.key) for line in self.requests).items()):
            per_key.setdefault(api, {})[key] = count
        refused = self.refusals()
        return {
            "requests": per_key,
            "refused": dict(sorted(Counter(f"{line.api}: {line.status} {line.reason}" for line in refused).items())),
            # The newest are enough for a reader; the counts above cover all.
            "refusals": [vars(line) for line in refused[-100:]],
        }


class Number(Decimal):
    """A JSON number: its exact value, and the digits in which it was sent."""

    def __init__(self, text: str) -> None:
        self.text = text

    def oddities(self) -> list[str]:
        """What is valid JSON, but should not have been sent."""
        odd = ["exponent"] if "e" in self.text.lower() else []
        return odd + (["negative zero"] if self.is_zero() and self.is_signed() else [])


def _existing(text: str) -> str:
    datetime.fromisoformat(text)
    return text


# A text that names a time that exists, in whatever form an API demands.
Time = Annotated[str, AfterValidator(_existing)]


class Model(BaseModel):
    """A JSON object with exactly these fields; their JSON names are in camel case."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, alias_generator=to_camel)


class Row(Model):
    """One balance as an API takes it, and keeps it as it was sent."""

    balance: Number
    _state: str = ""

    @property
    def state(self) -> str:
        """What it did to its key: ``new``, ``repeated`` (the same amount) or ``overwritten`` (another one)."""
        return self._state

    @property
    def key(self) -> tuple[str | int, ...]:
        """What must be delivered once."""
        raise NotImplementedError

    def document(self) -> dict[str, Any]:
        """As JSON, amounts as text."""
        fields = {name: plain(value) if isinstance(value, Decimal) else value for name, value in self}
        return fields | {"state": self.state}


Form = TypeVar("Form")
Kept = TypeVar("Kept", bound=Row)


class Api(Generic[Kept]):
    """What the APIs have in common: requests are journalled, and what was accepted is kept.

    Args:
        clock: What the server's time is.
        journal: Where requests are written down.

    Attributes:
        delivered: Every balance that was accepted, in order.
        oddities: What is valid JSON but should not have been sent, by kind.
    """

    name = ""
    # The header with the public half of the credentials, and what the journal says where there is none.
    key_header = ""
    key_name = ""

    def __init__(self, clock: Clock, journal: Journal) -> None:
        self.delivered: list[Kept] = []
        self.oddities: Counter[str] = Counter()
        self._clock = clock
        self._journal = journal
        self._latest: dict[tuple[str | int, ...], Decimal] = {}

    def answer(self, call: Call) -> Reply:
        """Respond to one request, and journal it."""
        at_s, reason = self._clock.wall(), ""
        try:
            reply = self._serve(call, at_s)
        except Refused as refused:
            reply, reason = refused.reply, str(refused)
        key = call.headers.get(self.key_header, self.key_name)[:80]
        self._journal.requests.append(Request(at_s, self.name, key, call.method, call.path, reply.status, reason))
        return reply

    def _serve(self, call: Call, at_s: float) -> Reply:
        """Respond to a call that arrived at ``at_s`` (seconds since the epoch); raise :class:`Refused` to refuse it."""
        raise NotImplementedError

    def _keep(self, row: Kept) -> None:
        self.oddities.update(row.balance.oddities())
        before, self._latest[row.key] = self._latest.get(row.key), row.balance
        row._state = "new" if before is None else "repeated" if before == row.balance else "overwritten"
        self.delivered.append(row)


def signature(secret: str, text: str) -> str:
    """HMAC-SHA256 with the secret's UTF-8 bytes, in base64."""
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()


def same_signature(expected: str, given: str) -> bool:
    """Whether two signatures are equal (header values may hold any characters)."""
    return hmac.compare_digest(expected.encode(), given.encode())


def read_json(body: bytes) -> Any:
    """Read JSON strictly: numbers as :class:`Number`, no NaN, no name twice in an object.

    Raises:
        ValueError: If it is not JSON, or not UTF-8.
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            parse_float=Number,
            parse_int=Number,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def fit(form: TypeAdapter[Form], document: Any) -> Form:
    """A JSON document as a form demands it.

    Raises:
        ValueError: The first thing that is wrong, and where.
    """
    try:
        return form.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def plain(amount: Decimal) -> str:
    """An amount's digits without exponent, trailing zeros or negative zero."""
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def instant_ms(text: str) -> int:
    """UTC milliseconds of an ISO 8601 text with an offset."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)
