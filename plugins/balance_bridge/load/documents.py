"""What a delivery log holds: facts, each document written once and never changed.

A document is JSON lines: its own fields, a line for each row of a plan, and last the digest of all lines before it, so
a truncated or changed object is found.
"""

from __future__ import annotations

import hashlib
import zlib
from enum import StrEnum
from itertools import islice
from typing import TypeVar

import msgspec

from balance_bridge.errors import StoreDamaged

VERSION = 2
#: Seconds by which the clocks of two machines may differ.
MAX_SKEW_S = 300.0
#: The code of a record without a result, or with one that is not documented or that another one contradicts.
NO_RESULT = "NO RESULT"
_GZIP, _FASTEST = 31, 1
_LINES_AT_ONCE = 1000
_SENDS = b'"action":"send"'
_encode = msgspec.json.Encoder()


class Said(StrEnum):
    """What a response says about a request or a record."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    USED = "used"
    NOTHING = "nothing"


class Word(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a response says about a request or a record, with its reason.

    Attributes:
        said: ``used`` means seen before; ``nothing`` means that what became of it is unknown.
        code: The destination's error code; empty where there is none.
        text: The reason in words; never a secret.
    """

    said: Said
    code: str = ""
    text: str = ""


ACCEPTED = Word(Said.ACCEPTED)
_NO_RESULT = Word(Said.NOTHING, NO_RESULT, "the response has no result for this number")


class Action(StrEnum):
    """What a plan does with a balance."""

    SEND = "send"
    KEEP = "keep"
    REJECT = "reject"
    IGNORE = "ignore"


class Row(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a plan decided for one balance.

    Attributes:
        asset: The exchange's asset code.
        at_ms: The instant, UTC milliseconds since the epoch.
        amount: The exact digits.
        points: The points that the instant is for, joined by commas.
        action: ``send``; ``keep``: it goes by the number that an earlier plan gave it; ``reject``: it cannot be sent;
            ``ignore``: the accounts file leaves it out.
        number: The communication number, or empty.
        key: What identifies the balance at the destination.
        wire: The destination's own fields, of ``send`` only; the amount is text here, a bare JSON number on the wire.
        replaces: The number of the attempt before this one, if there was one.
        supersedes: The amount that was accepted (or seen) before, if there was one.
        batch: The request it goes in, counted from 1; 0 for what is not sent.
        text: Why it cannot be sent; or how an earlier delivery differs from the accounts file.
    """

    asset: str
    at_ms: int
    amount: str
    points: str
    action: Action
    number: str = ""
    key: str = ""
    wire: dict[str, str] = {}
    replaces: str = ""
    supersedes: str = ""
    batch: int = 0
    text: str = ""

    @property
    def balance(self) -> tuple[str, int]:
        """Asset and instant."""
        return self.asset, self.at_ms


class Document(msgspec.Struct, tag_field="version", tag=VERSION):
    """What an object of the log holds; its version is the format's."""


class Plan(Document):
    """What a run decided for every balance of the day.

    Attributes:
        account: The account's name.
        day: The UTC day, ``YYYY-MM-DD``.
        destination: The destination's name.
        kind: Its type.
        run_id: The run that decided.
        created_at: When (UTC).
        generation: The store's object with the balances that it is for.
        so_far: Whether the day went on, so that these are not all its balances.
        read: By earlier plan, the last of its tries whose result the run knew.
        rows: One per balance.
    """

    account: str
    day: str
    destination: str
    kind: str
    run_id: str
    created_at: str
    generation: str
    so_far: bool
    read: dict[str, int]
    rows: list[Row] = []

    def batches(self) -> dict[int, list[Row]]:
        """The rows of each request, in order."""
        found: dict[int, list[Row]] = {}
        for row in self.rows:
            if row.batch:
                found.setdefault(row.batch, []).append(row)
        return dict(sorted(found.items()))


class Try(Document):
    """A request that is about to be made.

    Attributes:
        batch: The plan's batch.
        sent_at: Seconds since the epoch, by the sender's clock.
        deadline_s: The request is over after so many seconds, whatever happens.
        body_sha256: Of what is sent.
    """

    batch: int
    sent_at: float
    deadline_s: float
    body_sha256: str

    def left_s(self, now_s: float) -> float:
        """Seconds for which the request may still be under way, by its sender's clock; not above 0 once it is over."""
        return self.sent_at + self.deadline_s + MAX_SKEW_S - now_s


class Result(Document):
    """What was seen of a request.

    Attributes:
        sent: Whether it may have been applied; False if no byte of it left, or the response was 429.
        newest: The newest plan after the response had come; None if that could not be found out.
        ended_at: Seconds since the epoch, by the sender's clock.
        whole: What the response says about the request as a whole; None where each record has its own word.
        records: What it says about single numbers; it outweighs ``whole``.
        http_status: Of the response, or None if there was none.
        request_id: The destination's own id of the request, or empty.
        response_sha256: Of the response's body, or empty.
        foreign: How many results are for numbers that were not sent.
    """

    sent: bool = True
    newest: int | None = None
    ended_at: float = 0.0
    whole: Word | None = None
    records: dict[str, Word] = {}
    http_status: int | None = None
    request_id: str = ""
    response_sha256: str = msgspec.field(name="answer_sha256", default="")
    foreign: int = 0

    def word(self, number: str) -> Word:
        """What it says about a record."""
        return self.records.get(number) or self.whole or _NO_RESULT


class Resolution(Document):
    """What a person found out about balances whose outcome was not known.

    Attributes:
        by: Who found it out.
        reason: How they found it out.
        resolved_at: When (UTC).
        words: By communication number.
        read: By plan, the last of its tries that this covers; it says nothing about later ones.
    """

    by: str
    reason: str
    resolved_at: str
    words: dict[str, Word]
    read: dict[str, int] = {}


Kind = TypeVar("Kind", bound=msgspec.Struct)


def encode(document: msgspec.Struct) -> bytes:
    """A document as the bytes of an object; a plan's are compressed, since it has a line for every balance."""
    digest = hashlib.sha256()
    if not isinstance(document, Plan):
        line = _encode.encode(document) + b"\n"
        digest.update(line)
        return line + _seal(digest.hexdigest())
    # Piece by piece, because the text of a plan of many balances is large.
    packed, rows = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP), iter(document.rows)
    line = _encode.encode(msgspec.structs.replace(document, rows=[])) + b"\n"
    pieces = []
    while line:
        digest.update(line)
        pieces.append(packed.compress(line))
        line = _encode.encode_lines(list(islice(rows, _LINES_AT_ONCE)))
    return b"".join((*pieces, packed.compress(_seal(digest.hexdigest())), packed.flush()))


def decode(data: bytes, kind: type[Kind], place: str, *, all_rows: bool = True) -> Kind:
    """Read a document.

    Args:
        data: The object's bytes.
        kind: What it must be.
        place: The object, for messages.
        all_rows: Whether to read all rows of a plan, or only those that it sends.

    Raises:
        StoreDamaged: If it is not what was written, or of another version.
    """
    try:
        text = zlib.decompress(data, _GZIP) if kind is Plan else data
        head = text.partition(b"\n")[0]
        version = msgspec.json.decode(head, type=_Head).version
        if version != VERSION:
            raise StoreDamaged(
                f"{place} has format version {version}; this release reads {VERSION}",
                why="Nothing was sent",
                do="Deliver the day with the release that wrote it",
            )
        body, _, seal = text.rstrip(b"\n").rpartition(b"\n")
        if seal + b"\n" != _seal(hashlib.sha256(body + b"\n").hexdigest()):
            raise _damaged(place, "it was truncated or changed")
        rest = body[len(head) + 1 :]
        document = msgspec.json.decode(head, type=kind)
        if isinstance(document, Plan):
            lines = rest.split(b"\n") if rest else []
            wanted = lines if all_rows else [line for line in lines if _SENDS in line]
            document.rows = msgspec.json.Decoder(Row).decode_lines(b"\n".join(wanted)) if wanted else []
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(place, str(error)) from error
    return document


class _Head(msgspec.Struct):
    version: int


def _seal(digest: str) -> bytes:
    return b'{"sha256":"' + digest.encode() + b'"}\n'


def _damaged(place: str, why: str) -> StoreDamaged:
    return StoreDamaged(f"{place} is not what was written; nothing was sent", why=why, do="Put it back from a backup")
