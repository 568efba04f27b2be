"""What stands between the package's transport and the three APIs, and errs.

Each fault is a response as a server or a proxy makes it, or raised as ``requests`` raises it once a byte has left, so
that the package's own reading of it takes part. Whether a byte has left is seen by the connection, and this wire stands
in for it; so what does not leave is raised as the transport reports it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
import urllib3.exceptions as broken
from requests.adapters import BaseAdapter

from balance_bridge.errors import ConnectionFailed, PermanentError, ResponseLost
from balance_bridge.sandbox.amlyze import Amlyze
from balance_bridge.sandbox.wire import Call, Reply
from doubles import FakeClock

UNSENT = ("connection refused", "proxy refused", "untrusted")
# Each strikes before or after the server has acted.
LOST = (
    *("reset", "proxy reset", "timeout", "cut", "drip", "ValueError", "RecursionError", "defect"),
    *("408", "500", "503", "html", "charset", "half a body", "huge"),
)
REFUSED = ("401", "403", "404", "307", "429", "429 soon", "429 absurd", "429 date", "429 nonsense")
# Of the results: some lack, are there twice, have an error besides; and somebody else has used the numbers before.
RESULTS = ("missing", "doubled", "reordered", "foreign", "no results", "coded", "taken")
# What only an API with results, and with numbers, can do; another one fails after the fact.
AT_AMLYZE = ("500 burnt", *(f"results {name}" for name in RESULTS))
# By something in between; the last one speaks as the API does when it refuses a request for a bad record.
GATEWAY = tuple(
    f"gateway {status} {body}"
    for status in (400, 405, 406, 407, 409, 413, 421, 423, 425, 426, 431, 451)
    for body in ("html", "json", "code")
)
COMMON = (*UNSENT, *(f"{name} {when}" for name in LOST for when in ("before", "after")), *REFUSED, "200 error")
FAULTS = (*COMMON, *AT_AMLYZE, *GATEWAY)
RETRY_AFTER = {"429 soon": "2", "429 absurd": "999999999", "429 nonsense": "soon"}
# Other bodies instead of the API's, made of that and of the request's headers.
GARBLED: dict[str, Callable[[bytes, str], bytes]] = {
    "html": lambda _, quoted: f"<html>please log in {quoted}</html>".encode(),
    "charset": lambda whole, _: whole.decode().encode("utf-16"),
    "half a body": lambda whole, _: whole[: len(whole) // 2],
    "huge": lambda whole, _: whole + b" " * 2_000_000,
}
UNEXPECTED = {"ValueError": ValueError, "RecursionError": RecursionError, "defect": KeyError}


@dataclass
class Sent:
    """The rows of one request to a destination, the run and copy that made it, and the rows' numbers, once known."""

    api: str
    run: int
    copy: int
    rows: list[dict[str, str]]
    body_sha256: str
    numbers: list[str] = field(default_factory=list)
    host: str = ""


class Events(Protocol):
    """What the wire needs of the world around it; the APIs by their names besides."""

    amlyze: Amlyze
    chance: random.Random
    clock: FakeClock
    run: int
    secrets: set[str]
    defect: Exception | None
    sent: list[Sent]
    struck: Counter[str]

    @property
    def copy(self) -> int:
        """Which copy of a run goes on."""

    def step(self) -> None:
        """An effect is about to happen, or has just happened."""

    def sending(self, note: Sent) -> None:
        """Rows are about to go out."""

    def fault_of(self, api: str) -> str:
        """The fault that strikes the next request; an empty text if none does."""


class Wire(BaseAdapter):
    """What stands between the package's transport and the three APIs."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self._sim = events

    def close(self) -> None:
        """Nothing is open."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:  # type: ignore[override]
        sim, url = self._sim, urlsplit(request.url or "")
        api = (url.hostname or "").partition(".")[0]
        headers = {name.lower(): str(value) for name, value in request.headers.items()}
        sim.secrets |= {
            headers[name].removeprefix("Bearer ")
            for name in ("x-auth-signature", "elven-api-sign", "authorization")
            if name in headers
        }
        body = request.body if isinstance(request.body, bytes) else b""
        call = Call(request.method or "", url.path, url.query, headers, body)
        sim.step()
        sim.clock.now += 0.2
        fault = self._fitting(sim.fault_of(api), api)
        sim.struck[fault] += bool(fault)
        note = Sent(
            api, sim.run, sim.copy, rows_of(api, body), hashlib.sha256(body).hexdigest(), host=url.hostname or ""
        )
        if note.rows:
            sim.sent.append(note)
            sim.sending(note)
        try:
            return self._answer(request, call, api, fault, note)
        finally:
            sim.clock.now += 0.2

    def _fitting(self, fault: str, api: str) -> str:
        """A fault as this API can have it."""
        return "500 after" if fault in AT_AMLYZE and api != "amlyze" else fault

    def _answer(
        self, request: requests.PreparedRequest, call: Call, api: str, fault: str, note: Sent
    ) -> requests.Response:
        sim = self._sim
        if fault in UNSENT:
            raise unsent(fault)
        if fault in ("500 burnt", "results taken"):
            # The numbers are used up, and no record of ours came of it.
            sim.amlyze.used |= {row["communicationNumber"] for row in note.rows}
        reply: Reply | None = None
        if not fault or fault.endswith(" after") or fault.startswith("results"):
            reply = getattr(sim, api).answer(call)
        sim.step()
        kind = fault.removesuffix(" before").removesuffix(" after").removesuffix(" burnt")
        if kind in ("reset", "proxy reset", "timeout", "cut", "drip"):
            sim.clock.now += {"timeout": 30, "drip": 50}.get(kind, 0)
            raise lost(kind)
        if kind == "defect":
            sim.defect = UNEXPECTED[kind](f"{call.headers}")
        return self._response(request, call, api, kind, reply)

    def _response(
        self, request: requests.PreparedRequest, call: Call, api: str, kind: str, reply: Reply | None
    ) -> requests.Response:
        # Servers quote back what they were sent, and what is secret in it.
        quoted = " ".join(f"{name}: {value}" for name, value in call.headers.items())
        whole = reply.body() if reply else b'{"status": "ok"}'
        status, body, kept = reply.status if reply else 200, whole, {"content-type": "application/json"}
        if kind.startswith("gateway"):
            status, body = in_between(kind, api, quoted)
        elif kind[:3] in ("307", "401", "403", "404", "408", "429", "500", "503"):
            status = int(kind[:3])
            body = json.dumps({"status": status, "error": f"refused {quoted}", "message": quoted}).encode()
            kept |= {"location": f"http://user:{quoted.rpartition(' ')[2]}@elsewhere.example/"} if status == 307 else {}
            kept |= self._retry_after(kind)
        elif kind == "200 error":
            body = refusal(api, self._sim.chance.choice((19734, 10001)), quoted)
        elif kind.startswith("results"):
            body = altered(kind.removeprefix("results "), whole, self._sim.chance)
        elif kind in GARBLED:
            body = GARBLED[kind](whole, quoted)
        made = response(request, status, body, kept)
        if kind in UNEXPECTED and kind != "defect":
            made.iter_content = Breaking(UNEXPECTED[kind](quoted))  # type: ignore[method-assign]
        return made

    def _retry_after(self, kind: str) -> dict[str, str]:
        if kind == "429 date":
            at = self._sim.clock.now + self._sim.chance.choice((-5, 3, 10**6))
            return {"retry-after": formatdate(at, usegmt=True)}
        return {"retry-after": RETRY_AFTER[kind]} if kind in RETRY_AFTER else {}


class Untimed:
    """Stands in for the transport's watch: its time is real, and its connection is this wire."""

    sent = False
    reached = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> Untimed:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""


class Breaking:
    """A body that cannot be read, for a reason that nobody thought of."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, *_: Any) -> Iterator[bytes]:
        raise self._error


def rows_of(api: str, body: bytes) -> list[dict[str, str]]:
    """The rows of a request's body, numbers by their digits."""
    if api == "exchange" or not body:
        return []
    document = json.loads(body, parse_float=str, parse_int=str)
    found: list[dict[str, str]] = document if isinstance(document, list) else document["accountBalances"]
    return found


def unsent(fault: str) -> Exception:
    if fault == "untrusted":
        return PermanentError("POST: the server's TLS certificate is not trusted")
    return ConnectionFailed(f"POST: no connection ({fault})")


def lost(kind: str) -> Exception:
    if kind == "timeout":
        return requests.ReadTimeout("no response")
    if kind == "drip":
        # The deadline is one of real time; what it comes to is this.
        return ResponseLost("POST: no whole response within 60 s")
    reset = ConnectionResetError("reset by peer")
    if kind == "proxy reset":
        return requests.exceptions.ProxyError(broken.ProxyError("Unable to connect to proxy", reset))
    reason = reset if kind == "reset" else broken.IncompleteRead(3, 900)
    error = requests.ConnectionError if kind == "reset" else requests.exceptions.ChunkedEncodingError
    return error(broken.ProtocolError("Connection broken", reason))


def in_between(kind: str, api: str, quoted: str) -> tuple[int, bytes]:
    """What something between us and the API responds."""
    _, status, body = kind.split(" ")
    if body == "html":
        return int(status), f"<html>no: {quoted}</html>".encode()
    if body == "json":
        return int(status), json.dumps({"error": {"code": status, "message": quoted}}).encode()
    return int(status), refusal(api, 19734, quoted)


def refusal(api: str, code: int, quoted: str) -> bytes:
    """A refusal of a whole request, as the API makes it."""
    document: dict[str, Any] = {
        "exchange": {"code": 100001, "reason": "INVALID_HTTP_INPUT", "message": quoted},
        "elven": {"status": "failed", "data": {"code": code, "message": f"no: {quoted}"}},
        "amlyze": {"resultType": "REQUEST_REJECTED", "errorCode": "O001", "errorDescription": quoted},
    }[api]
    return json.dumps(document).encode()


def altered(how: str, whole: bytes, chance: random.Random) -> bytes:
    """Amlyze's response with its results altered."""
    document = json.loads(whole)
    results = document.get("results") or []
    if how == "missing" and results:
        results = chance.sample(results, chance.randrange(len(results)))
    elif how == "doubled":
        results = results + results
    elif how == "reordered":
        results = chance.sample(results, len(results))
    elif how == "foreign":
        results = [*results, {"communicationNumber": "somebody-else-1", "resultType": "REQUEST_ACCEPTED"}, None, 7]
    elif how == "coded":
        error = {"errorCode": chance.choice(("O005", "404", 0))}
        results = [{**error, **each} for each in results]
    elif how == "no results":
        results = []
    return json.dumps({**document, "results": results}).encode()


def response(request: requests.PreparedRequest, status: int, body: bytes, headers: dict[str, str]) -> requests.Response:
    made = requests.Response()
    made.status_code, made.url, made.request = status, request.url or "", request
    made.headers.update(headers)
    made._content = body
    made._content_consumed = True
    return made
