"""What a response says about the records of its request: the part that is alike at every destination.

Only facts about this one request. What they mean for a record that an earlier request may have carried is worked out
where the log is folded.

=================== ============================== ================== =========================================
response            said of the request            error              then
=================== ============================== ================== =========================================
2xx, documented     as documented, or per record   none               the next request
2xx, anything else  nothing                        InvalidResponse          stop
3xx                 nothing                        RequestRefused     stop: redirects are never followed
401, 403            rejected                       CredentialsRefused stop
404                 rejected                       RequestRefused     stop: the base URL is wrong
408, 5xx            nothing                        ServerFault        stop; Airflow tries again
429                 nothing was applied            RateLimited, raised the same request after a while
came before         used                           none               the next request
other 4xx           rejected, with reason          none               the next request
4xx that accepts    nothing                        InvalidResponse          stop
=================== ============================== ================== =========================================

"Came before": the statuses by which a destination says that it has seen this very request (409 at a webhook).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
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
from balance_bridge.transport import Response

# The code of a record's result that is not documented, or that another result contradicts.
NO_RESULT = "NO RESULT"
_MAX_CODE_CHARS = 60
_MAX_TEXT_CHARS = 500
_MAX_ID_CHARS = 200
_MIN_REPORTED_SKEW_S = 5.0
# No documented response has more values, nested ones included; a small object takes 20 times its bytes in memory.
_VALUES = 500
_VALUES_PER_ROW = 40


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
_CONTRADICTION = Word(Said.NOTHING, NO_RESULT, "the response has results for this number that contradict each other")


@dataclass(frozen=True)
class Reading:
    """What a response's document says, as a :class:`Reply` has it."""

    whole: Word | None = None
    records: Mapping[str, Word] = field(default_factory=dict)
    foreign: int = 0


@dataclass(frozen=True)
class Reply:
    """The facts of one answered request.

    Attributes:
        status: HTTP status.
        request_id: The destination's own id of the request, or empty.
        body_sha256: Of the response's bytes.
        sent_at: Seconds since the epoch (UTC).
        ended_at: Seconds since the epoch (UTC).
        whole: What the response says about the request as a whole; None where each record has its own word.
        records: What it says about single records, by number; it outweighs ``whole``. A number that neither mentions is
            unknown.
        foreign: How many results are for numbers that were not sent.
        stop: The error to raise once the result is written, or None to go on.
    """

    status: int
    request_id: str
    body_sha256: str
    sent_at: float
    ended_at: float
    whole: Word | None
    records: Mapping[str, Word]
    foreign: int
    stop: BalanceBridgeError | None


@dataclass(frozen=True)
class Reader:
    """How one destination's responses are read.

    Attributes:
        label: The destination's name, for messages.
        verdict: Reads the document of a response to a request with these numbers; raises InvalidResponse, without
            quoting the document, if it is not what the API documents.
        reason: Code and text of an error document, as they came; empty if the document has none.
        used_statuses: HTTP statuses that say: this very request came before.
    """

    label: str
    verdict: Callable[[Response, Any, Sequence[str]], Reading]
    reason: Callable[[Any], tuple[str, str]]
    used_statuses: frozenset[int]


def word(answer: Response, said: Said, code: str, text: str) -> Word:
    """A word with a code and a text from outside: the one place where they enter, and where secrets are taken out."""
    return Word(said, answer.clean(code, _MAX_CODE_CHARS), answer.clean(text, _MAX_TEXT_CHARS))


def read(answer: Response, numbers: Sequence[str], reader: Reader) -> Reply:
    """Turn a response into facts.

    Args:
        answer: A whole response.
        numbers: The numbers that were sent, in order.
        reader: How this destination's responses are read.

    Raises:
        RateLimited: For 429; nothing was applied.
    """
    if answer.status == 429:
        raise RateLimited(
            f"{reader.label}: {answer.request} answered 429, too many requests", retry_after_s=answer.retry_after_s()
        )
    document, trouble = document_of(answer, len(numbers))
    verdict, stop = Reading(), None
    if not trouble:
        try:
            verdict = reader.verdict(answer, document, numbers)
        except InvalidResponse as error:
            trouble = str(error)
    if not 200 <= answer.status < 300:
        accepts = any(each.said == Said.ACCEPTED for each in (verdict.whole, *verdict.records.values()) if each)
        whole, stop = _refusal(answer, document, reader)
        verdict = Reading(whole)
        trouble = "its document accepts" if accepts and whole.said == Said.REJECTED else ""
    if trouble:
        verdict, stop = _undocumented(answer, trouble, reader)
    inside = document.get("requestId") if isinstance(document, dict) else None
    return Reply(
        status=answer.status,
        request_id=answer.clean(text_of(inside) or answer.headers.get("x-request-id", ""), _MAX_ID_CHARS),
        body_sha256=hashlib.sha256(answer.body).hexdigest(),
        sent_at=answer.sent_at,
        ended_at=answer.ended_at,
        whole=verdict.whole,
        records=verdict.records,
        foreign=verdict.foreign,
        stop=stop,
    )


def by_number(
    results: Sequence[Any], numbers: Sequence[str], field: str, read_result: Callable[[Mapping[str, Any]], Word]
) -> Reading:
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
    return Reading(None, records, foreign)


def document_of(answer: Response, rows: int) -> tuple[Any, str]:
    """The response's JSON document, or None and why there is none; numbers with a point or an exponent stay text.

    Args:
        answer: A whole response.
        rows: How many records it may have something to say about.
    """
    if sum(map(answer.body.count, (b",", b"{", b"["))) > _VALUES + _VALUES_PER_ROW * rows:
        return None, f"it has far more values than {rows} records account for"
    try:
        text = answer.body.decode("utf-8")
        return json.loads(text, parse_float=str, parse_constant=_refuse_constant, object_pairs_hook=_unique), ""
    except (ValueError, RecursionError) as error:
        return None, f"it is not JSON that can be read ({error})"


def describe(answer: Response, document: Any, reader: Reader) -> str:
    """What was asked and what came back, fit for a message."""
    reason = _reason(answer, Said.NOTHING, document, reader)
    return f"{answer.request} answered {answer.status} ({reason.code}: {reason.text}){_skew(answer)}"


def text_of(value: Any) -> str:
    """A field of an error document as text; empty for what is neither text nor a number."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _reason(answer: Response, said: Said, document: Any, reader: Reader) -> Word:
    code, text = reader.reason(document)
    found = word(answer, said, code or f"HTTP {answer.status}", text)
    return found if found.text else msgspec.structs.replace(found, text=answer.describe_body())


def _refusal(answer: Response, document: Any, reader: Reader) -> tuple[Word, BalanceBridgeError | None]:
    status = answer.status
    rejected = _reason(answer, Said.REJECTED, document, reader)
    unknown = Word(Said.NOTHING, f"HTTP {status}", rejected.text)
    said = f"{reader.label}: {answer.request} answered {status} ({rejected.code}: {rejected.text})"
    if status in reader.used_statuses:
        return msgspec.structs.replace(rejected, said=Said.USED), None
    if status in (401, 403):
        return rejected, CredentialsRefused(
            f"{said}. Nothing of this request was applied; check the connection's key, secret or token, and what "
            f"they are permitted to do{_skew(answer)}"
        )
    if status == 404:
        return rejected, RequestRefused(f"{said}. The connection's host is not this API's base URL; correct it")
    if 300 <= status < 400:
        # Cleaned first: what takes an address apart also changes the case of its host.
        where = _target(answer.clean(answer.headers.get("location", "")))
        return unknown, RequestRefused(
            f"{said}. It redirects to {where}; credentials are never sent after a redirect: put the right host into "
            f"the connection"
        )
    if status == 408 or status >= 500:
        return unknown, ServerFault(
            f"{said}. What became of the records is unknown; they go out again under the same numbers"
        )
    if status < 200:
        return unknown, InvalidResponse(f"{said}. That is no final response; look for a proxy in between")
    return rejected, None


def _undocumented(answer: Response, trouble: str, reader: Reader) -> tuple[Reading, InvalidResponse]:
    text = f"{answer.request} answered {answer.status}, but {trouble}: {answer.describe_body()}"
    return Reading(Word(Said.NOTHING, "BAD ANSWER", text[:_MAX_TEXT_CHARS])), InvalidResponse(
        f"{reader.label}: {text}. What became of the records is unknown. Check that the connection's host is the API "
        f"itself; a repeated run sends the same records again under the same numbers"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _target(location: str) -> str:
    try:
        parts = urlsplit(location)
        # Without user, password and query: any of them may be a credential.
        host = f"//{parts.hostname}{f':{parts.port}' if parts.port else ''}" if parts.hostname else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}:{host}{parts.path}".removeprefix(":") or "nowhere (no Location)"


def _skew(answer: Response) -> str:
    skew = answer.clock_skew_s()
    if skew is None or abs(skew) < _MIN_REPORTED_SKEW_S:
        return ""
    return f". The server's clock differs from ours by {skew:.0f} s; set this machine's clock"
