"""Raw answers in the store: what was asked, when, and what came back, byte for byte.

An object is gzip over one line of JSON (the request) and then the body as it came, so that ``zcat`` shows both and
nothing about the answer has to be understood to keep it. The line holds the body's digest: what was changed by hand and
packed again is found as surely as what a disk has damaged.

::

    raw/<account>/<date>/snapshot/0001.gz                    the snapshot dated so; a higher number is a later asking
    raw/<account>/<day>/history/0001/<from sn>-0001.gz       a page of the day's changes, named by its cursor
    raw/<account>/account/<endpoint>.json                    whose account the exchange says that it is

A page's cursor is its name and the next cursor follows from its content, so page and cursor are written as one: whoever
finds the pages knows where to go on.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from balance_bridge.errors import StoreDamaged
from balance_bridge.store import Store
from balance_bridge.transport import Response

SUFFIX = ".gz"
FORMAT = 2
_MEND = "; it is asked for again when the day is run, as long as the exchange answers for that day"


@dataclass(frozen=True)
class RawResponse:
    """An answer as the store holds it.

    Attributes:
        body: The bytes as they came.
        asked_by: The run, and its reason to ask again if it had one.
        sent_at: Seconds since the epoch (UTC) at which the request went out.
        ended_at: Seconds since the epoch (UTC) at which the answer was whole.
    """

    body: bytes
    asked_by: str
    sent_at: float
    ended_at: float


def pack(answer: Response, *, asked_by: str) -> bytes:
    """An answer as the bytes of a raw object."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "request": answer.request,
        "status": answer.status,
        "sent_at": _utc(answer.sent_at),
        "ended_at": _utc(answer.ended_at),
        "server_date": answer.headers.get("date"),
        "asked_by": asked_by,
        "body_sha256": hashlib.sha256(answer.body).hexdigest(),
    }
    # Level 3: nearly as small as 6 for this text, at a fraction of the time.
    return gzip.compress(json.dumps(header, sort_keys=True).encode() + b"\n" + answer.body, compresslevel=3, mtime=0)


def unpack(data: bytes, place: str) -> RawResponse:
    """Read a raw object.

    Args:
        data: The object's bytes.
        place: Where it lies, for messages.

    Raises:
        StoreDamaged: If it is not what :func:`pack` wrote.
    """
    try:
        line, _, body = gzip.decompress(data).partition(b"\n")
        header = json.loads(line)
        version = header["format"]
        if version != FORMAT:
            raise StoreDamaged(f"{place} has format {version}; this release reads format {FORMAT}")
        found = RawResponse(body, str(header["asked_by"]), _seconds(header["sent_at"]), _seconds(header["ended_at"]))
        digest = header["body_sha256"]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(f"{place} is damaged ({error}){_MEND}") from error
    if hashlib.sha256(body).hexdigest() != digest:
        raise StoreDamaged(f"{place} is damaged: its body is not the one that was stored{_MEND}")
    return found


def read(store: Store, key: str) -> RawResponse:
    """Read a raw object of the store.

    Raises:
        StoreDamaged: If it is missing or damaged.
    """
    return unpack(store.read(key), store.describe(key))


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
