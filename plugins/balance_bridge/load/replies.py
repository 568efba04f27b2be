"""What a response says about the records of its request: the part that all destinations share.

Only facts about this one request. What they mean for a record that an earlier request may have carried is for ``fold``
to say.

=================== ============================ =================== ====================================
response            says of the request          error               then
=================== ============================ =================== ====================================
2xx, documented     as documented, or per record none                the next request
2xx, anything else  nothing                      InvalidResponse     stop
3xx                 nothing                      RequestRefused      stop: redirects are never followed
401, 403            rejected                     CredentialsRefused  stop
404                 rejected                     RequestRefused      stop: the base URL is wrong
408, 5xx            nothing                      ServerFault         stop; Airflow tries again
429                 nothing was applied          RateLimited, raised the same request after a while
a used status       used                         none                the next request
other 4xx           rejected, with the reason    none                the next request
4xx that accepts    nothing                      InvalidResponse     stop
=================== ============================ =================== ====================================

Used statuses are those by which a destination says that it has seen this very request before (409 at a webhook).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from balance_bridge.errors import (
    BalanceBridgeError,
    CredentialsRefused,
    InvalidResponse,
    RateLimited,
    RequestRefused,
    ServerFault,
)
from balance_bridge.load.documents import NO_RESULT, Result, Said, Word
from balance_bridge.transport import Response

if TYPE_CHECKING:
    from balance_bridge.load.destination import Destination

# The code of a response that is not what the API documents.
INVALID = "INVALID RESPONSE"
_MAX_CODE_CHARS = 60
_MAX_TEXT_CHARS = 500
_MAX_ID_CHARS = 200
_MIN_REPORTED_SKEW_S = 5.0
# No documented response has more values, nested ones included; a small object takes 20 times its bytes in memory.
_VALUES = 500
_VALUES_PER_ROW = 40
_CONTRADICTION = Word(Said.NOTHING, NO_RESULT, "the response has results for this number that contradict each other")


class Reply(NamedTuple):
    """A response to a request with records.

    Attributes:
        result: What it says.
        stop: The error to raise once the result is written, or None to go on.
    """

    result: Result
    stop: BalanceBridgeError | None


def read(response: Response, numbers: Sequence[str], destination: Destination) -> Reply:
    """Turn a response into facts.

    Args:
        response: To a request with records.
        numbers: Their numbers, in order.
        destination: Where it comes from.

    Raises:
        RateLimited: For 429; nothing was applied.
    """
    if response.status == 429:
        raise RateLimited(
            f"{destination.name}: {response.request} returned 429, too many requests",
            wait_s=response.retry_after_s(),
        )
    document, trouble = document_of(response, len(numbers))
    found, stop = Result(), None
    if not trouble:
        try:
            found = destination.verdict(document, numbers)
        except InvalidResponse as error:
            trouble = str(error)
    if not 200 <= response.status < 300:
        accepts = any(word.said is Said.ACCEPTED for word in (found.whole, *found.records.values()) if word)
        refusal, stop = _refusal(response, document, destination)
        found = Result(whole=refusal)
        trouble = "its document accepts" if accepts and refusal.said is Said.REJECTED else ""
    if trouble:
        found, stop = _undocumented(response, trouble, destination)
    named = document.get("requestId") if isinstance(document, dict) else None
    request_id = text_of(named) or response.headers.get("x-request-id", "")
    found.whole = found.whole and _clean(response, found.whole)
    found.records = {number: _clean(response, word) for number, word in found.records.items()}
    found.ended_at, found.http_status = response.ended_at, response.status
    found.request_id = request_id and response.clean(request_id, _MAX_ID_CHARS)
    found.response_sha256 = hashlib.sha256(response.body).hexdigest()
    return Reply(found, stop)


def by_number(
    results: Sequence[Any], numbers: Sequence[str], field: str, read_result: Callable[[Mapping[str, Any]], Word]
) -> Result:
    """What a list of results says, in whatever order they come: matched by number, never by position.

    Args:
        results: The response's list.
        numbers: The numbers that were sent.
        field: Which of a result's fields is the number.
        read_result: Reads one result.
    """
    sent = frozenset(numbers)
    records: dict[str, Word] = {}
    foreign = 0
    for result in results:
        number = result.get(field) if isinstance(result, dict) else None
        if not isinstance(number, str) or number not in sent:
            foreign += 1
            continue
        found = read_result(result)
        if records.setdefault(number, found).said != found.said:
            records[number] = _CONTRADICTION
    return Result(records=records, foreign=foreign)


def document_of(response: Response, rows: int) -> tuple[Any, str]:
    """The response's JSON document, or None and why there is none; numbers with a point or an exponent stay text.

    Args:
        response: A whole response.
        rows: How many records it may have something to say about.
    """
    if sum(map(response.body.count, (b",", b"{", b"["))) > _VALUES + _VALUES_PER_ROW * rows:
        return None, f"it has far more values than {rows} records account for"
    try:
        text = response.body.decode("utf-8")
        return json.loads(text, parse_float=str, parse_constant=_refuse_constant, object_pairs_hook=_unique), ""
    except (ValueError, RecursionError) as error:
        return None, f"it is not JSON ({error})"


def describe(response: Response, document: Any, destination: Destination) -> str:
    """The request and what came back, fit for a message."""
    reason = _reason(response, document, destination)
    return f"{response.request} returned {response.status} ({reason.code}: {reason.text}){_skew(response)}"


def text_of(value: Any) -> str:
    """A field of an error document as text; empty for what is neither text nor a number."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _clean(response: Response, word: Word) -> Word:
    """A word without secrets: codes and texts from outside enter nowhere else."""
    if not word.code and not word.text:
        return word
    return Word(word.said, response.clean(word.code, _MAX_CODE_CHARS), response.clean(word.text, _MAX_TEXT_CHARS))


def _reason(response: Response, document: Any, destination: Destination) -> Word:
    code, text = destination.reason(document)
    found = _clean(response, Word(Said.REJECTED, code or f"HTTP {response.status}", text))
    return found if found.text else msgspec.structs.replace(found, text=response.describe_body())


def _refusal(response: Response, document: Any, destination: Destination) -> tuple[Word, BalanceBridgeError | None]:
    status = response.status
    rejected = _reason(response, document, destination)
    unknown = Word(Said.NOTHING, f"HTTP {status}", rejected.text)
    what = f"{destination.name}: {response.request} returned {status} ({rejected.code}: {rejected.text})"
    if status in destination.used_statuses:
        return msgspec.structs.replace(rejected, said=Said.USED), None
    if status in (401, 403):
        return rejected, CredentialsRefused(
            what,
            why=f"Nothing of this request was applied{_skew(response)}",
            do="Check the connection's key, secret or token, and what they are permitted to do",
        )
    if status == 404:
        return rejected, RequestRefused(what, why="It is not this API's base URL", do="Correct the connection's host")
    if 300 <= status < 400:
        # Cleaned first: what takes an address apart also changes the case of its host.
        where = _target(response.clean(response.headers.get("location", "")))
        return unknown, RequestRefused(
            what,
            why=f"It redirects to {where}, and credentials are never sent after a redirect",
            do="Put the right host into the connection",
        )
    if status == 408 or status >= 500:
        return unknown, ServerFault(
            what, why="What became of the records is unknown; they go out again under the same numbers"
        )
    if status < 200:
        return unknown, InvalidResponse(f"{what}, which is not a final response", do="Look for a proxy in between")
    return rejected, None


def _undocumented(response: Response, trouble: str, destination: Destination) -> tuple[Result, InvalidResponse]:
    returned = f"{response.request} returned {response.status}"
    text = f"{returned}, but {trouble}: {response.describe_body()}"
    return Result(whole=Word(Said.NOTHING, INVALID, text[:_MAX_TEXT_CHARS])), InvalidResponse(
        f"{destination.name}: {returned}, but not the API's response: outcome unknown",
        why=f"{trouble[0].upper()}{trouble[1:]}: {response.describe_body()}",
        do="Check that the connection's host is the API itself; a repeated run sends the same records again",
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _skew(response: Response) -> str:
    skew_s = response.clock_skew_s()
    if skew_s is None or abs(skew_s) < _MIN_REPORTED_SKEW_S:
        return ""
    return f"; the server's clock differs from ours by {skew_s:.0f} s: set this machine's clock"


def _target(location: str) -> str:
    try:
        parts = urlsplit(location)
        # Without user, password and query: any of them may be a credential.
        host = f"//{parts.hostname}{f':{parts.port}' if parts.port else ''}" if parts.hostname else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}:{host}{parts.path}".removeprefix(":") or "nowhere (no Location)"
