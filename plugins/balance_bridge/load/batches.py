"""Rows as they stand on a receipt, and their division into requests that are neither too long nor too large."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec


class Row(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One balance under one communication number, as it is written on a receipt and sent.

    Attributes:
        number: The communication number.
        key: What the destination tells balances apart by, as text.
        asset: The exchange's asset code.
        at_ms: The instant, UTC milliseconds since the epoch.
        amount: The exact digits.
        day: The UTC day (``YYYY-MM-DD``) whose run made this number.
        points: The points that asked for the instant, joined by commas.
        wire: The destination's own fields; the amount is text here and a bare JSON number in the request.
        replaces: The number of the attempt that this one follows, if there was one.
        supersedes: The amount that was accepted (or seen) under the key before, if it is another.
    """

    number: str
    key: str
    asset: str
    at_ms: int
    amount: str
    day: str
    points: str
    wire: dict[str, str]
    replaces: str = ""
    supersedes: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold.

    Attributes:
        max_rows: Rows.
        max_bytes: Bytes of the whole body.
    """

    max_rows: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one request.

    Attributes:
        id: The same for the same rows under the same numbers, whoever sends them.
        rows: In order.
        body: The request's body.
        resend: Whether some of the numbers may have been sent before.
    """

    id: str
    rows: tuple[Row, ...]
    body: bytes
    resend: bool


def pack(
    rows: Iterable[tuple[Row, bytes]], limits: Limits, envelope: tuple[bytes, bytes], *, resend: bool
) -> Iterator[Batch]:
    """Divide rows into batches: in order, none lost, none doubled, no limit exceeded.

    Args:
        rows: Each row with its JSON text; none may be too large to stand in a request alone (see :func:`fits`).
        limits: What a request may hold.
        envelope: What stands before and after the rows in a body.
        resend: Whether these rows may have been sent before.

    Yields:
        Batches of at least one row.
    """
    start, end = envelope
    taken: list[Row] = []
    texts: list[bytes] = []
    size = 0
    for row, text in rows:
        grown = size + len(text) + 1
        if taken and (len(taken) == limits.max_rows or grown > limits.max_bytes):
            yield Batch(batch_id(taken), tuple(taken), start + b",".join(texts) + end, resend)
            taken, texts, size = [], [], 0
        if not taken:
            # One comma fewer than there are rows.
            size = len(start) + len(end) - 1
        size += len(text) + 1
        taken.append(row)
        texts.append(text)
    if taken:
        yield Batch(batch_id(taken), tuple(taken), start + b",".join(texts) + end, resend)


def fits(text: bytes, limits: Limits, envelope: tuple[bytes, bytes]) -> bool:
    """Whether a row's JSON text can stand in a request alone."""
    return len(envelope[0]) + len(text) + len(envelope[1]) <= limits.max_bytes


def batch_id(rows: Sequence[Row]) -> str:
    """20 hexadecimal digits that depend on numbers, keys and content alone, not on who plans or when."""
    canonical = msgspec.json.encode([(row.number, row.key, row.wire) for row in rows], order="sorted")
    return hashlib.sha256(canonical).hexdigest()[:20]
