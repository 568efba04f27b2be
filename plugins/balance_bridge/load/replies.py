"""What an answer says about the rows that were sent: the part that is alike at every destination.

=================== ====================== =============================== ==================================
answer              outcome of the rows    error                           then
=================== ====================== =============================== ==================================
2xx, documented     per row                none                            the next batch
2xx, anything else  unknown                BadAnswer                       stop
3xx                 rejected               RequestRefused                  stop: redirects are never followed
401, 403            rejected               CredentialsRefused              stop
404                 rejected               RequestRefused                  stop: the base URL is wrong
408, 5xx            unknown                ServerFault                     stop; Airflow tries again
429                 none: nothing applied  WindowFull, raised              the same request after a while
came before         seen                   none                            the next batch
other 4xx           rejected, with reason  none                            the next batch
=================== ====================== =============================== ==================================

"Came before": the statuses by which a destination says so (409 at a webhook). A refusal uses the numbers up (Amlyze
documents that failed requests use them up as well): what is sent later goes out under new ones, since "already used"
would otherwise be taken for a delivery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from balance_bridge.errors import (
    BadAnswer,
    BalanceBridgeError,
    CredentialsRefused,
    RequestRefused,
    ServerFault,
    WindowFull,
)
from balance_bridge.load.outcomes import ACCEPTED, Outcome, Status, Weak
from balance_bridge.transport import Answer

# The code of an outcome where an answer says nothing of a number, or nothing that is documented.
NO_RESULT = "NO RESULT"
_MAX_TEXT_CHARS = 500
_MAX_CODE_CHARS = 60
_SKEW_WORTH_TELLING_S = 5.0


@dataclass(frozen=True)
class Verdict:
    """What a documented answer says.

    Attributes:
        outcomes: By number; every number that was sent has one.
        foreign: Results for numbers that were not sent.
        whole: Whether all rows were refused together, without a word about each.
    """

    outcomes: Mapping[str, Outcome]
    foreign: int = 0
    whole: bool = False


@dataclass(frozen=True)
class Reply:
    """One answered request, as evidence for the receipt.

    Attributes:
        status: HTTP status.
        request_id: The destination's own id of the request, or empty.
        body_sha256: Of the answer's bytes.
        sent_at: Seconds since the epoch (UTC).
        ended_at: Seconds since the epoch (UTC).
        outcomes: By number; every number that was sent has one.
        foreign: Results for numbers that were not sent.
        whole: Whether all rows were refused together, without a word about each.
        stop: The error to raise once the receipt is written, or None to go on.
    """

    status: int
    request_id: str
    body_sha256: str
    sent_at: float
    ended_at: float
    outcomes: Mapping[str, Outcome]
    foreign: int = 0
    whole: bool = False
    stop: BalanceBridgeError | None = None


@dataclass(frozen=True)
class Reader:
    """How one destination's answers are read.

    Attributes:
        label: The destination's name, for messages.
        verdict: Reads a documented answer; raises BadAnswer for any other document.
        reason: Code and text of an error document; the code is empty if the document has none.
        secrets: What must not appear in a text, even if the destination sends it back.
        seen_statuses: HTTP statuses that say: this very request came before.
    """

    label: str
    verdict: Callable[[Any, Sequence[str]], Verdict]
    reason: Callable[[Any], tuple[str, str]]
    secrets: Sequence[str] = field(default=(), repr=False)
    seen_statuses: frozenset[int] = frozenset()

    def clean(self, text: str, limit: int = _MAX_TEXT_CHARS) -> str:
        """Bound a text that came from outside and take our secrets out of it."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text if len(text) <= limit else text[: limit - 1] + "…"


def read(answer: Answer, numbers: Sequence[str], reader: Reader) -> Reply:
    """Turn an answer into outcomes.

    Args:
        answer: A whole answer.
        numbers: The numbers that were sent, in order.
        reader: How this destination's answers are read.

    Raises:
        WindowFull: For 429; nothing was applied.
    """
    if answer.status == 429:
        raise WindowFull(
            f"{reader.label}: {answer.request} answered 429, too many requests", retry_after_s=answer.retry_after_s()
        )
    document, trouble = _parse(answer)
    if 200 <= answer.status < 300:
        verdict, stop = _documented(answer, document, trouble, numbers, reader)
    else:
        outcome, stop = _refusal(answer, document, reader)
        verdict = Verdict(dict.fromkeys(numbers, outcome), whole=stop is None and outcome.status == Status.REJECTED)
    return Reply(
        status=answer.status,
        request_id=reader.clean(answer.clean(_request_id(answer, document)), 200),
        body_sha256=hashlib.sha256(answer.body).hexdigest(),
        sent_at=answer.sent_at,
        ended_at=answer.ended_at,
        outcomes={number: _cleaned(outcome, answer, reader) for number, outcome in verdict.outcomes.items()},
        foreign=verdict.foreign,
        whole=verdict.whole,
        stop=stop,
    )


def _cleaned(outcome: Outcome, answer: Answer, reader: Reader) -> Outcome:
    # In one place, since the signature of this request is known only here; and before anything is cut, since a part of
    # a secret would not be found.
    if not outcome.text and not outcome.code:
        return outcome
    code = reader.clean(answer.clean(outcome.code), _MAX_CODE_CHARS)
    text = reader.clean(answer.clean(outcome.text))
    if (code, text) == (outcome.code, outcome.text):
        return outcome
    return msgspec.structs.replace(outcome, code=code, text=text)


def by_number(
    results: Sequence[Any], numbers: Sequence[str], field: str, outcome: Callable[[Mapping[str, Any]], Outcome]
) -> Verdict:
    """What a list of results says, in whatever order they come: matched by number, never by place.

    Args:
        results: The answer's list.
        numbers: The numbers that were sent.
        field: Which of a result's fields is the number.
        outcome: Reads one result.

    Returns:
        A verdict in which a number without a result is unknown, and so is one with contradicting results, unless one
        of them is an acceptance.
    """
    sent = set(numbers)
    found: dict[str, Outcome] = {}
    foreign = 0
    for result in results:
        number = result.get(field) if isinstance(result, dict) else None
        if not isinstance(number, str) or number not in sent:
            foreign += 1
            continue
        told = outcome(result)
        found[number] = _agreed(found.get(number, told), told)
    missing = Outcome(Status.UNKNOWN, NO_RESULT, "the answer has no result for this number")
    return Verdict({number: found.get(number, missing) for number in numbers}, foreign)


def _agreed(first: Outcome, second: Outcome) -> Outcome:
    if first.status == second.status:
        return first
    if ACCEPTED in (first, second):
        return ACCEPTED
    return Outcome(Status.UNKNOWN, NO_RESULT, f"contradicting results: {first.status} and {second.status}")


def document_of(answer: Answer) -> Any:
    """The answer's JSON document, or None if there is none that can be read."""
    return _parse(answer)[0]


def describe(answer: Answer, document: Any, reader: Reader) -> str:
    """What was asked and what came back, fit for a message."""
    code, text = _told(answer, document, reader)
    return f"{answer.request} answered {answer.status} ({code}: {text}){_skew(answer)}"


def _told(answer: Answer, document: Any, reader: Reader) -> tuple[str, str]:
    code, text = reader.reason(document)
    code = reader.clean(answer.clean(code or f"HTTP {answer.status}"), _MAX_CODE_CHARS)
    return code, reader.clean(answer.clean(text) or answer.describe_body())


def _refusal(answer: Answer, document: Any, reader: Reader) -> tuple[Outcome, BalanceBridgeError | None]:
    code, text = _told(answer, document, reader)
    said = f"{reader.label}: {answer.request} answered {answer.status} ({code}: {text})"
    status = answer.status
    refused = Outcome(Status.REJECTED, code, text, Weak.REFUSED)
    unknown = Outcome(Status.UNKNOWN, f"HTTP {status}", text)
    if status in (401, 403):
        return refused, CredentialsRefused(
            f"{said}. Nothing of this request was applied; check the connection's key, secret or token, and what "
            f"they are permitted to do{_skew(answer)}"
        )
    if status == 404:
        return refused, RequestRefused(f"{said}. The connection's host is not this API's base URL; correct it")
    if 300 <= status < 400:
        where = answer.clean(_place(answer.headers.get("location", "")))
        return refused, RequestRefused(
            f"{said}. It redirects to {reader.clean(where)}; credentials are never sent after a redirect: "
            f"put the right host into the connection"
        )
    if status == 408 or status >= 500:
        return unknown, ServerFault(
            f"{said}. What became of the rows is unknown; they go out again under the same numbers"
        )
    if status < 200:
        return unknown, BadAnswer(f"{said}. That is no final answer; look for a proxy in between")
    if status in reader.seen_statuses:
        return Outcome(Status.SEEN, code, text), None
    return Outcome(Status.REJECTED, code, text), None


def text_of(value: Any) -> str:
    """A field of an error document as text; empty for what is no text and no number."""
    if isinstance(value, bool) or value is None or isinstance(value, (dict, list)):
        return ""
    return str(value)


def _parse(answer: Answer) -> tuple[Any, BadAnswer | None]:
    try:
        return answer.json(), None
    except BadAnswer as error:
        return None, error
    except RecursionError:
        return None, BadAnswer(f"{answer.request} answered {answer.status} with JSON nested too deeply to be read")


def _documented(
    answer: Answer, document: Any, trouble: BadAnswer | None, numbers: Sequence[str], reader: Reader
) -> tuple[Verdict, BalanceBridgeError | None]:
    try:
        if trouble is None:
            return reader.verdict(document, numbers), None
    except BadAnswer as error:
        trouble = error
    text = reader.clean(answer.clean(str(trouble)))
    unknown = Outcome(Status.UNKNOWN, "BAD ANSWER", text)
    stop = BadAnswer(
        f"{reader.label}: {text}. What became of the {len(numbers)} rows is unknown. Check that the connection's host "
        f"is the API itself; a repeated run sends the same rows again under the same numbers"
    )
    return Verdict(dict.fromkeys(numbers, unknown)), stop


def _request_id(answer: Answer, document: Any) -> str:
    inside = document.get("requestId") if isinstance(document, dict) else None
    return text_of(inside) or answer.headers.get("x-request-id", "")


def _place(location: str) -> str:
    try:
        parts = urlsplit(location)
        # Without user, password and query: any of them may be a credential.
        host = f"//{parts.hostname}{f':{parts.port}' if parts.port else ''}" if parts.hostname else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}:{host}{parts.path}".removeprefix(":") or "nowhere (no Location)"


def _skew(answer: Answer) -> str:
    skew = answer.clock_skew_s()
    if skew is None or abs(skew) < _SKEW_WORTH_TELLING_S:
        return ""
    return f". The server's clock differs from ours by {skew:.0f} s; set this machine's clock"
