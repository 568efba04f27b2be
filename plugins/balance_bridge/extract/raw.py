"""Raw responses in the store: what was requested, when, and what came back, byte for byte.

An object is gzip over one line of JSON (the request) and then the body as it came, so that ``zcat`` shows both and
nothing about the response has to be understood to keep it. The line holds the body's digest: what was changed by hand
and packed again is found as surely as what a disk has damaged.

::

    raw/<account>/<date>/snapshot/0001.gz                    the snapshot dated so; a higher number was fetched later
    raw/<account>/<day>/history/0001/<from sn>-0001.gz       a page of the day's changes, named by its cursor
    raw/<account>/<day>/manifest/0001.json                   a whole day: its snapshots, pages, ledger and proof
    raw/<account>/<day>/unavailable/<endpoint>.json          what the exchange said it does not have
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
from datetime import date, datetime
from typing import Any

from balance_bridge.clock import http_date, utc_text
from balance_bridge.errors import StoreDamaged
from balance_bridge.store import Store
from balance_bridge.transport import Response

SUFFIX = ".gz"
FORMAT = 2
_DO = "Run the day: it is fetched again, as long as the exchange still serves that day"


@dataclass(frozen=True)
class RawResponse:
    """A response as the store holds it.

    Attributes:
        body: The bytes as they came.
        asked_by: The run that fetched it, and its reason to fetch again if it had one.
        sent_at: Seconds since the epoch (UTC) at which the request went out.
        ended_at: Seconds since the epoch (UTC) at which the response was whole.
        server_at: Seconds since the epoch (UTC) by the other side's clock when it responded; ``sent_at`` if it did not
            say.
    """

    body: bytes
    asked_by: str
    sent_at: float
    ended_at: float
    server_at: float


def pack(response: Response, *, asked_by: str) -> bytes:
    """A response as the bytes of a raw object."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "request": response.request,
        "status": response.status,
        "sent_at": utc_text(response.sent_at),
        "ended_at": utc_text(response.ended_at),
        "server_date": response.headers.get("date"),
        "asked_by": asked_by,
        "body_sha256": hashlib.sha256(response.body).hexdigest(),
    }
    # Level 3: nearly as small as 6 for this text, at a fraction of the time.
    return gzip.compress(json.dumps(header, sort_keys=True).encode() + b"\n" + response.body, compresslevel=3, mtime=0)


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
        sent_at, ended_at = (datetime.fromisoformat(header[name]).timestamp() for name in ("sent_at", "ended_at"))
        server_at = http_date(header["server_date"])
        server_at = sent_at if server_at is None else server_at
        found = RawResponse(body, str(header["asked_by"]), sent_at, ended_at, server_at)
        digest = header["body_sha256"]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(f"{place} is damaged ({error})", do=_DO) from error
    if hashlib.sha256(body).hexdigest() != digest:
        raise StoreDamaged(f"{place} is damaged: its body is not the one that was stored", do=_DO)
    return found


def read(store: Store, key: str) -> RawResponse:
    """Read a raw object of the store.

    Raises:
        StoreDamaged: If it is missing or damaged.
    """
    return unpack(store.read(key), store.describe(key))


def page_key(generation: str, cursor: int, attempt: int) -> str:
    """The key of an attempt at the page that begins at a cursor."""
    return f"{generation}/{cursor:020d}-{attempt:04d}{SUFFIX}"


def attempt_of(key: str) -> int:
    """The number at the end of a raw object's name: of the snapshot, or of the attempt at a page."""
    return int(key.removesuffix(SUFFIX)[-4:])


def newest_pages(store: Store, generation: str) -> dict[int, str]:
    """The key of each page of a generation, by cursor; of several attempts at a page the last."""
    # Sorted names: a later attempt at a page follows the earlier one and takes its place.
    return {int(key.rsplit("/", 1)[1].split("-")[0]): key for key in store.list(generation)}


def manifests(account: str, day: date) -> str:
    """The series of a day's manifests."""
    return f"raw/{account}/{day}/manifest"
